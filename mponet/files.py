"""Files: read through one door with limits and a schema, written whole or not at all.

`read_bytes` and `read_json` take regular files of bounded size only; `read_json` and `parse_json`
check the content against a dataclass.  `write_atomically` writes to a temporary file of its own,
waits for the disk and renames.
"""

import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from shutil import rmtree
from stat import S_ISDIR, S_ISREG
from time import time
from typing import Any, TypeVar

from mponet.errors import CheckpointError

T = TypeVar("T")

MAX_DOCUMENT = 16 << 20  # bytes of a JSON document
MAX_LINES = 64 << 20  # bytes of a file of JSON lines
_CHUNK = 1 << 20
_TEMPORARY = re.compile(r"\.mponet-(\d{1,10})-[0-9a-f]{8}\.part")
_DAY = 86400.0


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
        # a pipe would block until somebody writes; O_NONBLOCK opens it at once, so it can be
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


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file whose content is in memory, as `write_chunks` does.

    Args:
        path: the file; one that exists is replaced.
        parts: its content, in order.

    Raises:
        OSError: no such folder, no room or no permission; an old file is untouched.
    """
    write_chunks(path, parts)


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file under a temporary name in the same folder, then rename.

    A kill leaves the old file or the new one.

    The data is on the disk before the name points to it, and so is the name when this returns.  A
    device or a pipe, such as ``/dev/stdout``, is written to directly.

    Args:
        path: the file; one that exists is replaced.
        chunks: its content, in order; each is asked for when the one before is written.

    Raises:
        OSError: no such folder, no room or no permission; an old file is untouched.
    """
    if _is_special(path):
        with path.open("wb") as stream:
            stream.writelines(chunks)
        return
    part = temporary_path(path.parent)
    # exclusively, so that a link or a file that waits under this name is never written to
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.writelines(chunks)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can say so."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def temporary_path(folder: Path) -> Path:
    """A name in a folder that no other write uses; it says which process made it."""
    return folder / f".mponet-{os.getpid()}-{secrets.token_hex(4)}.part"


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders that killed processes left in a folder.

    Those of live processes stay.
    """
    with suppress(OSError):
        for entry in list(folder.iterdir()):
            match = _TEMPORARY.fullmatch(entry.name)
            if match and (not _is_alive(int(match[1])) or time() - entry.lstat().st_mtime > _DAY):
                with suppress(OSError):
                    rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write ``value`` as indented JSON, atomically; numbers that are not finite become null.

    Raises:
        CheckpointError: the file cannot be written.
    """
    with writing(path):
        write_atomically(path, (to_json(value, indent=2) + "\n").encode())


def write_json_once(path: Path, value: dict[str, Any]) -> None:
    """Write as `write_json` does unless the file exists; of several processes one succeeds.

    Raises:
        CheckpointError: the file cannot be written.
    """
    part = temporary_path(path.parent)
    with writing(path):
        try:
            write_json(part, value)
            try:
                os.link(part, path)
            except FileExistsError:
                return
            except OSError:  # a file system without links
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    sync_folder(path.parent)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text in ASCII; numbers that are not finite, which JSON does not have, become null."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), indent=indent, allow_nan=False)


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
            f"{path} cannot be written ({error.strerror or error}); expected a folder with room in it "
            "and the permission to write; free some room, or choose another folder"
        ) from error


def check_writable(path: Path) -> None:
    """See that a file can be written, before the work whose result it will hold.

    Nothing is left behind.

    Raises:
        CheckpointError: it is a folder, or its folder is absent or refuses new files.
    """
    with writing(path):
        if _is_special(path):
            os.close(os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0)))
            return
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        trial = temporary_path(path.parent)
        os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        trial.unlink()
        with suppress(FileNotFoundError):
            path.lstat()  # refuses a name that is too long for the file system


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


def _is_special(path: Path) -> bool:
    """Whether a path leads to a device, a pipe or a socket."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (S_ISREG(mode) or S_ISDIR(mode))


def _is_alive(process: int) -> bool:
    """Whether another process of this number runs.

    Our own number on an old file was a killed process's.
    """
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _finite(value: Any) -> Any:
    """The same with None for every number that is not finite."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
