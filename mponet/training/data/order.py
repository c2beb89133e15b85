"""Which images form which batch: one random stream, the same on every backend."""

import numpy as np
from numpy.typing import NDArray

from mponet.errors import DataError, InputError

_ORDER, _AUGMENTATION = 0, 1  # first words of the spawn keys: streams that never meet (2: starts, 3: dropout)


def batch_order(count: int, batch_size: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The batches of one epoch, as indices into the training set.

    A fresh permutation for every epoch, derived from `(seed, epoch)` alone: any epoch can be
    recomputed without the ones before it, so a resumed run needs no random state.  The last
    `count % batch_size` indices of the permutation are dropped (every step has a full batch, which
    compiled training steps need); another epoch drops others.

    Args:
        count: number of training images.
        batch_size: images per step.
        seed: the run's seed, 0 or more, of any size.
        epoch: number of the epoch, from 0.

    Returns:
        int64 array of shape `(count // batch_size, batch_size)`, without repeats.

    Raises:
        InputError: `batch_size` below 1, or a negative `seed` or `epoch`.
        DataError: fewer images than one batch.
    """
    _check(count, batch_size, seed, epoch)
    # A spawn key, not SeedSequence((seed, epoch)): the latter concatenates 32-bit words, so that
    # a seed above 2**32 can collide with another seed and epoch.
    sequence = np.random.SeedSequence(seed, spawn_key=(_ORDER, epoch))
    order = np.random.default_rng(sequence).permutation(count).astype(np.int64, copy=False)
    steps = count // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size)


def augmentation_rng(*, seed: int, step: int) -> np.random.Generator:
    """Where the random changes of the batch of one step come from.

    `(seed, step)` alone, as in `batch_order`.

    Raises:
        InputError: a negative `seed` or `step`.
    """
    for name, value in (("seed", seed), ("step", step)):
        if value < 0:
            raise InputError(f"{name} is {value}, expected 0 or more")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_AUGMENTATION, step)))


def _check(count: int, batch_size: int, seed: int, epoch: int) -> None:
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
        ("epoch", epoch, 0),
    ):
        if value < least:
            raise InputError(f"{name} is {value}, expected {least} or more")
    if count < batch_size:
        raise DataError(
            f"the data set has {count} images, fewer than one batch of {batch_size}; "
            f"choose a batch size of at most {count}"
        )
