"""Batches on which a network is smooth as far as rounding reaches.

The gradient of a ReLU jumps at 0, that of a pooling window where its two largest values change places.  Where a value
lies within rounding error of its jump, two correct frameworks may take different sides, and from there on their
gradients differ by the whole share of that value.  So batches are ranked by their jumps within reach, found with the
reference, and the first without any is taken.

A network of a million activations has no such batch.  There the share counts: a jump turns one value of a layer on or
off.  If ``n`` of a layer's ``N`` active ones may do so, the signal that goes back through it changes by ``sqrt(n / N)``
of its Euclidean norm, layers after one another in quadrature, and so do the gradients made from it.
"""

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mponet.backend import Numbers, Parameters, load
from mponet.crosscheck.rounding import fronts
from mponet.models.dropout import Masks
from mponet.models.infer import LayerInfo
from mponet.models.layers import MaxPool, Model, ReLU

REFERENCE = "numpy"


def share(model: Model, parameters: Parameters, images: Numbers, masks: Masks, unit: float) -> float:
    """What jumps within reach of rounding may change of a gradient, relative to its Euclidean norm; 0 without any.

    All in training mode, where the batch norms make every value depend on the whole batch.

    Args:
        model: the network.
        parameters: parameters and running statistics by canonical name.
        images: a batch NHWC.
        masks: what each dropout keeps.
        unit: relative error of one rounding.
    """
    roundings = iter(fronts(model, len(images)))
    shares: list[float] = []

    def look(info: LayerInfo, inputs: NDArray[np.float64]) -> None:
        reach = next(roundings) * unit * float(np.sqrt(np.mean(inputs**2)))
        if isinstance(info.layer, ReLU):
            distances, active = np.abs(inputs), int(np.count_nonzero(inputs > 0))
        elif isinstance(info.layer, MaxPool):
            distances = _gaps(inputs, info.layer)
            active = distances.size
        else:
            return
        shares.append(int(np.count_nonzero(distances <= reach)) / max(active, 1))

    native = load(REFERENCE).build(model, parameters, dtype="float64")
    native(images, training=True, masks=masks, watch=look)
    return float(np.sqrt(sum(shares)))


def calmest(
    model: Model, parameters: Parameters, candidates: Iterator[Numbers], masks: Masks, unit: float
) -> tuple[Numbers, float]:
    """The first batch without a jump within reach, else the one with the smallest `share`; and that share."""
    best = next(candidates)
    least = share(model, parameters, best, masks, unit)
    for images in candidates if least else ():
        found = share(model, parameters, images, masks, unit)
        if found < least:
            best, least = images, found
        if not least:
            break
    return best, least


def _gaps(maps: NDArray[np.float64], layer: MaxPool) -> NDArray[np.float64]:
    """Largest minus second largest value of every window; a window of zeros is off, and has no jump."""
    windows = sliding_window_view(maps, (layer.size, layer.size), axis=(1, 2))[:, :: layer.stride, :: layer.stride]
    ranked = np.sort(windows.reshape(*windows.shape[:4], -1), axis=-1)
    first, second = ranked[..., -1], ranked[..., -2] if layer.size > 1 else -np.inf
    return np.where(first == 0.0, np.inf, first - second)
