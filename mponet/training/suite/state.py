"""How far the cells of a suite are, read from their folders; nothing here writes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import fsum
from pathlib import Path
from time import time
from typing import Any

from mponet.errors import CheckpointError, MPONetError
from mponet.training.loop import Record
from mponet.training.run import Result, RunFolder, metrics
from mponet.training.suite.cells import Cell, Suite
from mponet.training.suite.folder import at_work

FAILED = "failed.json"
SILENCE = 600.0  # seconds without a record after which a cell counts as stopped, where there are no locks to ask


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a cell.

    Attributes:
        name: of the cell.
        state: ``waiting``, ``running``, ``stopped`` (begun, and no process works on the suite),
            ``done``, ``diverged`` or ``failed``.
        step: optimiser steps done.
        steps: to do in all.
        accuracy: on the test set, 0 to 1, the last one measured; None if there is none or training
            diverged.
        best_accuracy: the largest one so far.
        images_per_s: the last one measured.
        seconds: of training so far.
        left: seconds that remain, from the pace so far or that of the same network with another
            seed; None if unknown.
        age: seconds since the last record; None if there is none, or the cell is finished.
        message: why it diverged or failed.
    """

    name: str
    state: str
    step: int
    steps: int
    accuracy: float | None = None
    best_accuracy: float | None = None
    images_per_s: float | None = None
    seconds: float = 0.0
    left: float | None = None
    age: float | None = None
    message: str | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing remains to be done; a failed cell is tried again."""
        return self.state in ("done", "diverged")

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def outcome(cell: Cell, home: Path) -> Result | None:
    """The result of a cell if it is finished.

    Raises:
        RecipeError: its folder holds a run of other settings.
        CheckpointError: a file in it is damaged.
    """
    run = RunFolder(cell.folder(home), cell.settings)
    run.check()
    return run.results().get(cell.variant)


def failure(cell: Cell, home: Path) -> str | None:
    """Why a cell failed, if it did: noted by the process that saw it, or plain from its folder now."""
    try:
        if outcome(cell, home) is not None:
            return None
        noted: dict[str, Any] = json.loads((cell.folder(home) / FAILED).read_bytes())
        return str(noted["message"])
    except FileNotFoundError:
        return None
    except MPONetError as error:
        return str(error)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{cell.folder(home) / FAILED} cannot be read ({type(error).__name__}: {error})"


def states(suite: Suite, home: Path) -> list[State]:
    """All cells in order."""
    cells, working = suite.cells(), at_work(home)
    paces: dict[tuple[str, str, int | None], list[float]] = {}
    found = []
    for cell in cells:
        found.append(_state(cell, home, working))
        if found[-1].step and found[-1].state != "diverged":
            paces.setdefault(cell.network, []).append(found[-1].seconds / found[-1].step)
    return [_timed(state, paces.get(cell.network, [])) for cell, state in zip(cells, found, strict=True)]


def _state(cell: Cell, home: Path, working: bool | None) -> State:
    name, steps = str(cell), cell.settings.recipe.steps
    if (message := failure(cell, home)) is not None:
        return State(name, "failed", 0, steps, message=message)
    path = RunFolder(cell.folder(home), cell.settings).metrics(cell.variant)
    try:
        result, records = outcome(cell, home), _records(path)
    except CheckpointError as error:
        return State(name, "failed", 0, steps, message=str(error))
    if result is None:
        return _unfinished(cell, home, records, path, working)
    return State(
        name,
        "diverged" if result.diverged else "done",
        result.steps,
        steps,
        result.accuracy,
        result.best_accuracy,
        _speed(records),
        result.seconds,
        0.0,
        message=result.message,
    )


def _unfinished(cell: Cell, home: Path, records: Sequence[Record], path: Path, working: bool | None) -> State:
    name, steps = str(cell), cell.settings.recipe.steps
    begun = (cell.folder(home) / "config.json").exists()
    if not records:
        return State(name, "running" if begun and working else "waiting", 0, steps)
    age = max(time() - path.stat().st_mtime, 0.0) if path.exists() else 0.0
    alive = age < SILENCE if working is None else working
    measured = [record.accuracy for record in records if record.accuracy is not None]
    return State(
        name,
        "running" if alive else "stopped",
        records[-1].step,
        steps,
        measured[-1] if measured else None,
        max(measured, default=None),
        _speed(records),
        records[-1].seconds,
        age=age,
    )


def _records(path: Path) -> list[Record]:
    """The records, or none where the file is not there, or goes while it is read."""
    try:
        return metrics.read(path) if path.exists() else []
    except FileNotFoundError:
        return []


def _speed(records: Sequence[Record]) -> float | None:
    return next((record.images_per_s for record in reversed(records) if record.images_per_s), None)


def _timed(state: State, paces: Sequence[float]) -> State:
    """With the time that remains: from its own pace if it has one, else from that of its likes."""
    if state.finished:
        return state
    own = [state.seconds / state.step] if state.step else paces
    left = fsum(own) / len(own) * (state.steps - state.step) if own else None
    return State(**{**state.as_dict(), "left": left})
