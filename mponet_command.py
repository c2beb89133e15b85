"""Entry point of the `mponet` command.

A module of its own: `import mponet` loads numpy, and Ctrl-C is answered before that.
"""

import os
import signal
from typing import Any


def main() -> None:
    """Run the command; Ctrl-C ends it with one line and status 130 from here on."""
    signal.signal(signal.SIGINT, _leave)
    from mponet.cli import main as command

    command()


def _leave(*_: Any) -> None:
    """End at once.

    Nothing has begun, and an exception would get lost in the start of an extension module.
    """
    os.write(2, b"interrupted\n")
    os._exit(130)
