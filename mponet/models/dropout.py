"""Which values a dropout keeps: numpy draws the masks, so that every backend drops the same ones."""

import numpy as np
from numpy.typing import NDArray

from mponet.models.shapes import Shape, leaves
from mponet.models.spec import Dropout, Model

Masks = tuple[NDArray[np.bool_], ...]
Sites = tuple[tuple[Shape, float], ...]
_MASKS = 3  # first word of the spawn key: a stream apart from those of order, augmentation and starting values


def sites(model: Model) -> Sites:
    """Shape of an example, and rate, of each `Dropout`, in the order of use."""
    return tuple((info.input_shape, info.layer.rate) for info in leaves(model) if isinstance(info.layer, Dropout))


def masks(model: Model, batch: int, seed: int, step: int) -> Masks:
    """What each dropout keeps in one training step, from ``(seed, step)`` alone: a killed run draws the same again.

    Args:
        model: the network.
        batch: number of examples.
        seed: of the run.
        step: number of the step, from 0.

    Returns:
        One boolean array ``(batch, *shape)`` for each `Dropout`, in the order of use; none for a
        network without.
    """
    return draw(sites(model), batch, seed, step)


def draw(places: Sites, batch: int, seed: int, step: int) -> Masks:
    """`masks` for whoever draws many; ``places`` are the `sites` of the model, which take a while to find."""
    if not places:
        return ()
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_MASKS, step)))
    return tuple(rng.random((batch, *shape), dtype=np.float32) >= rate for shape, rate in places)
