"""Claims: which of several processes, perhaps on several machines, works in which folder.

A claim is a file ``claim-<n>`` in the folder of a piece of work, made so that one process only can
make it; that with the largest ``n`` counts.  Its owner holds a lock on it and touches it every
`HEARTBEAT` seconds.  A claim is stale if its owner ran on this machine and holds the lock no more,
or if it was not touched for `STALE` seconds.  Whoever finds it stale makes ``claim-<n+1>``: nothing
is taken away, so two processes cannot both succeed, also where a file system has no locks (NFS).
"""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from re import fullmatch
from threading import Event, Thread
from time import monotonic, time
from typing import Annotated

from msgspec import Meta

from mponet.errors import CheckpointError
from mponet.files.lock import is_locked, try_lock
from mponet.files.reader import read_json
from mponet.files.writer import temporary_path, to_json, writing

HEARTBEAT, STALE = 5.0, 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Owner:
    """Who made a claim: the content of its file.

    Attributes:
        machine: identifies the running system, so that processes of one know that its locks count.
        host: its name, for people.
        process: number of the process.
    """

    machine: Annotated[str, Meta(max_length=200)]
    host: Annotated[str, Meta(max_length=1000)]
    process: Annotated[int, Meta(ge=0, le=2**53)]


class Watch:
    """Judges whether claims are alive, by the clock of this process alone.

    Args:
        stale: seconds without a touch after which a claim of another machine is stale.
    """

    def __init__(self, stale: float = STALE) -> None:
        self._stale = stale
        self._seen: dict[Path, tuple[int, float]] = {}

    def is_alive(self, claim: Path) -> bool:
        """Whether the owner of a claim is at work, as far as this process has seen."""
        try:
            touched = claim.stat().st_mtime_ns
        except OSError:
            return False
        if _is_ours(claim) and (locked := is_locked(claim.parent, claim.name)) is not None:
            return locked
        before, since = self._seen.setdefault(claim, (touched, monotonic()))
        if before != touched:
            self._seen[claim] = touched, monotonic()
            return True
        return monotonic() - since < self._stale


def has_claims(folder: Path) -> bool:
    """Whether a folder has claims, of a living process or not."""
    return bool(_claims(folder))


def is_claimed(folder: Path) -> bool:
    """Whether a folder has a claim that was touched lately; nothing is written."""
    found = _claims(folder)
    if not found:
        return False
    claim = folder / f"claim-{found[-1]}"
    if _is_ours(claim) and (locked := is_locked(folder, claim.name)) is not None:
        return locked
    with suppress(OSError):
        return time() - claim.stat().st_mtime < STALE
    return False


@contextmanager
def claimed(folder: Path, watch: Watch) -> Iterator[Event | None]:
    """Own a folder, which is made if it is not there, until the block ends.

    Args:
        folder: of the piece of work.
        watch: judges the claim that is there.

    Yields:
        An event that is set if another process takes the claim over, as it may where this one was
        suspended; None if a living process owns the folder.

    Raises:
        CheckpointError: the folder cannot be made or written to.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    found = _claims(folder)
    if found and watch.is_alive(folder / f"claim-{found[-1]}"):
        yield None
        return
    number = found[-1] + 1 if found else 1
    ended, lost, handles = Event(), Event(), list[int]()
    beating = Thread(target=_beat, args=(folder, number, ended, lost), daemon=True)
    try:  # from before the claim is made, so that Ctrl-C at any moment leaves none
        if _make(folder / f"claim-{number}", handles):
            beating.start()
            yield lost
        else:
            yield None
    finally:
        ended.set()
        if beating.is_alive():
            beating.join()
        _release(folder, number, handles)


def _make(claim: Path, handles: list[int]) -> bool:
    """Make a claim, open and locked; False if another process made it first.

    It gets its name with its content and its lock, so that no other process sees it without.

    Args:
        claim: the file.
        handles: get those of the files that are made.
    """
    part = temporary_path(claim.parent)
    with writing(claim):
        try:
            _own(part, handles)
            os.link(part, claim)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            with suppress(FileExistsError):
                _own(claim, handles)
                return True
            return False
        finally:
            part.unlink(missing_ok=True)
    return True


def _own(path: Path, handles: list[int]) -> None:
    """Make a new file that is locked and names this process."""
    owner = Owner(_machine(), socket.gethostname(), os.getpid())
    handles.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644))
    try_lock(handles[-1], exclusive=True)
    os.write(handles[-1], to_json(asdict(owner)).encode())


def _release(folder: Path, number: int, handles: Sequence[int]) -> None:
    """Remove a claim that one of the handles is of, and those before it."""
    for handle in handles:
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), (folder / f"claim-{number}").stat()):
                for k in _claims(folder):
                    if k <= number:
                        (folder / f"claim-{k}").unlink(missing_ok=True)
        os.close(handle)


def _beat(folder: Path, number: int, ended: Event, lost: Event) -> None:
    """Touch a claim until it ends, or is lost."""
    claim = folder / f"claim-{number}"
    while not ended.wait(HEARTBEAT):
        found = _claims(folder)
        if not found or found[-1] != number:
            lost.set()
            return
        with suppress(OSError):
            os.utime(claim)


def _claims(folder: Path) -> list[int]:
    """The numbers of the claims in a folder, rising."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    return sorted(int(name[6:]) for name in names if fullmatch(r"claim-[1-9]\d{0,8}", name))


def _is_ours(claim: Path) -> bool:
    """Whether the owner runs, or ran, on this machine."""
    try:
        return read_json(claim, Owner).machine == _machine()
    except CheckpointError:  # it is being written, or its owner was killed as it wrote
        return False


def _machine() -> str:
    """What identifies the running system: locks of one kernel count for all of its processes."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()
