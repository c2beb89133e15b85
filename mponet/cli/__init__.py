"""The `mponet` command; nothing outside this package imports click or rich."""

import os
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from io import TextIOWrapper
from typing import Any

NEEDS = ("click", "rich")
INTERRUPTED = 130  # what a shell reports for Ctrl-C
_STATE = {"interrupted": False}


def main() -> None:
    """Entry point of the command: says what is missing, or runs it."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        absent = [name for name in NEEDS if find_spec(name) is None]
        if absent:
            sys.exit(f"error: the mponet command needs {' and '.join(absent)}; pip install 'mponet[experiments]'")
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal without box characters still gets the words
        from mponet.cli.group import mponet

        mponet(prog_name="mponet")
    except BaseException as error:  # some libraries turn the exception of Ctrl-C into one of theirs
        if not was_interrupted():
            raise
        if not isinstance(error, SystemExit):  # which comes after a line of its own
            with suppress(OSError, ValueError):
                print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        _end()


def was_interrupted() -> bool:
    """Whether Ctrl-C was pressed."""
    return _STATE["interrupted"]


def _interrupt(*_: Any) -> None:
    _STATE["interrupted"] = True
    raise KeyboardInterrupt


def _end() -> None:
    """Leave nothing that Python would complain about as it ends.

    Ctrl-C, or streams that take no more.
    """
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
