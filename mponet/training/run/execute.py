"""Train the variants of a model in a folder, from the start or from where a killed run stopped."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mponet.backend import Backend, Numbers, Parameters, Trainer
from mponet.errors import BackendError, DivergedError, RecipeError
from mponet.files import exists
from mponet.files.lock import locked
from mponet.group import ALONE, Group
from mponet.models import PAPER_VARIANTS
from mponet.models.init import start
from mponet.recipe import Recipe
from mponet.training.checkpoint import Checkpoint, save
from mponet.training.data import Arrays, Dataset, steps_per_epoch
from mponet.training.loop import Record, evaluated, train
from mponet.training.run import metrics, spectra
from mponet.training.run.folder import LOCK, RunFolder
from mponet.training.run.lines import Log
from mponet.training.run.memory import check_memory
from mponet.training.run.reporter import GuardedReporter, NullReporter, Reporter
from mponet.training.run.result import Result, result
from mponet.training.run.settings import Settings

SAVE_EVERY = 30.0  # seconds between checkpoints; every evaluation brings one, too

_log = logging.getLogger("mponet")


def run(
    settings: Settings,
    backend: Backend,
    dataset: Dataset,
    folder: Path,
    *,
    variants: Sequence[str] = PAPER_VARIANTS,
    resume: bool = False,
    device: str | None = None,
    shard: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, Result]:
    """Train variants of a model one after the other.

    One that diverges does not keep the next from running.

    Processes that the environment names as a group train together (`mponet.group.Group`): the first
    one writes, the others read its folder.

    The folder is locked until the end.  A reporter that fails is told nothing more; the training
    goes on.

    Args:
        settings: what to train, and how.
        backend: what trains it.
        dataset: the data set that the settings name.
        folder: where everything is kept.
        variants: any of `mponet.models.VARIANTS`.
        resume: continue where ``folder`` ends, on this backend or another; what is finished is not
            trained again.
        device: of the backend; None for its default.
        shard: whether each process of a group keeps a share of the parameters and of the
            optimiser's state instead of all; checkpoints are the same.
        reporter: is told what happens.

    Raises:
        RecipeError: ``folder`` holds these variants and ``resume`` is false, it holds a run of
            other settings, another process works in it, the model does not fit the memory, the
            batch does not divide among the processes, or ``shard`` is true for one process.
        CheckpointError: a file in ``folder`` is damaged, or cannot be written.
        DataError: the data set does not fit the model.
        BackendError: another process that trains with this one ended, or the backend cannot shard.
    """
    if dataset.name != settings.data:
        raise RecipeError(f"data set is {dataset.name!r}; expected {settings.data!r} as in the settings; load that one")
    watcher = GuardedReporter(reporter or NullReporter())
    for variant in variants:
        check_memory(settings.networks[variant], settings.recipe)
    arrays = Arrays.of(dataset, settings.networks[variants[0]].input_shape, settings.recipe)
    group = _group(backend, settings.recipe, shard)
    if not group.leads:
        return _follow(settings, backend, group, arrays, folder, variants, device)
    with locked(folder, LOCK), group.losing():
        run_folder = RunFolder.open(folder, settings, variants, resume=resume)
        changes = run_folder.note_start(backend, device, group)
        for variant in variants:
            group.wait()
            if variant not in run_folder.results():
                training = _Variant(run_folder, variant, backend, device, arrays, tuple(changes), group)
                run_folder.note_result(variant, training.trained(watcher), backend.name)
            watcher.finished(variant, run_folder.results()[variant])
        return {variant: run_folder.results()[variant] for variant in variants}


def _follow(
    settings: Settings,
    backend: Backend,
    group: Group,
    arrays: Arrays,
    folder: Path,
    variants: Sequence[str],
    device: str | None,
) -> dict[str, Result]:
    """Train as the process that leads does, reading its folder and writing nothing."""
    run_folder, found = RunFolder(folder, settings), {}
    with group.losing():
        for variant in variants:
            group.wait()  # the folder is open, and the variants before are written
            results = run_folder.results()
            training = _Variant(run_folder, variant, backend, device, arrays, (), group)
            found[variant] = results[variant] if variant in results else training.trained(NullReporter())
    return found


def check_shards(backend: Backend) -> None:
    """Check that processes of a backend can keep a share of the parameters each.

    Raises:
        BackendError: they cannot.
    """
    if not backend.shards:
        raise BackendError(
            f"backend {backend.name!r} keeps all parameters in every process; expected torch or jax to shard them; "
            "leave --shard out, or choose one of these"
        )


def _group(backend: Backend, recipe: Recipe, shard: bool) -> Group:
    """The processes that train together, of which each has an equal share of every batch."""
    if shard:
        check_shards(backend)
    group = backend.group()
    if shard and group.count == 1:
        raise RecipeError(
            "one process trains, and has no other to share parameters with; expected several; start more with "
            "--processes N or torchrun, or leave --shard out"
        )
    if recipe.batch % group.count:
        raise RecipeError(
            f"the batch of {recipe.batch} does not divide among {group.count} processes; expected equal shares; start "
            "another number of processes"
        )
    return replace(group, sharded=shard)


@dataclass(frozen=True, slots=True)
class _Variant:
    """One variant of a run, in training."""

    folder: RunFolder
    variant: str
    backend: Backend
    device: str | None
    arrays: Arrays
    changes: tuple[str, ...]
    group: Group = ALONE

    def trained(self, watcher: Reporter) -> Result:
        """Train to the end, from the last checkpoint if there is one."""
        settings, checkpoint = self.folder.settings, self.folder.load(self.variant)
        step = 0 if checkpoint is None else checkpoint.step
        if step and self.changes:
            changes = "; ".join(self.changes)
            _log.warning("%s continues under other conditions: %s; last digits may differ", self.variant, changes)
        records = self._records(step)
        self.group.wait()  # all have read the checkpoint; from now on there may be another
        native, trainer = self._built(checkpoint)
        per_epoch = steps_per_epoch(self.arrays, settings.recipe)
        watcher.started(self.variant, settings.recipe.steps, per_epoch, tuple(records))
        message = None
        try:
            self._train(native, trainer, records, watcher)
        except DivergedError as error:
            message = str(error)
        path = self.folder.checkpoint(self.variant)
        last = path if exists(path) else None
        return result(settings, self.variant, records, checkpoint=last, message=message, processes=self.group.count)

    def _records(self, step: int) -> list[Record]:
        """The records up to a step; the process that leads removes those that come after."""
        path = self.folder.metrics(self.variant)
        if not self.group.leads:
            return [record for record in metrics.read_if_begun(path) if record.step <= step]
        spectra.truncate_after(self.folder.spectra(self.variant), step)
        return metrics.truncate_after(path, step)

    def _built(self, checkpoint: Checkpoint | None) -> tuple[Any, Trainer]:
        settings = self.folder.settings
        model = settings.networks[self.variant]
        if checkpoint is None:
            parameters: Parameters = start(model, settings.seed, settings.recipe.initializer)
        else:
            parameters = checkpoint.parameters
        native = self.backend.build(model, parameters, device=self.device)
        trainer = self.backend.trainer(native, settings.recipe, self.group)
        if checkpoint is not None:
            trainer.restore(checkpoint.optimizer)
        return native, trainer

    def _train(self, native: Any, trainer: Trainer, records: list[Record], watcher: Reporter) -> None:
        """Append to ``records`` during training, and save what a later process needs."""
        settings, saved = self.folder.settings, perf_counter()
        begin, seconds = (records[-1].step, records[-1].seconds) if records else (0, 0.0)
        if not records:
            self._measure(self.backend.parameters(native), 0, 0.0)
        blocks = train(
            self.backend,
            settings.networks[self.variant],
            native,
            trainer,
            settings.recipe,
            self.arrays,
            seed=settings.seed,
            start=begin,
            seconds=seconds,
            device=self.device,
            group=self.group,
        )
        with Log(self.folder.metrics(self.variant)) if self.group.leads else nullcontext() as log:
            for record in blocks:
                if record.interim:
                    watcher.advanced(record)
                    continue
                records.append(record)  # before anything can go wrong: the result is computed from them
                if log is not None:
                    log.write(metrics.as_dict(record))
                watcher.advanced(record)
                due = record.accuracy is not None or perf_counter() - saved > SAVE_EVERY
                if not record.diverged and self.group.agree(due):  # clocks differ between processes
                    if log is not None:
                        log.sync()
                    self._save(native, trainer, record)
                    saved = perf_counter()

    def _save(self, native: Any, trainer: Trainer, record: Record) -> None:
        """Write a checkpoint in the process that leads, of parameters that all may hold a share of.

        Raises:
            DivergedError: in every process, where a number is not finite.
        """
        settings = self.folder.settings
        parameters, optimizer = self.backend.parameters(native), trainer.state()
        if not all(np.isfinite(value).all() for value in (*parameters.values(), *optimizer.values())):
            raise DivergedError(
                f"training diverged: parameters are not finite after step {record.step} (loss {record.loss:.4g} before "
                "it); expected finite numbers; try a smaller learning rate, another seed, or another bond dimension"
            )
        if record.accuracy is not None:
            self._measure(evaluated(parameters, optimizer), record.step, record.epoch)
        if not self.group.leads:
            return
        save(
            self.folder.checkpoint(self.variant),
            Checkpoint(
                settings.networks[self.variant],
                parameters,
                optimizer,
                settings.recipe,
                settings.data,
                settings.seed,
                record.step,
            ),
        )

    def _measure(self, parameters: Mapping[str, Numbers], step: int, epoch: float) -> None:
        """Append the spectra of the operators, if there are any, in the process that leads.

        They are on the disk before the checkpoint of this step.
        """
        model = self.folder.settings.networks[self.variant]
        if self.group.leads and spectra.has_operators(model):
            with Log(self.folder.spectra(self.variant)) as log:
                log.write(spectra.measure(model, parameters, step, epoch).as_dict())
                log.sync()
