"""The `mponet` command; nothing outside this package imports click or rich."""

import sys
from importlib.util import find_spec
from io import TextIOWrapper

NEEDS = ("click", "rich")


def main() -> None:
    """Entry point of the command: says what is missing, or runs it."""
    absent = [name for name in NEEDS if find_spec(name) is None]
    if absent:
        sys.exit(f"error: the mponet command needs {' and '.join(absent)}; pip install 'mponet[experiments]'")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without box characters still gets the words
    from mponet.cli.group import mponet

    mponet(prog_name="mponet")
