"""Run the unfinished trainings of a suite one after the other.

One that fails does not stop the rest.
"""

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Protocol

from mponet.backend import Backend
from mponet.errors import InUseError, MPONetError
from mponet.files import exists, write_json, writing
from mponet.files.lock import locked
from mponet.training.data import Dataset
from mponet.training.run import Reporter, Result, run
from mponet.training.run.folder import LOCK as RUN_LOCK
from mponet.training.run.reporter import GuardedReporter
from mponet.training.suite import write
from mponet.training.suite.folder import LOCK, claim_folder
from mponet.training.suite.settings import Suite, Training
from mponet.training.suite.state import FAILED, outcome
from mponet.training.suite.table import Report, report
from mponet.training.watch import Guard


class Observer(Protocol):
    """Receives the progress of a suite."""

    def watching(self, training: Training, number: int, count: int) -> AbstractContextManager[Reporter | None]:
        """The reporter of a training, the ``number``-th of ``count``."""

    def finished(self, training: Training, result: Result) -> None:
        """A training is done, or has diverged."""

    def failed(self, training: Training, message: str) -> None:
        """A training broke."""


class NullObserver:
    """Observes nothing."""

    def watching(self, training: Training, number: int, count: int) -> AbstractContextManager[Reporter | None]:
        """No reporter."""
        return nullcontext()

    def finished(self, training: Training, result: Result) -> None:
        """Do nothing."""

    def failed(self, training: Training, message: str) -> None:
        """Do nothing."""


def run_suite(
    suite: Suite,
    backend: Backend,
    datasets: Mapping[str, Dataset],
    folder: Path,
    *,
    device: str | None = None,
    observer: Observer | None = None,
) -> Report:
    """Train what is not finished, and write the tables after every training.

    A training goes on where an earlier process stopped.

    A training that raises an exception is noted in its folder, and tried again by the next call;
    one that diverged is finished.

    Args:
        suite: what to train.
        backend: what trains it.
        datasets: by name, those that the suite needs.
        folder: folder of the suite.
        device: of the backend; None for its default.
        observer: is told what happens.

    Raises:
        RecipeError: ``folder`` holds another suite, or another process works on it.
        CheckpointError: ``folder`` is damaged, or cannot be written.
    """
    watcher = GuardedObserver(observer or NullObserver())
    with locked(folder, LOCK):
        claim_folder(folder, suite)
        trainings = suite.trainings()
        for number, training in enumerate(trainings, 1):
            if is_finished(training, folder):
                release(training.run_folder(folder))
            else:
                with watcher.watching(training, number, len(trainings)) as reporter:
                    try:
                        result: Result | str = attempt(training, backend, datasets, folder, device, reporter)
                    except InUseError as error:
                        result = str(error)
                watcher.ended(training, result)
                write.tables(report(suite, folder), folder)
        made = report(suite, folder)
        write.tables(made, folder)
        return made


class GuardedObserver:
    """Passes everything on to an observer until it fails."""

    def __init__(self, observer: Observer) -> None:
        self._observer, self._guard = observer, Guard()

    @contextmanager
    def watching(self, training: Training, number: int, count: int) -> Iterator[Reporter | None]:
        """The reporter of a training, guarded; None once something failed."""
        manager = self._guard.call(self._observer.watching, training, number, count)
        reporter = None if manager is None else self._guard.call(manager.__enter__)
        try:
            yield None if reporter is None else GuardedReporter(reporter, self._guard)
        finally:
            if manager is not None:
                self._guard.finish(manager.__exit__, *sys.exc_info())

    def ended(self, training: Training, result: Result | str) -> None:
        """Tell of a result, or of the message of what broke a training."""
        tell = self._observer.failed if isinstance(result, str) else self._observer.finished
        self._guard.call(tell, training, result)


def release(run_folder: Path) -> None:
    """Remove the lock of a process that was killed between its result and its end."""
    if exists(run_folder / RUN_LOCK):
        with suppress(MPONetError), locked(run_folder, RUN_LOCK):
            pass


def is_finished(training: Training, folder: Path) -> bool:
    """Whether a training is done, or has diverged."""
    try:
        return outcome(training, folder) is not None
    except MPONetError:
        return False  # the attempt says what is wrong with the folder


def attempt(
    training: Training,
    backend: Backend,
    datasets: Mapping[str, Dataset],
    folder: Path,
    device: str | None,
    reporter: Reporter | None,
) -> Result | str:
    """Train a training; its result, or the message of what broke it.

    Raises:
        InUseError: another process trains it.
    """
    settings, run_folder = training.settings, training.run_folder(folder)
    note = run_folder / FAILED
    with writing(note):
        note.unlink(missing_ok=True)
    try:
        return run(
            settings,
            backend,
            datasets[settings.data],
            run_folder,
            variants=(training.variant,),
            resume=True,
            device=device,
            reporter=reporter,
        )[training.variant]
    except InUseError:
        raise
    except Exception as error:  # whatever it is, the other trainings have nothing to do with it
        message = str(error) if isinstance(error, MPONetError) else f"{type(error).__name__}: {error}"
        with writing(note):
            run_folder.mkdir(parents=True, exist_ok=True)
        write_json(note, {"message": message, "traceback": traceback.format_exception(error)})
        return message
