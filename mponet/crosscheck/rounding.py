"""Number of roundings that a pass through a network makes, from its layers alone.

A sum of ``K`` rounded products, in whatever order a library adds them, is off by about ``sqrt(K)``
roundings of its size, because they are nearly independent.  So a layer makes

* ``sqrt(K)`` roundings: a dense layer of ``K`` inputs, a convolution with ``K = kernel height x
  width x channels``;
* the sum of that over the steps of an operator, each of which sums over a factor and a bond, in
  addition to ``sqrt(inputs)``, since a plan may sweep the cores, rebuild the matrix, or do
  something in between;
* a few and, in training, ``sqrt(batch x positions)`` for the sums of its statistics: a batch norm;
* the side of its window: average pooling; one: a sum of two branches, the division of a dropout.

Layers pass on the relative error of their inputs and add their own.  That they pass it on unchanged
is what He's initial values are made for: they keep the size of a signal, and equally of a small
change of it.  A batch norm in training subtracts the mean, which reduces the signal but not its
error: after a ReLU the mean square is ``pi / (pi - 1)`` times the variance, so the error grows by
the root of that, 1.21, in each.  On the other hand independent errors add in quadrature.  `forward`
and `gradient` add them linearly along the longest path, which covers both: in VGG-19, with 16 norms
in sequence, quadrature with the growth gives 32 times the error of one layer where the sum gives
16, and the sums themselves are overestimated (``sqrt(K)`` random roundings of at most half a unit
make ``0.3 sqrt(K)``).  Where shortcuts go around the norms, the growth is slower still.
"""

from collections.abc import Callable, Iterable
from math import prod, sqrt

from mponet.models.shapes import LayerInfo, layers
from mponet.models.spec import AvgPool, BatchNorm, Conv2D, Dense, Dropout, MaxPool, Model, Residual
from mponet.operators.shape import MPOShape

#: Largest relative error of one rounding in float32.
SINGLE = 2.0**-24
#: Roundings of one value by a batch norm in addition to its sums: minus mean, times factor, times
#: scale, plus shift; 2 = sqrt(4).
NORM = 2.0
#: Roundings of the cross-entropy: exponentials, their sum over ten classes, a logarithm, a
#: difference.
LOSS = 8.0
Cost = Callable[[LayerInfo], float]


def forward(model: Model, batch: int = 0) -> float:
    """Roundings of the logits.

    Args:
        model: the network.
        batch: number of examples in training mode; 0 for inference, where batch norms sum nothing.
    """
    return _path(layers(model), lambda info: _forward(info, batch), 0.0, [])


def input_roundings(model: Model, batch: int) -> list[float]:
    """Roundings of the inputs of each layer without layers inside, in training mode.

    They are in the order of use.
    """
    roundings: list[float] = []
    _path(layers(model), lambda info: _forward(info, batch), 0.0, roundings)
    return roundings


def gradient(model: Model, batch: int) -> float:
    """Roundings of the gradients.

    Forward pass, backward pass, and the longest sum of a parameter's gradient.
    """
    infos = layers(model)
    back = _path(infos, lambda info: _backward(info, batch), 0.0, [])
    return forward(model, batch) + LOSS + back + max(_sum(info, batch) for info in infos)


def _path(infos: Iterable[LayerInfo], cost: Cost, total: float, inputs: list[float]) -> float:
    """Roundings after a chain of layers, along the longest path.

    ``inputs`` collects those before each layer.
    """
    for info in infos:
        if info.branches:
            ends = [_path(branch, cost, total, inputs) for branch in info.branches]
            total = max(total, *ends) + isinstance(info.layer, Residual)
        else:
            inputs.append(total)
            total += cost(info)
    return total


def _forward(info: LayerInfo, batch: int) -> float:
    match info.layer:
        case Dense():
            return sqrt(info.input_shape[0]) + _operator_steps(info, transposed=False)
        case Conv2D(kernel=kernel):
            return sqrt(prod(kernel) * info.input_shape[2]) + _operator_steps(info, transposed=False)
        case BatchNorm():
            return NORM + sqrt(batch * _positions(info))
        case AvgPool(size=size):
            return float(size)
        case Dropout():
            return 1.0
        case _:
            return 0.0


def _backward(info: LayerInfo, batch: int) -> float:
    """Roundings of the gradient of a layer's inputs.

    Each entry sums over the outputs that it affects.
    """
    match info.layer:
        case Dense():
            return sqrt(info.output_shape[0]) + _operator_steps(info, transposed=True)
        case Conv2D(kernel=kernel):
            return sqrt(prod(kernel) * info.output_shape[2]) + _operator_steps(info, transposed=True)
        case MaxPool(size=size):
            return float(size)
        case _:
            return _forward(info, batch)


def _sum(info: LayerInfo, batch: int) -> float:
    """Roundings of the gradient of a layer's parameters.

    The gradient is a sum over the batch and positions, for a core also over rows.
    """
    if info.branches:
        return max((_sum(inner, batch) for branch in info.branches for inner in branch), default=0.0)
    if info.operators:
        return max(sqrt(batch * operator.positions * _rows(operator.shape)) for operator in info.operators)
    positions = prod(info.output_shape[:2]) if isinstance(info.layer, Conv2D) else _positions(info)
    return sqrt(batch * positions) if info.parameters else 0.0


def _positions(info: LayerInfo) -> int:
    return prod(info.input_shape[:-1])


def _operator_steps(info: LayerInfo, transposed: bool) -> float:
    """Roundings of the steps of a layer's operators, applied or transposed.

    Each sums over a factor and a bond.
    """
    return sum(
        sqrt(factor * bond)
        for shape in (operator.shape for operator in info.operators)
        for factor, bond in zip(shape.output_dims if transposed else shape.input_dims, shape.bond_dims[1:], strict=True)
    )


def _rows(shape: MPOShape) -> int:
    """Largest number of rows per example that a core is applied to."""
    full = shape.in_features, shape.out_features
    return max(max(full[0] // i, full[1] // j) for i, j in zip(shape.input_dims, shape.output_dims, strict=True))
