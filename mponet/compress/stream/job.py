"""Compress a checkpoint as files.

Plan, one part per matrix, then the new files, the description last.

In the folder of the result while the work goes on::

    .parts/plan.json                  what becomes of every matrix
    .parts/<number>.safetensors       the cores and the bias of one matrix, renamed into place
    .parts/<number>/claim-<n>         who is at work on it (`mponet.compress.stream.worker`)
    *.safetensors                     the new files
    mponet.json                       written last: the result is whole

A job that was killed goes on where it stopped and gives the same bytes: parts and plan are taken as
they are when they belong to the same job.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mponet.compress.calibrate import Calibration
from mponet.compress.config import CompressConfig
from mponet.compress.fitting import fit_layer
from mponet.compress.gather import Progress
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.pipeline import make_plan
from mponet.compress.plan import CompressionPlan
from mponet.compress.pretrained import ENTRY, is_entry
from mponet.compress.stream.output import DESCRIPTION, write_files
from mponet.compress.stream.rules import Matrix, matrices, targets
from mponet.compress.stream.sources import Source, open_source, read_json
from mponet.compress.stream.writing import Piece, encoded, write_safetensors
from mponet.compress.target import Target
from mponet.compress.uses import Uses
from mponet.errors import CheckpointError, CompressionError
from mponet.files import remove_leftovers, write_json, writing
from mponet.files.lock import locked

PARTS, LOCK = ".parts", "compress.lock"
#: Matrices in float64 that a search or a fit holds at a time, about.
WORKING_COPIES = 8


@dataclass(frozen=True, slots=True)
class Job:
    """One compression of one checkpoint.

    Attributes:
        source: the checkpoint.
        out: folder of the result.
        config: what to compress, and to what budget.
        calibration: sums over the inputs; None takes the plain weights.
        found: the matrices of the checkpoint.
        targets: the same as `mponet.compress` sees them.
    """

    source: Source
    out: Path
    config: CompressConfig
    calibration: Calibration | None
    found: tuple[Matrix, ...] = field(repr=False)
    targets: tuple[Target, ...] = field(repr=False)

    @property
    def parts(self) -> Path:
        """The folder of what is done so far."""
        return self.out / PARTS

    @property
    def fingerprint(self) -> str:
        """What the parts belong to.

        The checkpoint's headers, sizes and times, the config and the sums.
        """
        entries = [(e.name, e.dtype, e.shape, e.begin, e.end) for e in self.source.entries.values()]
        files = sorted({entry.file for entry in self.source.entries.values()})
        stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        sums = None if self.calibration is None else self.calibration.counts()
        return sha256(repr((entries, stamps, self.config.summary(), sums)).encode()).hexdigest()


def open_job(path: Path, out: Path, config: CompressConfig, calibration: Calibration | None = None) -> Job:
    """Open a checkpoint for compression; headers are read, tensors are not.

    Raises:
        CheckpointError: the checkpoint is not usable, or holds a compressed network.
    """
    source = open_source(path)
    described = {file.name: file for file in source.carried}
    settings = read_json(described["config.json"]) if "config.json" in described else {}
    if DESCRIPTION in described or "mponet" in source.metadata or is_entry(settings.get(ENTRY)):
        raise CheckpointError(f"{path} is compressed already; expected a dense checkpoint; merge it first")
    found = matrices(source, settings)
    return Job(source, out, config, calibration, found, targets(source, found))


def plan_job(job: Job, *, processes: int = 1, progress: Progress | None = None) -> CompressionPlan:
    """What `run_job` would do.  Nothing is written.

    Args:
        job: what to do.
        processes: number of processes that search, as far as their memory is free.
        progress: called with a step's name, how many are done and how many there are.

    Raises:
        CompressionError: a pattern matches nothing, or the budget cannot be met.
    """
    owned = {matrix.tensor for matrix in job.found}
    other = sum(entry.size for name, entry in job.source.entries.items() if name not in owned)
    largest = max((target.weights for target in job.targets), default=0)
    each = partial(_each, processes=affordable(processes, largest))
    return make_plan(job.targets, job.config, job.calibration, other_weights=other, progress=progress, each=each)


def affordable(processes: int, weights: int) -> int:
    """How many of some processes have the memory for a matrix, at least 1.

    Args:
        processes: the number that is asked for.
        weights: entries of the largest matrix.
    """
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # a system that does not say
        return processes
    return max(1, min(processes, free // max(WORKING_COPIES * 8 * weights, 1)))


def run_job(job: Job, *, processes: int = 1, progress: Progress | None = None) -> CompressionPlan:
    """Compress a checkpoint, or go on where an earlier call was killed.

    Args:
        job: what to do.
        processes: number of processes that search and fit, as far as their memory is free.
        progress: called with a step's name, how many are done and how many there are.

    Returns:
        The plan that was carried out.

    Raises:
        InUseError: another process works on the folder.
        CheckpointError: the folder holds something else, or a file cannot be read or written.
        CompressionError: a pattern matches nothing, or the budget cannot be met.
    """
    fresh = not job.out.exists()
    with locked(job.out, LOCK):
        remove_leftovers(job.parts)
        try:
            return _run(job, processes, progress)
        except (CheckpointError, CompressionError):
            if fresh:  # a checkpoint that turns out unusable leaves nothing
                shutil.rmtree(job.out, ignore_errors=True)
            raise


def _run(job: Job, processes: int, progress: Progress | None) -> CompressionPlan:
    if (job.out / DESCRIPTION).exists() and job.parts.exists():  # killed after the last file was written
        shutil.rmtree(job.parts)
        return CompressionPlan.load(job.out / DESCRIPTION)
    plan = begun(job, progress, processes)
    parts = parts_of(job, plan)
    tasks = [part for part in parts if not part.path.is_file()]
    fits = affordable(processes, max((row.dense_weights for row in plan.replaced), default=0))
    for done, _ in enumerate(_each(fit_part, tasks, fits), start=len(parts) - len(tasks) + 1):
        if progress is not None:
            progress("fit", done, len(parts))
    write_result(job, plan)
    shutil.rmtree(job.parts)
    return plan


def begun(job: Job, progress: Progress | None, processes: int) -> CompressionPlan:
    """The plan of an earlier call of the same job, or a new one, which is saved.

    Raises:
        CheckpointError: the folder holds something else.
        CompressionError: a pattern matches nothing, or the budget cannot be met.
    """
    if (job.out / DESCRIPTION).exists():
        raise CheckpointError(f"{job.out} holds a compressed network; expected a new folder; choose another")
    marker, saved = job.parts / "job.json", job.parts / "plan.json"
    if marker.is_file() and read_json(marker).get("fingerprint") != job.fingerprint:
        raise CheckpointError(f"{job.out} holds parts of another job; expected none; choose another folder")
    if saved.is_file():
        return CompressionPlan.load(saved)
    plan = plan_job(job, processes=processes, progress=progress)
    with writing(job.out):
        job.parts.mkdir(parents=True, exist_ok=True)
    write_json(marker, {"fingerprint": job.fingerprint})
    plan.save(saved)
    return plan


@dataclass(frozen=True, slots=True)
class Part:
    """One matrix to fit.

    Attributes:
        target: the matrix.
        row: its row in the plan.
        calibration: its sums.
        config: that of the job.
        dtype: of the cores that are written.
        path: file of the cores and the bias.
    """

    target: Target
    row: LayerPlan
    calibration: Calibration | None
    config: CompressConfig
    dtype: str
    path: Path


def parts_of(job: Job, plan: CompressionPlan) -> list[Part]:
    """The matrices that a plan replaces, done or not."""
    known = {target.name: target for target in job.targets}
    kinds = {matrix.module: job.source.entries[matrix.tensor].dtype for matrix in job.found}
    sums = job.calibration
    return [
        Part(
            known[row.name],
            row,
            sums and sums.only(row.name),
            job.config,
            kinds[row.name],
            job.parts / f"{number:06d}.safetensors",
        )
        for number, row in enumerate(plan.replaced)
    ]


def _each(function: Callable[[Any], Any], tasks: Sequence[Any], processes: int) -> Iterator[Any]:
    """The results of tasks in order, from some processes; an error cancels those not begun."""
    if processes <= 1 or len(tasks) <= 1:
        yield from map(function, tasks)
        return
    pool = ProcessPoolExecutor(min(processes, len(tasks)), mp_context=get_context("spawn"))
    try:
        yield from pool.map(function, tasks)
    finally:
        pool.shutdown(cancel_futures=True)


def fit_part(part: Part) -> None:
    """Fit one matrix and write its file."""
    name, correct_bias = part.row.name, part.config.bias_correction
    uses = Uses.of([part.target], part.calibration, kind=part.config.fit_metric, correct_bias=correct_bias)
    fitted = fit_layer(part.target, part.row, uses, correct_bias=correct_bias)
    values = {f"{name}.core{k}": core for k, core in enumerate(fitted.mpo.cores, start=1)}
    if fitted.bias is not None:
        values[f"{name}.bias"] = fitted.bias
    pieces = [Piece(key, part.dtype, value.shape, encoded(value, part.dtype)) for key, value in values.items()]
    write_safetensors(part.path, pieces, {"output_error": repr(fitted.output_error)})


def write_result(job: Job, plan: CompressionPlan) -> None:
    """Write the files of the result from the parts, the description last."""
    parts = {part.row.name: part.path for part in parts_of(job, plan)}
    write_files(job.source, job.out, plan, parts, job.found)
