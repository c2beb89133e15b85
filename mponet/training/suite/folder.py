"""The folder of a suite: suite.json, and the lock of the process at work in it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from mponet.errors import CheckpointError, RecipeError
from mponet.files import write_json, writing
from mponet.training.run.settings import differences
from mponet.training.suite.settings import Suite, from_dict

try:
    import fcntl
except ImportError:  # pragma: no cover - not on Windows, where a suite goes without its lock
    fcntl = None  # type: ignore[assignment]

NAME, LOCK = "suite.json", "suite.lock"
FORMAT, FORMAT_VERSION = "mponet-suite", 1
WAIT = 1.0  # seconds; whoever only asks holds the lock for an instant


def claim_folder(path: Path, suite: Suite) -> None:
    """Make a folder that of ``suite``, or see that it is.

    Raises:
        RecipeError: it holds another suite.
        CheckpointError: its suite.json is damaged, or it cannot be written.
    """
    if (path / NAME).exists():
        if lines := differences(suite.as_dict(), read(path).as_dict()):
            raise RecipeError(
                f"{path} holds a suite of other settings: {'; '.join(lines)}; expected the same; give those it was "
                "started with, or choose another --out"
            )
        return
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    write_json(path / NAME, {"format": FORMAT, "format_version": FORMAT_VERSION, "settings": suite.as_dict()})


def read(path: Path) -> Suite:
    """The suite of a folder.

    Raises:
        CheckpointError: there is none, or its suite.json is damaged.
    """
    if not (path / NAME).is_file():
        raise CheckpointError(f"{path} holds no {NAME}; expected the folder of a suite; start one with: mponet suite")
    try:
        values: dict[str, Any] = json.loads((path / NAME).read_bytes())
        if (values["format"], values["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError(f"format is {values['format']!r} {values['format_version']!r}")
        return from_dict(values["settings"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # errors of ours are ValueErrors, too
        raise CheckpointError(
            f"{path / NAME} cannot be used ({type(error).__name__}: {error}); expected what mponet writes; choose "
            "another --out, or delete the file"
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system lets go of it however the process ends.

    Raises:
        RecipeError: another process holds it.
        CheckpointError: it cannot be written.
    """
    with writing(path / LOCK):
        handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = monotonic() + WAIT
        while _try_lock(handle, exclusive=True):
            if monotonic() > deadline:
                raise RecipeError(
                    f"{path} is being worked on by another process; expected one at a time; watch it with: mponet "
                    f"suite --status {path}"
                )
            sleep(0.05)
        yield
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool | None:
    """Whether a process works on the suite of a folder; None where the system cannot tell.  Nothing is written."""
    try:
        handle = os.open(path / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        return _try_lock(handle, exclusive=False)
    finally:
        os.close(handle)


def _try_lock(handle: int, *, exclusive: bool) -> bool | None:
    """Try to take the lock: True if another has it, None if there are no locks here."""
    if fcntl is None:  # pragma: no cover - see above
        return None
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    return False
