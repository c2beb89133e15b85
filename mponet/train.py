"""The training loop: a recipe and arrays in, a stream of records out.  No framework, no files, no terminal.

The batch of a step depends on ``(seed, step)`` alone, so a loop that starts at step ``s`` with the right parameters
does what an uninterrupted one does.  A loss is read, which waits for the device, only at the end of a block of steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil, isfinite
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.backend import Backend, Numbers, Trainer
from mponet.data import Dataset, batch_order, fit, scaled
from mponet.errors import DivergedError
from mponet.recipe import Recipe, learning_rate

Labels = NDArray[np.int64]
BLOCK = 50  # steps between two readings of the loss
PATIENCE = 5.0  # seconds after which a block ends early, so that slow models report, too
WARM_UP = 10  # first steps of a process, which compile: no block is timed over them
SPARSEST = 100  # once per epoch means no oftener than this many steps
TEST_BATCH = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """A data set as the loop takes it: float32 images in [0, 1] ``(N, H, W, C)``, scaled once; int64 labels."""

    train_images: Numbers = field(repr=False)
    train_labels: Labels = field(repr=False)
    test_images: Numbers = field(repr=False)
    test_labels: Labels = field(repr=False)

    @classmethod
    def of(cls, dataset: Dataset, image_shape: tuple[int, int, int]) -> "Arrays":
        """The data set for a model that takes ``image_shape``.

        Raises:
            DataError: it cannot be fitted to that shape.
        """
        fitted = fit(dataset, image_shape)
        return cls(scaled(fitted.train_images), fitted.train_labels, scaled(fitted.test_images), fitted.test_labels)


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
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    accuracy: float | None
    images_per_s: float | None
    seconds: float
    diverged: bool = False


def train(
    backend: Backend,
    native: Any,
    trainer: Trainer,
    recipe: Recipe,
    arrays: Arrays,
    *,
    seed: int,
    start: int = 0,
    seconds: float = 0.0,
) -> Iterator[Record]:
    """Train ``native`` in place from step ``start`` to the end of the recipe; a record after every block.

    Args:
        backend: what built ``native`` and ``trainer``.
        native: the model.
        trainer: its trainer, holding the optimiser's state of step ``start``.
        recipe: how to train.
        arrays: the data.
        seed: of the batch order.
        start: steps done already.
        seconds: taken by them.

    Raises:
        DivergedError: a loss or a prediction is not finite; a record with ``diverged`` comes before it.
        DataError: there are fewer images than one batch.
    """
    per_epoch = steps_per_epoch(arrays, recipe)
    interval = evaluation_interval(recipe, per_epoch)
    began = perf_counter() - seconds
    first, since = start, perf_counter()
    for step, (images, labels) in enumerate(_batches(arrays, recipe, seed, start, per_epoch), start + 1):
        rate = learning_rate(recipe, step - 1)
        loss = trainer.step(images, labels, rate)
        if step == start + WARM_UP:
            float(loss)  # waits for the device; a bad value lasts until the block ends
            first, since = step, perf_counter()
        at_evaluation = step % interval == 0 or step == recipe.steps
        if step % BLOCK and not at_evaluation and perf_counter() - since < PATIENCE:
            continue
        value = float(loss)
        speed = _speed(recipe, step - first, perf_counter() - since, warm=step > start + WARM_UP)
        accuracy = _accuracy_or_none(backend, native, arrays) if at_evaluation and isfinite(value) else None
        diverged = not isfinite(value) or (at_evaluation and accuracy is None)
        yield Record(step, step / per_epoch, value, rate, accuracy, speed, perf_counter() - began, diverged)
        if diverged:
            raise DivergedError(_advice(recipe, step, value, rate))
        first, since = step, perf_counter()


def accuracy(backend: Backend, native: Any, images: Numbers, labels: Labels) -> float:
    """Share of the images whose largest logit is that of their label.

    Raises:
        DivergedError: a logit is not finite; its largest would mean nothing.
    """
    right = 0
    for begin in range(0, len(images), TEST_BATCH):
        logits = backend.predict(native, images[begin : begin + TEST_BATCH])
        if not np.isfinite(logits).all():
            raise DivergedError(
                "the model predicts numbers that are not finite; expected finite logits; its training diverged: take "
                "an earlier checkpoint, or train with a smaller learning rate"
            )
        right += int((logits.argmax(axis=1) == labels[begin : begin + TEST_BATCH]).sum())
    return right / len(images)


def steps_per_epoch(arrays: Arrays, recipe: Recipe) -> int:
    """Full batches in the training set; at least 1, too few images are refused when their order is asked for."""
    return max(len(arrays.train_images) // recipe.batch, 1)


def evaluation_interval(recipe: Recipe, per_epoch: int) -> int:
    """Steps between evaluations: the recipe's, else one epoch, or as many as make `SPARSEST` steps."""
    return recipe.evaluate_every or per_epoch * ceil(SPARSEST / per_epoch)


def _batches(arrays: Arrays, recipe: Recipe, seed: int, start: int, per_epoch: int) -> Iterator[tuple[Numbers, Labels]]:
    order = np.empty((0, 0), np.int64)
    for step in range(start, recipe.steps):
        epoch, position = divmod(step, per_epoch)
        if position == 0 or step == start:
            order = batch_order(len(arrays.train_images), recipe.batch, seed=seed, epoch=epoch)
        # A fresh array each time: a framework may still be reading the last one.
        yield arrays.train_images[order[position]], arrays.train_labels[order[position]]


def _speed(recipe: Recipe, steps: int, seconds: float, *, warm: bool) -> float | None:
    return steps * recipe.batch / max(seconds, 1e-9) if warm else None


def _accuracy_or_none(backend: Backend, native: Any, arrays: Arrays) -> float | None:
    try:
        return accuracy(backend, native, arrays.test_images, arrays.test_labels)
    except DivergedError:
        return None


def _advice(recipe: Recipe, step: int, loss: float, rate: float) -> str:
    what = f"the loss is {loss}" if not isfinite(loss) else f"predictions are not finite (loss {loss:.4g} before)"
    remedy = "the preset 'short'" if recipe.name == "paper" else "a smaller learning rate or the initialiser 'exact'"
    return (
        f"training diverged: {what} at step {step} with learning rate {rate:.4g}; expected a finite number; try "
        f"{remedy}, another seed, or another bond dimension"
    )
