"""Which values a dropout keeps: numpy draws the masks, so that every backend drops the same ones."""

import numpy as np
from numpy.typing import NDArray

from mponet.models.infer import leaves
from mponet.models.layers import Dropout, Model

Masks = tuple[NDArray[np.bool_], ...]
_MASKS = 3  # first word of the spawn key: a stream apart from those of order, augmentation and starting values


def masks(model: Model, batch: int, seed: int, step: int) -> Masks:
    """What each dropout keeps in one training step, from ``(seed, step)`` alone: a killed run draws the same again.

    Args:
        model: the network.
        batch: number of examples.
        seed: of the run.
        step: number of the step, from 0.

    Returns:
        One boolean array ``(batch, *shape)`` for each `Dropout`, in the order of use; none for a network without.
    """
    infos = [info for info in leaves(model) if isinstance(info.layer, Dropout)]
    if not infos:
        return ()
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_MASKS, step)))
    return tuple(
        rng.random((batch, *info.input_shape), dtype=np.float32) >= info.layer.rate  # type: ignore[union-attr]
        for info in infos
    )
