"""How a training is watched: live on a terminal, a line now and then elsewhere.

Always on standard error.
"""

from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Protocol

from mponet.cli.live import View
from mponet.cli.output import error_console, print_status
from mponet.cli.progress_state import SuiteProgress, begin, clock, extend
from mponet.training.loop import Record
from mponet.training.run import Reporter, Result

PAUSE = 10.0  # seconds between two plain lines


class Watcher(Reporter, Protocol):
    """A reporter that leaves the terminal tidy, however the run ends."""

    def __enter__(self) -> "Watcher":
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave the terminal as it was."""


def watcher(suite_progress: SuiteProgress | None = None) -> Watcher:
    """The one that suits standard error.

    A terminal that has the characters for curves gets the live view.

    Args:
        suite_progress: what else a suite has to do; None for a run.
    """
    console = error_console()
    able = console.is_terminal and not console.is_dumb_terminal and console.encoding.lower().startswith("utf")
    return View(console, suite_progress) if able else Lines()


class Lines:
    """Plain lines, at most one in `PAUSE` seconds while a variant trains."""

    def __init__(self) -> None:
        self._progress = begin("", 1, 1, ())
        self._last = 0.0

    def __enter__(self) -> "Lines":
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing to tidy."""

    def started(self, variant: str, steps: int, per_epoch: int, earlier: Sequence[Record]) -> None:
        """What is to be done."""
        progress = self._progress = begin(variant, steps, per_epoch, earlier)
        self._last = monotonic()
        opening = f"continues at step {progress.step}" if progress.step else "starts"
        print_status(f"{variant}: {opening}; {steps} steps, {progress.epochs:.3g} epochs in all")

    def advanced(self, record: Record) -> None:
        """How far it is."""
        progress = self._progress = extend(self._progress, record)
        if monotonic() - self._last < PAUSE:
            return
        self._last = monotonic()
        accuracy = "" if record.accuracy is None else f", test accuracy {record.accuracy:.2%}"
        told = f"step {record.step}, epoch {record.epoch:.1f}, loss {record.loss:.4f}{accuracy}"
        left = progress.left()
        print_status(f"{progress.name}: {told}{'' if left is None else f', {clock(left)} left'}")

    def finished(self, variant: str, outcome: Result) -> None:
        """What came out."""
        told = "diverged" if outcome.diverged else f"test accuracy {outcome.accuracy:.2%}"
        print_status(f"{variant}: {told} after {outcome.steps} steps, {outcome.seconds:.1f} s")
