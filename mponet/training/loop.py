"""The training loop.

A recipe and arrays in, a stream of records out.  No framework, no files, no terminal.

The batch of a step, its augmentation and its dropout depend on ``(seed, step)`` alone, so a loop
that starts at step ``s`` with the right parameters does what an uninterrupted one does.  A loss is
read, which waits for the device, only at the end of a block of steps.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, isfinite
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.backend import Backend, Numbers, Parameters, Trainer
from mponet.errors import DivergedError
from mponet.group import ALONE, Group
from mponet.models.dropout import Masks
from mponet.models.spec import Model
from mponet.recipe import AVERAGE, Recipe, average_share, learning_rate
from mponet.training.blocks import blocks
from mponet.training.data import Arrays, batches, steps_per_epoch

Labels = NDArray[np.int64]
SPARSEST = 100  # once per epoch means no oftener than this many steps
TEST_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Record:
    """What is known at the end of a block of steps.

    Attributes:
        step: optimiser steps done.
        epoch: the same in epochs.
        loss: mean cross-entropy of the last batch, before its step.
        learning_rate: of the last step.
        accuracy: on the test set, 0 to 1; None where it was not measured.
        images_per_s: over the block, compilation excluded; None for a block that was all warm-up.
        seconds: since the training began, pauses between two processes excluded.
        diverged: something was not finite: the training ends here.
        interim: reported within a block because time passed; whether there is one depends on the
            clock, so it is shown and not kept.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    accuracy: float | None
    images_per_s: float | None
    seconds: float
    diverged: bool = False
    interim: bool = False


def train(
    backend: Backend,
    model: Model,
    native: Any,
    trainer: Trainer,
    recipe: Recipe,
    arrays: Arrays,
    *,
    seed: int,
    start: int = 0,
    seconds: float = 0.0,
    device: str | None = None,
    group: Group = ALONE,
) -> Iterator[Record]:
    """Train ``native`` in place from step ``start`` to the end of the recipe.

    Yield a record after every block.

    Args:
        backend: what built ``native`` and ``trainer``.
        model: what ``native`` was built from.
        native: the model.
        trainer: its trainer, holding the optimiser's state of step ``start``.
        recipe: how to train.
        arrays: the data, prepared for the recipe.
        seed: of the order of batches, their augmentation and the dropout.
        start: steps done already.
        seconds: taken by them.
        device: of the backend; None for its default.
        group: the processes that train together; each takes its rows of every batch.

    Raises:
        DivergedError: a loss or a prediction is not finite; a record with ``diverged`` comes before
            it.
        DataError: there are fewer images than one batch.
    """
    per_epoch = steps_per_epoch(arrays, recipe)
    interval = evaluation_interval(recipe, per_epoch)
    test = _Test(backend, model, native, trainer, recipe, arrays, device)
    began = perf_counter() - seconds

    def losses() -> Iterator[Any]:
        for step, batch in enumerate(batches(arrays, model, recipe, seed=seed, start=start), start):
            rate, share = learning_rate(recipe, step), average_share(recipe, step)
            batch = batch.part(group.rank, group.count)
            yield trainer.step(batch.images, batch.labels, rate, masks=batch.masks, share=share)

    def is_evaluated(step: int) -> bool:
        return step % interval == 0 or step == recipe.steps

    for block in blocks(losses(), start=start, ends=is_evaluated):
        wanted = is_evaluated(block.step) and not block.interim
        measured = test.accuracy_or_none() if wanted and isfinite(block.loss) else None
        diverged = not block.interim and (not isfinite(block.loss) or (wanted and measured is None))
        rate = learning_rate(recipe, block.step - 1)
        speed = None if block.steps_per_s is None else block.steps_per_s * recipe.batch
        passed = perf_counter() - began
        epoch = block.step / per_epoch
        yield Record(block.step, epoch, block.loss, rate, measured, speed, passed, diverged, block.interim)
        if diverged:
            raise DivergedError(_advice(recipe, block.step, block.loss, rate))


def no_masks(begin: int, count: int) -> Masks:
    """Nothing is dropped."""
    return ()


def accuracy(
    backend: Backend,
    native: Any,
    images: Numbers,
    labels: Labels,
    masks: Callable[[int, int], Masks] = no_masks,
) -> float:
    """Share of the images whose largest logit is that of their label.

    Args:
        backend: what built ``native``.
        native: the model.
        images: normalised ``(count, height, width, channels)``.
        labels: of them.
        masks: what each dropout keeps of the images from ``begin``, ``count`` of them.

    Raises:
        DivergedError: a logit is not finite; its largest would mean nothing.
    """
    right = 0
    for begin in range(0, len(images), TEST_BATCH):
        block = images[begin : begin + TEST_BATCH]
        logits = backend.predict(native, block, masks(begin, len(block)))
        if not np.isfinite(logits).all():
            raise DivergedError(
                "the model predicts numbers that are not finite; expected finite logits; its training diverged: take "
                "an earlier checkpoint, or train with a smaller learning rate"
            )
        right += int((logits.argmax(axis=1) == labels[begin : begin + TEST_BATCH]).sum())
    return right / len(images)


def evaluated(parameters: Parameters, state: Parameters) -> dict[str, Numbers]:
    """The parameters that evaluation uses.

    Their moving averages where the optimiser's state holds them.

    Args:
        parameters: and running statistics, by canonical name.
        state: what `Trainer.state` gives.
    """
    return {name: state.get(AVERAGE + name, value) for name, value in parameters.items()}


def evaluation_interval(recipe: Recipe, per_epoch: int) -> int:
    """Steps between evaluations.

    The recipe's, else one epoch, or as many as make `SPARSEST` steps.
    """
    return recipe.evaluate_every or per_epoch * ceil(SPARSEST / per_epoch)


@dataclass(slots=True)
class _Test:
    """Measures a model in training.

    Where the recipe averages, a second model that holds the averages.
    """

    backend: Backend
    model: Model
    native: Any
    trainer: Trainer
    recipe: Recipe
    arrays: Arrays
    device: str | None
    other: Any = None

    def accuracy_or_none(self) -> float | None:
        """On the test images; None where a prediction is not finite."""
        try:
            return accuracy(self.backend, self._subject(), self.arrays.test_images, self.arrays.test_labels)
        except DivergedError:
            return None

    def _subject(self) -> Any:
        if not self.recipe.average:
            return self.native
        values = evaluated(self.backend.parameters(self.native), self.trainer.state())
        if self.other is None:
            self.other = self.backend.build(self.model, values, device=self.device)
        else:
            self.backend.assign(self.other, values)
        return self.other


def _advice(recipe: Recipe, step: int, loss: float, rate: float) -> str:
    what = f"the loss is {loss}" if not isfinite(loss) else f"predictions are not finite (loss {loss:.4g} before)"
    remedy = "the preset 'short'" if recipe.name == "paper" else "a smaller learning rate or the initialiser 'exact'"
    return (
        f"training diverged: {what} at step {step} with learning rate {rate:.4g}; expected a finite number; try "
        f"{remedy}, another seed, or another bond dimension"
    )
