"""Compress a checkpoint as files.

Plan, one part per matrix, then the new files, the description last.

In the folder of the result while the work goes on::

    .parts/plan.json                  what becomes of every matrix
    .parts/<number>.safetensors       the cores and the bias of one matrix, renamed into place
    *.safetensors                     the new files
    mponet.json                       written last: the result is whole

A job that was killed goes on where it stopped and gives the same bytes: parts and plan are taken as
they are when they belong to the same job.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from mponet.compress.pretrained import ENTRY, config_entry, is_entry, operator_entry
from mponet.compress.stream.header import Entry, read_header
from mponet.compress.stream.rules import Matrix, matrices, targets
from mponet.compress.stream.sources import INDEX, Source, open_source, read_json
from mponet.compress.stream.writing import Piece, encoded, write_safetensors
from mponet.compress.target import Target
from mponet.compress.uses import Uses
from mponet.errors import CheckpointError, CompressionError
from mponet.files import remove_leftovers, write_json, writing

PARTS = ".parts"
DESCRIPTION = "mponet.json"
SINGLE = "model.safetensors"
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
        CheckpointError: the folder holds something else, or a file cannot be read or written.
        CompressionError: a pattern matches nothing, or the budget cannot be met.
    """
    fresh = not job.out.exists()
    for folder in (job.out, job.parts):
        remove_leftovers(folder)
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
    plan = _begun(job, progress, processes)
    rows = list(plan.replaced)
    known = {target.name: target for target in job.targets}
    kinds = {matrix.module: job.source.entries[matrix.tensor].dtype for matrix in job.found}
    sums = job.calibration
    tasks = [
        (known[row.name], row, sums and sums.only(row.name), job.config, kinds[row.name], str(job.parts / _part(k)))
        for k, row in enumerate(rows)
        if not (job.parts / _part(k)).is_file()
    ]
    fits = affordable(processes, max((row.dense_weights for row in rows), default=0))
    for done, _ in enumerate(_each(_fit_part, tasks, fits), start=len(rows) - len(tasks) + 1):
        if progress is not None:
            progress("fit", done, len(rows))
    _write_files(job, plan, rows)
    shutil.rmtree(job.parts)
    return plan


def _begun(job: Job, progress: Progress | None, processes: int) -> CompressionPlan:
    """The plan of an earlier call of the same job, or a new one."""
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


def _part(number: int) -> str:
    return f"{number:06d}.safetensors"


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


def _fit_part(task: tuple[Target, LayerPlan, Calibration | None, CompressConfig, str, str]) -> None:
    """Fit one matrix and write its part."""
    target, row, known, config, dtype, path = task
    correct_bias = config.bias_correction
    uses = Uses.of([target], known, kind=config.fit_metric, correct_bias=correct_bias)
    fitted = fit_layer(target, row, uses, correct_bias=correct_bias)
    values = {f"{row.name}.core{k}": core for k, core in enumerate(fitted.mpo.cores, start=1)}
    if fitted.bias is not None:
        values[f"{row.name}.bias"] = fitted.bias
    pieces = [Piece(name, dtype, value.shape, encoded(value, dtype)) for name, value in values.items()]
    write_safetensors(Path(path), pieces, {"output_error": repr(fitted.output_error)})


def _write_files(job: Job, plan: CompressionPlan, rows: list[LayerPlan]) -> None:
    """The new files, shard by shard, then the index, the carried files and the description."""
    described = plan.to_json()
    parts = {row.name: read_header(job.parts / _part(k)).entries for k, row in enumerate(rows)}
    replaced = {matrix.tensor: parts[matrix.module] for matrix in job.found if matrix.module in parts}
    dropped = {f"{name}.bias" for name, entries in parts.items() if f"{name}.bias" in entries}
    shards: dict[str, list[Piece]] = {}
    for name, entry in job.source.entries.items():
        file = entry.file.name if entry.file.suffix == ".safetensors" else SINGLE
        pieces = shards.setdefault(file, [])
        if name in replaced:
            pieces += [_piece(core) for core in replaced[name].values()]
        elif name not in dropped:
            pieces.append(_copied(job.source, entry))
    single = len(shards) == 1
    metadata = {**job.source.metadata, **({"mponet": described} if single else {})}
    for name, pieces in sorted(shards.items()):
        write_safetensors(job.out / name, pieces, metadata)
    if not single:
        write_index(job.out, shards)
    for carried in job.source.carried:
        carry(carried, job.out, plan)
    write_json(job.out / DESCRIPTION, json.loads(described))


def _piece(entry: Entry) -> Piece:
    return Piece(entry.name, entry.dtype, entry.shape, entry)


def _copied(source: Source, entry: Entry) -> Piece:
    """A tensor that stays: its bytes from a safetensors file, its values from any other."""
    if entry.file.suffix == ".safetensors":
        return _piece(entry)
    return Piece(entry.name, entry.dtype, entry.shape, source.raw(entry.name))


def write_index(out: Path, shards: Mapping[str, list[Piece]]) -> None:
    """Write which file holds which tensor."""
    places = {piece.name: file for file, pieces in shards.items() for piece in pieces}
    total = sum(piece.nbytes for pieces in shards.values() for piece in pieces)
    write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))})


def carry(file: Path, out: Path, plan: CompressionPlan | None) -> None:
    """Copy a configuration or tokenizer file; ``config.json`` also gets the operators of a plan."""
    with writing(out / file.name):
        if file.name == "config.json":
            settings = {name: value for name, value in read_json(file).items() if not is_entry(value)}
            operators = {} if plan is None else {row.name: operator_entry(row, row.bonds) for row in plan.replaced}
            write_json(out / file.name, settings | ({ENTRY: config_entry(operators)} if operators else {}))
        else:
            shutil.copyfile(file, out / file.name)
