"""A worker: one of several processes, perhaps on several machines, that share a suite's cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from time import sleep

from mponet.backend import Backend
from mponet.errors import InUseError
from mponet.files.claim import Watch, claimed, has_claims
from mponet.files.lock import locked
from mponet.training.data import Dataset
from mponet.training.loop import Record
from mponet.training.run import Reporter, Result
from mponet.training.run.reporter import NullReporter
from mponet.training.suite import write
from mponet.training.suite.execute import GuardedObserver, NullObserver, Observer, attempt, is_finished, release
from mponet.training.suite.folder import LOCK, claim_folder
from mponet.training.suite.settings import Suite, Training
from mponet.training.suite.state import FAILED
from mponet.training.suite.table import Report, report

POLL = 1.0  # seconds between two looks at what others do


def work(
    suite: Suite,
    backend: Backend,
    datasets: Mapping[str, Dataset],
    folder: Path,
    *,
    device: str | None = None,
    observer: Observer | None = None,
    wait: bool = True,
) -> Report:
    """Train cells of a suite that no other worker trains, until none is left.

    Any number of processes may do this for one folder at a time.  A cell whose worker was killed is
    taken over and goes on from its last checkpoint.  A cell that failed is tried once by all
    workers together, and again by workers that start later.

    Args:
        suite: what to train; every worker names the same.
        backend: what trains it.
        datasets: by name, those that the suite needs.
        folder: folder of the suite.
        device: of the backend; None for its default.
        observer: is told what happens to the cells of this worker.
        wait: whether to stay until all cells are finished, and take over those of workers that are
            killed; otherwise leave when every unfinished cell has a living worker.

    Raises:
        InUseError: a process works on ``folder`` that is not a worker.
        RecipeError: ``folder`` holds another suite.
        CheckpointError: ``folder`` is damaged, or cannot be written.
    """
    with locked(folder, LOCK, shared=True):
        claim_folder(folder, suite)
        here = _Worker(suite, backend, datasets, folder, device, GuardedObserver(observer or NullObserver()))
        while here.pass_over() and wait:
            sleep(POLL)
        here.remove_claims()
        return here.tabulated()


def work_on(
    training: Training,
    suite: Suite,
    backend: Backend,
    datasets: Mapping[str, Dataset],
    folder: Path,
    *,
    device: str | None = None,
) -> str:
    """Train one cell of a suite unless it is finished or another process does.

    Args:
        training: the cell.
        suite: the suite of ``folder``.
        backend: what trains it.
        datasets: by name, with that of the cell.
        folder: folder of the suite.
        device: of the backend; None for its default.

    Returns:
        A line that says how it ended.

    Raises:
        InUseError: a process works on ``folder`` that is not a worker.
        CheckpointError: ``folder`` is damaged, or cannot be written.
    """
    told: list[str] = []
    with locked(folder, LOCK, shared=True):
        here = _Worker(suite, backend, datasets, folder, device, GuardedObserver(_Telling(told)))
        if here.is_settled(training):
            return "is finished"
        return told[0] if here.train(training, 1, 1) and told else "is trained by another process"


class _Telling(NullObserver):
    """Keeps a line about how a training ended."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def finished(self, training: Training, result: Result) -> None:
        """What came out."""
        self._told.append(result.line)

    def failed(self, training: Training, message: str) -> None:
        """What broke it."""
        self._told.append(f"failed: {write.flat(message)}")


@dataclass(slots=True)
class _Worker:
    """One worker at its suite."""

    suite: Suite
    backend: Backend
    datasets: Mapping[str, Dataset]
    folder: Path
    device: str | None
    observer: GuardedObserver
    watch: Watch = field(default_factory=Watch)
    trainings: tuple[Training, ...] = ()
    failures: dict[Training, int] = field(default_factory=dict)
    settled: set[Training] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.trainings = self.suite.trainings()
        self.failures = {training: self._failed_at(training) for training in self.trainings}

    def pass_over(self) -> bool:
        """Train every cell that is free; whether others are still at work on some."""
        busy = False
        for number, training in enumerate(self.trainings, 1):
            if not self.is_settled(training):
                busy |= not self.train(training, number, len(self.trainings))
        return busy

    def remove_claims(self) -> None:
        """Remove the claims that killed workers left on finished cells."""
        for training in self.trainings:
            run_folder = training.run_folder(self.folder)
            if has_claims(run_folder) and self.is_settled(training):
                with claimed(run_folder, self.watch):
                    pass

    def tabulated(self) -> Report:
        """Write the tables, again if others finished something meanwhile: the last are complete."""
        made = report(self.suite, self.folder)
        while True:
            write.tables(made, self.folder)
            again = report(self.suite, self.folder)
            if again == made:
                return made
            made = again

    def is_settled(self, training: Training) -> bool:
        """Whether a cell is finished, or was tried without success since this worker started.

        What is settled stays so, and is not read again.
        """
        if training not in self.settled and (
            is_finished(training, self.folder) or self._failed_at(training) not in (0, self.failures[training])
        ):
            self.settled.add(training)
        return training in self.settled

    def _failed_at(self, training: Training) -> int:
        """When a failure was noted, by the file system's clock; 0 for never."""
        try:
            return (training.run_folder(self.folder) / FAILED).stat().st_mtime_ns
        except OSError:
            return 0

    def train(self, training: Training, number: int, count: int) -> bool:
        """Train a cell; False if another process does."""
        run_folder = training.run_folder(self.folder)
        with claimed(run_folder, self.watch) as lost:
            if lost is None:
                return False
            if self.is_settled(training):  # meanwhile
                release(run_folder)
                return True
            try:
                with self.observer.watching(training, number, count) as reporter:
                    result = self._attempted(training, lost, reporter)
            except (_Lost, InUseError):
                return False
            if isinstance(result, str):
                self.failures[training] = 0
            self.observer.ended(training, result)
        self.tabulated()
        return True

    def _attempted(self, training: Training, lost: Event, reporter: Reporter | None) -> Result | str:
        watched = _Watched(reporter or NullReporter(), lost)
        return attempt(training, self.backend, self.datasets, self.folder, self.device, watched)


class _Lost(BaseException):
    """Another worker took the cell over.

    It is not an `Exception`: a training that it ends has not failed.
    """


@dataclass(frozen=True, slots=True)
class _Watched:
    """A reporter that ends a training whose claim is lost."""

    reporter: Reporter
    lost: Event

    def started(self, variant: str, steps: int, per_epoch: int, earlier: Sequence[Record]) -> None:
        """Pass on."""
        self.reporter.started(variant, steps, per_epoch, earlier)

    def advanced(self, record: Record) -> None:
        """Pass on, or end the training."""
        if self.lost.is_set():
            raise _Lost
        self.reporter.advanced(record)

    def finished(self, variant: str, outcome: Result) -> None:
        """Pass on."""
        self.reporter.finished(variant, outcome)
