"""One process at a time works in a folder.

An exclusive lock that the system releases however the process ends.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

from mponet.errors import InUseError
from mponet.files.writer import remove_leftovers, writing

try:
    import fcntl
except ImportError:  # pragma: no cover - on Windows a file is the lock by its existence alone
    fcntl = None  # type: ignore[assignment]

WAIT = 1.0  # seconds; `is_locked` holds the lock for an instant only


@contextmanager
def locked(folder: Path, name: str, *, shared: bool = False) -> Iterator[None]:
    """Own a folder, which is made if it is not there, until the block ends.

    The lock belongs to the open file, so that of a killed process is free at once.  Temporary files
    that killed processes left in the folder are removed.

    Args:
        folder: what is owned.
        name: of the lock file in it; the last owner removes the file at the end.
        shared: whether others may own the folder, too, who also share it.

    Raises:
        InUseError: another process, or another thread of this one, owns the folder.
        CheckpointError: the folder cannot be made or written to.
    """
    path = folder / name
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with writing(path):
        handle = _acquired(path, shared)
    try:
        remove_leftovers(folder)
        yield
    finally:
        if not (shared and try_lock(handle, exclusive=True)):
            with suppress(OSError):  # while it is still locked: whoever waits finds another file and tries again
                path.unlink()
        os.close(handle)


def is_locked(folder: Path, name: str) -> bool | None:
    """Whether a process owns a folder.

    None where the file system has no locks.  Nothing is written.
    """
    try:
        handle = os.open(folder / name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None
    try:
        return try_lock(handle, exclusive=False)
    finally:
        os.close(handle)


def _acquired(path: Path, shared: bool) -> int:
    """An open file that holds the lock and is the one that ``path`` leads to."""
    deadline = monotonic() + WAIT
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        if not try_lock(handle, exclusive=not shared) and _is_same(handle, path):
            return handle
        os.close(handle)
        if monotonic() > deadline:
            raise InUseError(
                f"{path.parent} is in use by another process; expected one process at a time; wait for it, stop it, or "
                "choose another --out"
            )
        sleep(0.05)


def _is_same(handle: int, path: Path) -> bool:
    """Whether the lock's file still has its name: its last owner removed it as it let go."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def try_lock(handle: int, *, exclusive: bool) -> bool | None:
    """Try to lock an open file: True if another has it, None if the file system has no locks."""
    if fcntl is None:  # pragma: no cover - see above
        return None
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    return False
