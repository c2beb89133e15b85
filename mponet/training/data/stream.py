"""A data set as a recipe wants it, and the batches of its training.

Batches are made ahead of the steps that use them.

Batch ``step`` of a seed is the same on every backend, in every process, after every resumption:
order, crops, mirrors and dropout masks are drawn from ``(seed, epoch)`` or ``(seed, step)`` alone.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from mponet.models.dropout import Masks, dropout_layers, sample_masks
from mponet.models.spec import Model
from mponet.recipe import Recipe
from mponet.training.data.augment import crop_flip
from mponet.training.data.dataset import Dataset, fit
from mponet.training.data.normalize import Normalization
from mponet.training.data.order import augmentation_rng, batch_order

T = TypeVar("T")
Images = NDArray[Any]
Labels = NDArray[np.int64]
PREFETCHED = 4  # batches that wait for their step


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """A data set as training takes it, int64 labels.

    Attributes:
        train_images: ``(N, H, W, C)``; normalised float32, or raw uint8 where each batch is
            augmented first.
        train_labels: of them.
        test_images: normalised, float32.
        test_labels: of them.
        normalization: that of the test images, and of batches of raw ones.
    """

    train_images: Images = field(repr=False)
    train_labels: Labels = field(repr=False)
    test_images: Images = field(repr=False)
    test_labels: Labels = field(repr=False)
    normalization: Normalization

    @classmethod
    def of(cls, dataset: Dataset, image_shape: tuple[int, int, int], recipe: Recipe) -> "Arrays":
        """The data set for a model that takes ``image_shape``, trained by ``recipe``.

        Raises:
            DataError: it cannot be fitted to that shape.
        """
        fitted = fit(dataset, image_shape)
        normalization = Normalization.of(recipe.normalization, fitted.train_images)
        raw = recipe.augmentation != "none"
        train_images = fitted.train_images if raw else normalization(fitted.train_images)
        return cls(
            train_images, fitted.train_labels, normalization(fitted.test_images), fitted.test_labels, normalization
        )


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one step takes.

    Attributes:
        images: ``(batch, H, W, C)``, normalised, float32.
        labels: of them.
        masks: what each dropout keeps.
    """

    images: Images
    labels: Labels
    masks: Masks = ()

    def part(self, rank: int, count: int) -> "Batch":
        """The rows of one of ``count`` processes; their number divides the batch."""
        if count == 1:
            return self
        rows = len(self.images) // count
        mine = slice(rank * rows, (rank + 1) * rows)
        return Batch(self.images[mine], self.labels[mine], tuple(mask[mine] for mask in self.masks))


def batches(arrays: Arrays, model: Model, recipe: Recipe, *, seed: int, start: int = 0) -> Iterator[Batch]:
    """The batches of steps ``start`` to the recipe's last.

    Where they take work, a thread makes them ahead.

    Raises:
        DataError: there are fewer images than one batch.
    """
    stream = generate_batches(arrays, model, recipe, seed=seed, start=start)
    idle = recipe.augmentation == "none" and not dropout_layers(model)
    return stream if idle else prefetch(stream)


def steps_per_epoch(arrays: Arrays, recipe: Recipe) -> int:
    """Full batches in the training set.

    At least 1, too few images are refused when their order is asked for.
    """
    return max(len(arrays.train_images) // recipe.batch, 1)


def generate_batches(arrays: Arrays, model: Model, recipe: Recipe, *, seed: int, start: int = 0) -> Iterator[Batch]:
    """The same batches, each made when it is asked for."""
    order, per_epoch, dropouts = np.empty((0, 0), np.int64), steps_per_epoch(arrays, recipe), dropout_layers(model)
    for step in range(start, recipe.steps):
        epoch, position = divmod(step, per_epoch)
        if position == 0 or step == start:
            order = batch_order(len(arrays.train_images), recipe.batch, seed=seed, epoch=epoch)
        # A fresh array each time: a framework may still be reading the last one.
        images, labels = arrays.train_images[order[position]], arrays.train_labels[order[position]]
        if recipe.augmentation == "crop-flip":
            images = arrays.normalization(crop_flip(images, augmentation_rng(seed=seed, step=step)))
        yield Batch(images, labels, sample_masks(dropouts, recipe.batch, seed, step))


def prefetch(items: Iterator[T], count: int = PREFETCHED) -> Iterator[T]:
    """The same items in the same order, made by a thread that keeps ``count`` ahead.

    Its errors are raised here.
    """
    end = object()
    with ThreadPoolExecutor(1, "mponet-batches") as pool:  # one worker, so they are made one after the other
        waiting = deque(pool.submit(next, items, end) for _ in range(count))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield cast(T, item)
