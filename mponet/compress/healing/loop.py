"""Healing over an adapter: batches in order, steps, checkpoints, a report."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from math import isfinite, prod
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mponet.compress.gather import Progress as ProgressCallback
from mponet.compress.healing import checkpoint
from mponet.compress.healing.adapter import PARAMETERS, HealAdapter, State
from mponet.compress.healing.checkpoint import Progress
from mponet.compress.healing.config import HealConfig
from mponet.compress.healing.report import HealRecord, HealReport
from mponet.compress.healing.retruncate import Truncation, retruncate
from mponet.compress.healing.roles import rate_factors
from mponet.errors import CheckpointError, CompressionError, DivergedError
from mponet.files.lock import locked
from mponet.training.blocks import blocks
from mponet.training.watch import Guard

#: Batches of the data that measure the loss before and after, where none are given.
VALIDATION_BATCHES = 8
Reporter = Callable[[HealRecord], None]


def heal(
    adapter: HealAdapter,
    data: Iterable[Any],
    config: HealConfig,
    *,
    validation: Iterable[Any] | None = None,
    folder: str | Path | None = None,
    every: float = 60.0,
    progress: ProgressCallback | None = None,
    reporter: Reporter | None = None,
) -> HealReport:
    """Train the adapter's student in place.

    First the cores of every operator are balanced: the singular values at each bond are shared
    equally by both sides.  Compression leaves them all on one side, with entries a thousand times
    larger than on the other, and optimisers such as Adam take steps of one size.

    Args:
        adapter: of student and teacher.
        data: batches of the student's own inputs.  A sequence is read in an order that the seed
            shuffles anew for every epoch, another iterable in its own order; an iterator, which can
            be read once only, is kept in memory.
        config: how to train.
        validation: batches that measure the loss before and after; None takes the first
            `VALIDATION_BATCHES` of ``data``.
        folder: where checkpoints are kept; a folder that holds one is continued.  None keeps none.
        every: seconds between checkpoints, each at an entry of the loss curve.
        progress: called with ``heal``, how many steps are done, and how many there are; seconds
            where the config gives the length as a time.
        reporter: called with every entry of the loss curve.

    Raises:
        CompressionError: the config does not fit the student, or there are no data.
        CheckpointError: the folder holds the healing of another student or config, or cannot be
            written.
        RecipeError: another process heals in the folder.
        DivergedError: the loss is not finite.
    """
    home = None if folder is None else Path(folder)
    try:
        source = _Source(data, config.seed)
        checked = list(source.first(VALIDATION_BATCHES) if validation is None else validation)
        with nullcontext() if home is None else locked(home, checkpoint.LOCK):
            return _Healing(adapter, config, home, every, progress, reporter).run(source, checked)
    finally:
        adapter.close()


class _Source:
    """Batches of endless epochs, the same ones from any step on."""

    def __init__(self, data: Iterable[Any], seed: int) -> None:
        self.data: Iterable[Any] = list(data) if iter(data) is data else data
        self.seed = seed

    def first(self, count: int) -> Iterator[Any]:
        """The first batches in the data's own order."""
        return islice(iter(self.data), count)

    def batches(self, start: int) -> Iterator[Any]:
        """From a step on.

        Raises:
            CompressionError: there are no data.
        """
        if isinstance(self.data, Sequence):
            length = len(self.data)
            while length:
                order = np.random.default_rng([self.seed, start // length]).permutation(length)
                for index in order[start % length :]:
                    start += 1
                    yield self.data[int(index)]
        else:
            skip = start
            while True:
                count = 0
                for count, batch in enumerate(self.data, 1):
                    if count > skip:
                        yield batch
                if not count:
                    break
                skip = max(skip - count, 0)
        raise CompressionError("the data hold no batch; expected at least one; a generator can be read once only")


class _Healing:
    """One call of `heal`."""

    def __init__(
        self,
        adapter: HealAdapter,
        config: HealConfig,
        folder: Path | None,
        every: float,
        progress: ProgressCallback | None,
        reporter: Reporter | None,
    ) -> None:
        self.adapter, self.config, self.folder, self.every = adapter, config, folder, every
        self._progress, self._reporter, self._guard = progress, reporter, Guard()
        self.step, self.seconds, self.before, self.finished = 0, 0.0, 0.0, False
        self.records: list[HealRecord] = []
        self.truncations: list[Truncation] = []

    def run(self, source: _Source, validation: Sequence[Any]) -> HealReport:
        """From the start, or from the checkpoint of the folder, to the end."""
        if not validation:
            raise CompressionError("the data hold no batch; expected at least one; a generator can be read once only")
        factors = rate_factors(self.config, self.adapter.parameters(), self.adapter.operators())
        self.adapter.start(factors)
        if not self._continued():
            self.before = self._measured(validation)
            retruncate(self.adapter, 1.0, 0)  # balances the cores; one rate would not suit them otherwise
        if not self.finished:
            self._train(source)
        after = self._measured(validation)
        shapes = self.adapter.parameters()
        return HealReport(
            config=self.config.as_dict(),
            before=self.before,
            after=after,
            steps=self.step,
            seconds=self.seconds,
            trained=sum(prod(shapes[name]) for name in factors),
            records=tuple(self.records),
            truncations=tuple(self.truncations),
        )

    def _measured(self, validation: Sequence[Any]) -> float:
        loss = self.adapter.loss(validation)
        if not isfinite(loss):
            raise DivergedError(
                f"the loss on the batches for validation is {loss} after {self.step} steps; expected a finite number; "
                "look for outputs that are not finite, or heal with a smaller learning_rate"
            )
        return loss

    def _train(self, source: _Source) -> None:
        saved = perf_counter()
        for block in blocks(self._losses(source), start=self.step, seconds=self.seconds, length=self.config.log_every):
            self.seconds = block.seconds
            self._tell_progress()
            if block.interim:
                continue
            if not isfinite(block.loss):
                raise DivergedError(
                    f"healing diverged: the loss is {block.loss} at step {block.step} with learning rate "
                    f"{self._rate:.3g}; expected a finite number; heal again with a smaller learning_rate"
                )
            record = HealRecord(block.step, block.loss, self._rate, block.seconds)
            self.records.append(record)
            if self._reporter is not None:
                self._guard.call(self._reporter, record)
            if self.folder and perf_counter() - saved >= self.every:
                self._save(self.folder)
                saved = perf_counter()
        self.finished = True
        if self.folder:
            self._save(self.folder)

    def _losses(self, source: _Source) -> Iterator[Any]:
        """Carry out the steps; after each, the mean loss since the last entry of the curve."""
        began, total, count = perf_counter() - self.seconds, None, 0
        for batch in source.batches(self.step):
            share = self.step / self.config.steps if self.config.steps else self._elapsed(began)
            if share >= 1.0:
                return
            if self.step in self.config.retruncate and not any(cut.step == self.step for cut in self.truncations):
                self.truncations.append(retruncate(self.adapter, self.config.retruncate[self.step], self.step))
            self._rate = self.config.rate(share)
            loss = self.adapter.step(batch, self._rate, self.step)
            total, count = (loss, 1) if total is None else (total + loss, count + 1)
            self.step += 1
            yield total / count
            if self.step % self.config.log_every == 0:
                total = None

    def _elapsed(self, began: float) -> float:
        assert self.config.seconds is not None
        return (perf_counter() - began) / self.config.seconds

    def _tell_progress(self) -> None:
        if self._progress is None:
            return
        if self.config.steps is not None:
            done, of = self.step, self.config.steps
        else:
            done, of = round(self.seconds), round(self.config.seconds or 0)
        self._guard.call(self._progress, "heal", done, of)

    def _save(self, folder: Path) -> None:
        state = self.adapter.state()
        odd = [name for name, array in state.items() if not np.isfinite(array).all()]
        if odd:
            raise DivergedError(
                f"healing diverged: {odd[0]} is not finite after step {self.step}; expected finite numbers; heal again "
                "with a smaller learning_rate"
            )
        config = self.config.as_dict()
        facts = self.step, self.seconds, self.before, self.finished, self.records, self.truncations
        checkpoint.save(folder, Progress(config, *facts), state)

    def _continued(self) -> bool:
        """Whether there was a checkpoint, which the adapter has taken over."""
        found = checkpoint.load(self.folder, self.config.as_dict()) if self.folder else None
        if found is None:
            return False
        progress, state = found
        self._resize(state)
        self._check(state)
        self.adapter.restore(state, progress.step)
        self.step, self.seconds, self.before = progress.step, progress.seconds, progress.before
        self.finished, self.records, self.truncations = progress.finished, progress.records, progress.truncations
        return True

    def _resize(self, state: State) -> None:
        """Give operators the bonds that a checkpoint has."""
        shapes = self.adapter.parameters()
        for name, operator in self.adapter.operators().items():
            cores = [state[PARAMETERS + core] for core in operator.cores if PARAMETERS + core in state]
            known = operator.is_chain and len(cores) == len(operator.cores) and all(core.ndim == 4 for core in cores)
            if known and [core.shape for core in cores] != [shapes[core] for core in operator.cores]:
                self.adapter.resize(name, [np.asarray(core, np.float64) for core in cores])

    def _check(self, state: State) -> None:
        shapes = self.adapter.parameters()
        saved = {name.removeprefix(PARAMETERS): a.shape for name, a in state.items() if name.startswith(PARAMETERS)}
        if odd := sorted(name for name in {*shapes, *saved} if shapes.get(name) != saved.get(name)):
            raise CheckpointError(
                f"the checkpoint in {self.folder} has {odd[0]} as {saved.get(odd[0])}, and the student as "
                f"{shapes.get(odd[0])}; expected the healing of this student; choose another folder"
            )
