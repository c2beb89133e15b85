"""Batches and parameters at which a network is smooth within the reach of rounding.

The gradient of a ReLU jumps at 0, that of a pooling window where its two largest values change
places.  Where a value lies within rounding error of a jump, two correct frameworks may take
different sides, and their gradients then differ by the whole contribution of that value.  So, with
the reference,

* the shift or bias before each ReLU is moved, channel by channel, to the nearest place where no
  value of the channel is within reach of 0 (`shift_biases`).  A channel has a few thousand values
  and reach is a few millionths, so there is always a gap nearby;
* where jumps remain, at pooling windows and at ReLUs after a layer without a bias, other batches
  are tried, and the one with the fewest jumps is taken (`smoothest_batch`).

At the published sizes VGG may have a few jumps on any batch.  They are then bounded: a jump turns
one value of a layer on or off.  If ``n`` of the ``N`` active values of a layer may do so, the
gradient that passes through it changes by ``sqrt(n / N)`` of its Euclidean norm, layers add in
quadrature, and so do the gradients of parameters.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mponet.backend import Numbers, Parameters, load
from mponet.crosscheck.rounding import input_roundings
from mponet.models.dropout import Masks
from mponet.models.shapes import LayerInfo, layers
from mponet.models.spec import MaxPool, Model, ReLU

REFERENCE = "numpy"


def share(model: Model, parameters: Parameters, images: Numbers, masks: Masks, unit: float) -> float:
    """Relative change of a gradient's norm that jumps within reach of rounding may cause.

    The norm is the Euclidean norm.  The result is 0 without jumps.

    In training mode, where batch norms make every value depend on the whole batch.

    Args:
        model: the network.
        parameters: parameters and running statistics by canonical name.
        images: a batch, NHWC.
        masks: dropout masks.
        unit: relative error of one rounding.
    """
    roundings = iter(input_roundings(model, len(images)))
    shares: list[float] = []

    def count_jumps(info: LayerInfo, inputs: NDArray[np.float64]) -> None:
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
    native(images, training=True, masks=masks, watch=count_jumps)
    return float(np.sqrt(sum(shares)))


def shift_biases(
    model: Model, parameters: Parameters, images: Numbers, masks: Masks, unit: float
) -> dict[str, Numbers]:
    """Parameters with shifts and biases moved so that no input of a ReLU is too close to 0.

    Too close means within reach of rounding.  Each ReLU is kept clear by the layer before it.

    Arguments are those of `share`.
    """
    moved = dict(parameters)
    walk = zip(input_roundings(model, len(images)), _preceding_biases(layers(model)), strict=True)

    def move(info: LayerInfo, inputs: NDArray[np.float64]) -> None:
        roundings, name = next(walk)
        if name is not None:
            # twice the reach, since the reference rounds differently at the new values
            reach = 2 * roundings * unit * float(np.sqrt(np.mean(inputs**2))) or unit
            before = moved[name]
            moved[name] = (before + _steps(inputs.reshape(-1, inputs.shape[-1]), reach)).astype(before.dtype)
            inputs += np.subtract(moved[name], before, dtype=np.float64)  # later layers get the new values

    load(REFERENCE).build(model, parameters, dtype="float64")(images, training=True, masks=masks, watch=move)
    return moved


def smoothest_batch(
    model: Model, parameters: Parameters, candidates: Iterator[Numbers], masks: Masks, unit: float
) -> tuple[Numbers, dict[str, Numbers], float]:
    """The first batch without a jump within reach after `shift_biases`.

    If there is none, the batch with the smallest `share`.

    Returns:
        The batch, the parameters, and the share.
    """
    best: tuple[Numbers, dict[str, Numbers], float] | None = None
    for images in candidates:
        values = shift_biases(model, parameters, images, masks, unit)
        jumps = share(model, values, images, masks, unit)
        if best is None or jumps < best[2]:
            best = images, values, jumps
        if not jumps:
            break
    assert best is not None
    return best


def _preceding_biases(infos: Iterable[LayerInfo]) -> Iterator[str | None]:
    """For each layer without layers inside, the shift or bias directly before it.

    None for a layer that is not a ReLU, and for a ReLU with neither before it.
    """
    before: str | None = None
    for info in infos:
        if info.branches:
            for branch in info.branches:
                yield from _preceding_biases(branch)
            before = None
        else:
            yield before if isinstance(info.layer, ReLU) else None
            before = next((name for name in info.parameters if name.endswith(("/shift", "/bias"))), None)


def _steps(values: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """The smallest values to add to the columns so that no entry is within ``reach`` of 0."""
    steps = np.zeros(values.shape[1])
    for column in np.flatnonzero((np.abs(values) <= reach).any(axis=0)):
        ranked = np.sort(values[:, column])
        ranked = np.concatenate([ranked[:1] - 8 * reach, ranked, ranked[-1:] + 8 * reach])
        middles = ((ranked[1:] + ranked[:-1]) / 2)[np.diff(ranked) > 4 * reach]
        steps[column] = -middles[np.abs(middles).argmin()]
    return steps


def _gaps(maps: NDArray[np.float64], layer: MaxPool) -> NDArray[np.float64]:
    """Largest minus second largest value of every window.

    A window of zeros has no gradient and no jump.
    """
    windows = sliding_window_view(maps, (layer.size, layer.size), axis=(1, 2))[:, :: layer.stride, :: layer.stride]
    ranked = np.sort(windows.reshape(*windows.shape[:4], -1), axis=-1)
    first, second = ranked[..., -1], ranked[..., -2] if layer.size > 1 else -np.inf
    return np.where(first == 0.0, np.inf, first - second)
