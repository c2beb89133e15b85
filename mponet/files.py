"""Files that are there whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mponet.errors import CheckpointError


def write_atomically(path: Path, payload: bytes) -> None:
    """Write under a temporary name in the same folder, then rename: a kill or a power cut never leaves half a file.

    The data is on the disk before the name points to it.

    Raises:
        OSError: there is no such folder, no room or no right; the old file, if any, is untouched.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write ``value`` as indented JSON, atomically; numbers that are not finite are refused, since JSON has none.

    Raises:
        CheckpointError: the file cannot be written.
    """
    with writing(path):
        write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` into an error of ours that says what to do.

    Raises:
        CheckpointError: the system refused.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be written ({error}); expected a folder with room in it and the right to write; free some "
            "room, or choose another folder"
        ) from error
