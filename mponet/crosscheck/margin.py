"""Batches and parameters at which a network is smooth as far as rounding reaches.

The gradient of a ReLU jumps at 0, that of a pooling window where its two largest values change
places.  Where a value lies within rounding error of its jump, two correct frameworks may take
different sides, and from there on their gradients differ by the whole share of that value.  So,
with the reference,

* the shift or the bias in front of each ReLU is moved, channel by channel, to the nearest place
  where none of the channel's values is within reach of 0.  A channel has thousands of values at
  most and reach is some millionths, so there is always a gap near by (`settled`);
* where jumps are left, of pooling windows and of ReLUs behind a layer without a bias, another batch
  is tried, and the smoothest_batch is taken (`smoothest_batch`).

At the published sizes, VGG may have a few left on any batch.  There the share counts: a jump turns
one value of a layer on or off.  If ``n`` of a layer's ``N`` active ones may do so, the signal that
goes back through it changes by ``sqrt(n / N)`` of its Euclidean norm, layers after one another in
quadrature, and so do the gradients made from it.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mponet.backend import Numbers, Parameters, load
from mponet.crosscheck.rounding import fronts
from mponet.models.dropout import Masks
from mponet.models.shapes import LayerInfo, layers
from mponet.models.spec import MaxPool, Model, ReLU

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


def settled(model: Model, parameters: Parameters, images: Numbers, masks: Masks, unit: float) -> dict[str, Numbers]:
    """The parameters, shifts and biases moved so that no ReLU behind one has an input within reach of 0.

    Arguments are those of `share`.
    """
    moved = dict(parameters)
    walk = zip(fronts(model, len(images)), _movers(layers(model)), strict=True)

    def look(info: LayerInfo, inputs: NDArray[np.float64]) -> None:
        roundings, name = next(walk)
        if name is not None:
            # twice the reach: the reference rounds the sizes of things a little differently when it
            # looks again
            reach = 2 * roundings * unit * float(np.sqrt(np.mean(inputs**2))) or unit
            before = moved[name]
            moved[name] = (before + _steps(inputs.reshape(-1, inputs.shape[-1]), reach)).astype(before.dtype)
            inputs += np.subtract(moved[name], before, dtype=np.float64)  # what comes behind sees the new values

    load(REFERENCE).build(model, parameters, dtype="float64")(images, training=True, masks=masks, watch=look)
    return moved


def smoothest_batch(
    model: Model, parameters: Parameters, candidates: Iterator[Numbers], masks: Masks, unit: float
) -> tuple[Numbers, dict[str, Numbers], float]:
    """The first batch without a jump within reach at its `settled` parameters, else the one with the smallest `share`.

    Returns:
        The batch, the parameters, and the share.
    """
    best: tuple[Numbers, dict[str, Numbers], float] | None = None
    for images in candidates:
        values = settled(model, parameters, images, masks, unit)
        found = share(model, values, images, masks, unit)
        if best is None or found < best[2]:
            best = images, values, found
        if not found:
            break
    assert best is not None
    return best


def _movers(infos: Iterable[LayerInfo]) -> Iterator[str | None]:
    """Of each layer without layers inside: the parameter that moves its inputs, if it is a ReLU with one in front."""
    before: str | None = None
    for info in infos:
        if info.branches:
            for branch in info.branches:
                yield from _movers(branch)
            before = None
        else:
            yield before if isinstance(info.layer, ReLU) else None
            before = next((name for name in info.parameters if name.endswith(("/shift", "/bias"))), None)


def _steps(values: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """What to add to each column so that none of its values is within ``reach`` of 0: as little as gaps allow."""
    steps = np.zeros(values.shape[1])
    for column in np.flatnonzero((np.abs(values) <= reach).any(axis=0)):
        ranked = np.sort(values[:, column])
        ranked = np.concatenate([ranked[:1] - 8 * reach, ranked, ranked[-1:] + 8 * reach])
        middles = ((ranked[1:] + ranked[:-1]) / 2)[np.diff(ranked) > 4 * reach]
        steps[column] = -middles[np.abs(middles).argmin()]
    return steps


def _gaps(maps: NDArray[np.float64], layer: MaxPool) -> NDArray[np.float64]:
    """Largest minus second largest value of every window; a window of zeros is off, and has no jump."""
    windows = sliding_window_view(maps, (layer.size, layer.size), axis=(1, 2))[:, :: layer.stride, :: layer.stride]
    ranked = np.sort(windows.reshape(*windows.shape[:4], -1), axis=-1)
    first, second = ranked[..., -1], ranked[..., -2] if layer.size > 1 else -np.inf
    return np.where(first == 0.0, np.inf, first - second)
