"""Dropout masks, drawn by numpy, so that every backend drops the same values."""

import numpy as np
from numpy.typing import NDArray

from mponet.models.shapes import Shape, leaves
from mponet.models.spec import Dropout, Model

Masks = tuple[NDArray[np.bool_], ...]
DropoutLayers = tuple[tuple[Shape, float], ...]
_MASKS = 3  # first word of the spawn key: a stream of its own, apart from order, augmentation and initial values


def dropout_layers(model: Model) -> DropoutLayers:
    """Shape of an example, and rate, of each `Dropout`, in the order of use."""
    return tuple((info.input_shape, info.layer.rate) for info in leaves(model) if isinstance(info.layer, Dropout))


def sample_masks(layers: DropoutLayers, batch: int, seed: int, step: int) -> Masks:
    """The values that each dropout keeps in one training step.

    The masks depend on ``(seed, step)`` alone, so that a resumed run draws the same ones.

    Args:
        layers: the `dropout_layers` of a model.
        batch: number of examples.
        seed: seed of the run.
        step: number of the step, from 0.

    Returns:
        One boolean array ``(batch, *shape)`` per `Dropout`, in the order of use; empty for a model
        without dropout.

    >>> from mponet.models import build
    >>> [mask.shape for mask in sample_masks(dropout_layers(build("vgg16")), 2, seed=0, step=0)]
    [(2, 4096), (2, 4096)]
    """
    if not layers:
        return ()
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_MASKS, step)))
    return tuple(rng.random((batch, *shape), dtype=np.float32) >= rate for shape, rate in layers)
