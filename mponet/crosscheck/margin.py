"""Images on which a network is smooth as far as rounding reaches.

The gradient of a ReLU jumps at 0, that of a pooling window where its two largest values change places.  A batch has a
hundred thousand such places; where one lies within rounding error of its jump, two correct frameworks may take
different sides, and their gradients then differ by the whole share of that value.  So candidates are ranked by how far
they keep away from every jump, with the reference, and the best are taken.
"""

from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mponet.backend import Numbers, Parameters, load
from mponet.models.infer import layers
from mponet.models.layers import MaxPool, Model, ReLU

REFERENCE = "numpy"


def widest(model: Model, parameters: Parameters, candidates: Numbers, count: int) -> Numbers:
    """The ``count`` candidates with the widest margins, in their order.

    Args:
        model: the network.
        parameters: by canonical name.
        candidates: images ``(any number, height, width, channels)``.
        count: how many to keep.
    """
    best = np.argsort(-margins(model, parameters, candidates), kind="stable")[:count]
    return candidates[np.sort(best)]


def margins(model: Model, parameters: Parameters, images: Numbers) -> NDArray[np.float64]:
    """Distance of each image from its nearest jump, relative to the largest value of that layer; inf without one."""
    reference = load(REFERENCE)
    nearest = np.full(len(images), np.inf)
    state = np.asarray(images, dtype=np.float64)
    for info in layers(model):
        scale = float(np.abs(state).max(initial=0.0)) or 1.0
        if isinstance(info.layer, ReLU):
            nearest = np.minimum(nearest, _lowest(np.abs(state)) / scale)
        elif isinstance(info.layer, MaxPool):
            nearest = np.minimum(nearest, _lowest(_gaps(state, info.layer)) / scale)
        alone = replace(model, layers=(info.layer,), input_shape=cast(Any, info.input_shape))  # may be a vector's
        native = reference.build(alone, {name: parameters[name] for name in info.parameters}, dtype="float64")
        state = np.asarray(reference.predict(native, state), dtype=np.float64)
    return nearest


def _gaps(maps: NDArray[np.float64], layer: MaxPool) -> NDArray[np.float64]:
    """Largest minus second largest value of every window; a window of zeros is off, and has no jump."""
    windows = sliding_window_view(maps, (layer.size, layer.size), axis=(1, 2))[:, :: layer.stride, :: layer.stride]
    ranked = np.sort(windows.reshape(*windows.shape[:4], -1), axis=-1)
    first, second = ranked[..., -1], ranked[..., -2] if layer.size > 1 else -np.inf
    return np.where(first == 0.0, np.inf, first - second)


def _lowest(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The smallest value of each example."""
    lowest: NDArray[np.float64] = values.reshape(len(values), -1).min(axis=1)
    return lowest
