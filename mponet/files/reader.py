"""Files are read through one door, with limits and a schema.

`read_bytes` and `read_json` take regular files of bounded size only; `read_json` and `parse_json`
check the content against a dataclass.
"""

import os
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

from mponet.errors import CheckpointError

T = TypeVar("T")

MAX_DOCUMENT = 16 << 20  # bytes of a JSON document
MAX_LINES = 64 << 20  # bytes of a file of JSON lines
_CHUNK = 1 << 20


def read_if_present(path: Path, limit: int = MAX_DOCUMENT) -> bytes | None:
    """The content of a regular file; None if there is no such file.

    Args:
        path: the file; a link is followed.
        limit: the most bytes that are read.

    Raises:
        CheckpointError: it is a folder, a pipe or a device, larger than ``limit``, or the system
            refuses to read it.
    """
    try:
        # a pipe would block until a process writes; O_NONBLOCK opens it at once, so it can be
        # refused
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            status = os.fstat(handle)
            if not S_ISREG(status.st_mode):
                raise CheckpointError(f"{path} is not a regular file; expected one; choose another path")
            return _content(handle, path, status.st_size, limit)
        finally:
            os.close(handle)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} cannot be read ({error}); expected a readable file; correct its path or its permissions"
        ) from error


def read_bytes(path: Path, limit: int = MAX_DOCUMENT) -> bytes:
    """The content of a regular file.

    Raises:
        CheckpointError: as `read_if_present`, or there is no such file.
    """
    payload = read_if_present(path, limit)
    if payload is None:
        raise CheckpointError(f"{path} does not exist; expected a file; correct the path")
    return payload


def read_json(path: Path, kind: type[T], *, limit: int = MAX_DOCUMENT, remedy: str = "write it again") -> T:
    """A JSON document, checked against a schema.

    Args:
        path: the file.
        kind: what the document is: a dataclass, or a type made of dataclasses, ``list`` and
            ``dict``.
        limit: the most bytes that are read.
        remedy: what to do about a damaged file, for the message.

    Raises:
        CheckpointError: the file cannot be read, or its content does not fit ``kind``.
    """
    payload = read_bytes(path, limit)
    try:
        return parse_json(payload, kind)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); expected what mponet writes; {remedy}") from error


def parse_json(payload: bytes | str, kind: type[T]) -> T:
    """JSON text as a value of ``kind``.

    Types, ranges and lengths are checked, all numbers are finite.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or does not fit ``kind``; says where.
    """
    from msgspec import MsgspecError
    from msgspec.json import decode

    try:
        return decode(payload, type=kind)
    except MsgspecError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error}") from error


def exists(path: Path) -> bool:
    """Whether there is a file or folder of this name.

    Raises:
        CheckpointError: the system does not say: a name too long, a folder without permission, a
            loop of links.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be reached ({error}); expected a path that can be read; correct it or its permissions"
        ) from error
    return True


def _content(handle: int, path: Path, size: int, limit: int) -> bytes:
    """What is in an open file; ``size`` is what the system says, which may be outdated."""
    parts: list[bytes] = []
    total, step = 0, min(max(size + 1, 4096), _CHUNK)
    while total <= limit and (part := os.read(handle, step)):
        parts.append(part)
        total += len(part)
    if total > limit:
        raise CheckpointError(
            f"{path} holds more than {limit >> 20} MiB; expected at most that; it is not a file of mponet: remove it"
        )
    return b"".join(parts)
