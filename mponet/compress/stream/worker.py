"""Several processes, perhaps on several machines, that compress one checkpoint together.

Each claims parts in the folder of the result, as `mponet.files.claim` describes.  One makes the
plan, all fit matrices, one writes the files.  A process that is killed loses the part that it was
at; another takes it over.  The result has the bytes that one process gives.
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep

from mponet.compress.calibrate import Calibration
from mponet.compress.config import CompressConfig
from mponet.compress.gather import Progress
from mponet.compress.plan import CompressionPlan
from mponet.compress.stream.bonds import with_bond
from mponet.compress.stream.job import LOCK, Job, begun, fit_part, open_job, parts_of, write_result
from mponet.compress.stream.output import DESCRIPTION
from mponet.errors import CheckpointError, CompressionError
from mponet.files.claim import Watch, claimed
from mponet.files.lock import locked

POLL = 0.5  # seconds between two looks at what others do


@dataclass(frozen=True, slots=True)
class Order:
    """What to compress, in names and numbers, so that every process opens the same job.

    Attributes:
        source: the checkpoint.
        out: folder of the result.
        config: what to compress, and to what budget.
        calibration: files of sums, which are added; none takes the plain weights.
        bond: bond of every operator; None leaves it to the budget.
        structures: families of factors for ``bond``.
    """

    source: Path
    out: Path
    config: CompressConfig
    calibration: tuple[Path, ...] = ()
    bond: int | None = None
    structures: tuple[str, ...] = ()

    def open(self) -> Job:
        """Open the checkpoint; headers are read, tensors are not.

        Raises:
            CheckpointError: the checkpoint or the sums are not usable.
        """
        sums = Calibration() if self.calibration else None
        for file in self.calibration:
            assert sums is not None
            sums.merge(Calibration.load(file))
        job = open_job(self.source, self.out, self.config, sums)
        return job if self.bond is None else with_bond(job, self.bond, self.structures)


def work(job: Job, *, processes: int = 1, progress: Progress | None = None) -> CompressionPlan:
    """Do what other workers do not, until the result is whole.

    Args:
        job: what to do; every worker opens the same.
        processes: number of processes that search, of the worker that makes the plan.
        progress: called with a step's name, how many are done and how many there are.

    Returns:
        The plan that was carried out.

    Raises:
        InUseError: a process works on the folder that is not a worker.
        CheckpointError: the folder holds something else, or a file cannot be read or written.
        CompressionError: a pattern matches nothing, or the budget cannot be met.
    """
    fresh = not job.out.exists()
    _check_result(job)
    try:
        with locked(job.out, LOCK, shared=True):
            _finish(job, processes, progress)
            return CompressionPlan.load(job.out / DESCRIPTION)
    except (CheckpointError, CompressionError):
        if fresh:  # an order that turns out impossible leaves no folders, but those that hold something
            for folder in (job.parts / "plan", job.parts, job.out):
                with suppress(OSError):
                    folder.rmdir()
        raise


def _finish(job: Job, processes: int, progress: Progress | None) -> None:
    """Take steps until the result is whole, by whomever, and clear the parts."""
    watch = Watch()
    while not _is_whole(job):
        try:
            _step(job, watch, processes, progress)
        except CheckpointError:
            if not _is_whole(job):  # otherwise another worker has just cleared the parts
                raise
    shutil.rmtree(job.parts, ignore_errors=True)


def work_on(order: Order) -> str:
    """Be a worker at an order, as a task of Ray is; a line about how it ended."""
    plan = work(order.open())
    return f"{len(plan.replaced)} matrices are compressed"


def _check_result(job: Job) -> None:
    """Refuse a result that is there already, unless it is that of the same config."""
    if not _is_whole(job):
        return
    plan = CompressionPlan.load(job.out / DESCRIPTION)
    names = [layer.name for layer in plan.layers]
    if plan.config != job.config.summary() or sorted(names) != sorted(target.name for target in job.targets):
        raise CheckpointError(f"{job.out} holds another compressed network; expected a new folder; choose another")


def _is_whole(job: Job) -> bool:
    return (job.out / DESCRIPTION).exists()


def _step(job: Job, watch: Watch, processes: int, progress: Progress | None) -> None:
    """Make the plan, or fit what is free, or write the files; wait if others do all of it."""
    if not (job.parts / "plan.json").is_file():
        with claimed(job.parts / "plan", watch) as mine:
            if mine is not None and not _is_whole(job):
                begun(job, progress, processes)
                return
        sleep(POLL)
        return
    plan = begun(job, progress, processes)
    tasks, busy = parts_of(job, plan), False
    for number, task in enumerate(tasks, start=1):
        if not task.path.is_file() and not _is_whole(job):
            with claimed(task.path.with_suffix(""), watch) as mine:
                busy |= mine is None
                if mine is not None and not task.path.is_file() and not _is_whole(job):
                    fit_part(task)
        if progress is not None:
            progress("fit", number, len(tasks))
    if busy or not all(task.path.is_file() for task in tasks):
        sleep(POLL)
        return
    with claimed(job.parts / "files", watch) as mine:
        if mine is not None and not _is_whole(job):
            write_result(job, plan)
            return
    sleep(POLL)
