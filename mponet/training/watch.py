"""A watcher never stops the work: its first failure is logged, and after that it is left alone."""

import logging
from collections.abc import Callable
from typing import Any

_log = logging.getLogger("mponet")


class Guard:
    """Calls the methods of a watcher until one fails.

    Attributes:
        failed: whether one did; nothing is called from then on.
    """

    def __init__(self) -> None:
        self.failed: bool = False

    def call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """The result of ``method``; None if it fails or something failed before."""
        return None if self.failed else self.finish(method, *arguments)

    def finish(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """The same, even after a failure, for calls such as giving back the terminal."""
        try:
            return method(*arguments)
        except (Exception, SystemExit) as error:  # SystemExit: some consoles end the process on a closed pipe
            if not self.failed:
                kind = type(error).__name__
                _log.warning("the progress display failed (%s: %s); the work continues without it", kind, error)
            self.failed = True
            return None
