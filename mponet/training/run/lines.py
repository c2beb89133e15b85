"""Files of JSON lines that a training appends to.

A reader sees each line as soon as it is written.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from mponet.files import MAX_LINES, read_if_present, to_json, writing


class Log:
    """Appends to a file.

    Raises:
        CheckpointError: the file cannot be written; from every method.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            self._stream = path.open("ab", buffering=0)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:  # the first error is the one to report
            with suppress(OSError):
                self._stream.close()
            return
        with writing(self._path):  # some file systems report a full disk here only
            self._stream.close()

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line."""
        payload = line(values).encode()
        with writing(self._path):
            while payload:  # a nearly full disk takes a part; the next attempt says why
                payload = payload[self._stream.write(payload) :]

    def sync(self) -> None:
        """Wait until all lines are on the disk: a checkpoint must not be ahead of them."""
        with writing(self._path):
            os.fsync(self._stream.fileno())


def line(values: Mapping[str, Any]) -> str:
    """One line of JSON; numbers that are not finite become null."""
    return to_json(values) + "\n"


def complete_lines(path: Path) -> list[bytes] | None:
    """The lines of a file, without a last one that a kill left incomplete.

    None if the file is absent.

    Raises:
        CheckpointError: the file cannot be read, or is too large to be one of ours.
    """
    payload = read_if_present(path, MAX_LINES)
    if payload is None:
        return None
    *lines, _ = payload.split(b"\n")
    return lines
