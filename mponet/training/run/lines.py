"""Files of JSON lines that a training appends to: a reader sees each line as soon as it is written."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mponet.files import writing


class Log:
    """Appends to a file.

    Raises:
        CheckpointError: the file cannot be written; from every method.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            self._stream = path.open("a", encoding="utf-8")

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line."""
        with writing(self._path):
            self._stream.write(line(values))
            self._stream.flush()

    def sync(self) -> None:
        """Wait until all lines are on the disk: a checkpoint must not be ahead of them."""
        with writing(self._path):
            os.fsync(self._stream.fileno())


def line(values: Mapping[str, Any]) -> str:
    """One line; numbers that are not finite are refused, since JSON has none."""
    return json.dumps(values, allow_nan=False) + "\n"


def complete_lines(path: Path) -> list[bytes]:
    """The lines of a file; a last one that a kill left half written is ignored."""
    *lines, _ = path.read_bytes().split(b"\n")
    return lines
