"""How far the trainings of a suite are, read from their folders; nothing here writes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import fsum
from pathlib import Path
from time import time
from typing import Any

from mponet.errors import CheckpointError, MPONetError
from mponet.files import exists, read_json
from mponet.files.claim import is_claimed
from mponet.training.loop import Record
from mponet.training.run import Result, RunFolder, metrics
from mponet.training.run.folder import CONFIG
from mponet.training.schema import Text
from mponet.training.suite.folder import is_locked
from mponet.training.suite.settings import Suite, Training

FAILED = "failed.json"


@dataclass(frozen=True, slots=True)
class Failure:
    """failed.json in the folder of a training: what stopped it."""

    message: Text
    traceback: tuple[Text, ...] = ()


SILENCE = 600.0  # seconds without a record after which a training counts as stopped, on file systems without locks


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a training.

    Attributes:
        name: of the training.
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
        age: seconds since the last record; None if there is none, or the training is finished.
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
        """Whether nothing remains to be done; a failed training is tried again."""
        return self.state in ("done", "diverged")

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def outcome(training: Training, folder: Path) -> Result | None:
    """The result of a training if it is finished.

    Raises:
        RecipeError: its folder holds a run of other settings.
        CheckpointError: a file in it is damaged.
    """
    run = RunFolder(training.run_folder(folder), training.settings)
    run.check()
    return run.results().get(training.variant)


def failure(training: Training, folder: Path) -> str | None:
    """Why a training failed, if it did.

    Noted by the process that saw it, or plain from its folder now.
    """
    note = training.run_folder(folder) / FAILED
    try:
        if outcome(training, folder) is not None or not exists(note):
            return None
        return read_json(note, Failure, remedy="delete it").message
    except MPONetError as error:
        return str(error)


def states(suite: Suite, folder: Path) -> list[State]:
    """All trainings in order."""
    trainings, locked = suite.trainings(), is_locked(folder)
    seconds_per_step: dict[tuple[str, str, int | None, float | None], list[float]] = {}
    found = []
    for training in trainings:
        found.append(_state(training, folder, locked))
        if found[-1].step and found[-1].state != "diverged":
            seconds_per_step.setdefault(training.network, []).append(found[-1].seconds / found[-1].step)
    return [
        _timed(state, seconds_per_step.get(training.network, []))
        for training, state in zip(trainings, found, strict=True)
    ]


def _state(training: Training, folder: Path, locked: bool | None) -> State:
    name, steps = str(training), training.settings.recipe.steps
    if (message := failure(training, folder)) is not None:
        return State(name, "failed", 0, steps, message=message)
    path = RunFolder(training.run_folder(folder), training.settings).metrics(training.variant)
    try:
        result, records = outcome(training, folder), metrics.read_if_begun(path)
    except CheckpointError as error:
        return State(name, "failed", 0, steps, message=str(error))
    if result is None:
        return _unfinished(training, folder, records, path, locked)
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


def _unfinished(training: Training, folder: Path, records: Sequence[Record], path: Path, locked: bool | None) -> State:
    name, steps = str(training), training.settings.recipe.steps
    begun = exists(training.run_folder(folder) / CONFIG)
    if not records:
        at_work = locked or is_claimed(training.run_folder(folder))
        return State(name, "running" if begun and at_work else "waiting", 0, steps)
    try:
        age = max(time() - path.stat().st_mtime, 0.0)
    except OSError:  # it begins anew
        age = 0.0
    claimed = is_claimed(training.run_folder(folder))
    alive = claimed or (age < SILENCE if locked is None else locked)
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


def _speed(records: Sequence[Record]) -> float | None:
    return next((record.images_per_s for record in reversed(records) if record.images_per_s), None)


def _timed(state: State, seconds_per_step: Sequence[float]) -> State:
    """The state with the time that remains.

    The speed is its own if it has one, otherwise that of the same network.
    """
    if state.finished:
        return state
    known = [state.seconds / state.step] if state.step else seconds_per_step
    left = fsum(known) / len(known) * (state.steps - state.step) if known else None
    return State(**{**state.as_dict(), "left": left})
