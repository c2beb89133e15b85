"""Files are written whole or not at all.

Content goes to a temporary file of its own, waits for the disk, and is renamed.
"""

import json
import os
import re
import secrets
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from math import isfinite
from pathlib import Path
from shutil import rmtree
from stat import S_ISDIR, S_ISREG
from time import time
from typing import Any, BinaryIO

from mponet.errors import CheckpointError

_TEMPORARY = re.compile(r"\.mponet-([0-9a-f]{8})-(\d{1,10})-[0-9a-f]{8}\.part")
_DAY = 86400.0


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
    with _part(path) as (_, stream):
        stream.writelines(chunks)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty file under a temporary name, which becomes ``path`` when the block ends well.

    For libraries that write to a name; otherwise as `write_chunks`.

    Raises:
        OSError: no such folder, no room or no permission; an old file is untouched.
    """
    with _part(path) as (part, _):
        yield part


@contextmanager
def _part(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A temporary file, its name and its stream, which is renamed when the block ends well."""
    part = temporary_path(path.parent)
    # exclusively, so that a link or a file that waits under this name is never written to
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield part, stream
        with part.open("rb") as written:  # a library may have made the file anew
            os.fsync(written.fileno())
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
    """A name in a folder that no other write uses; it says which process made it, and where."""
    return folder / f".mponet-{_system()}-{os.getpid()}-{secrets.token_hex(4)}.part"


@cache
def _system() -> str:
    """Hexadecimal digits of the system, or the container, whose process numbers ours are."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return sha256("\n".join(parts).encode()).hexdigest()[:8]


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders that killed processes left in a folder.

    Those of live processes stay, and for a day those of other systems that share the folder.
    """
    with suppress(OSError):
        for entry in list(folder.iterdir()):
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None:
                continue
            ended = match[1] == _system() and not _is_alive(int(match[2]))
            if ended or time() - entry.lstat().st_mtime > _DAY:
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

    No file remains.

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


def _is_special(path: Path) -> bool:
    """Whether a path leads to a device, a pipe or a socket."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (S_ISREG(mode) or S_ISDIR(mode))


def _is_alive(process: int) -> bool:
    """Whether a process of this number runs."""
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
