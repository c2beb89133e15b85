"""One layer within its model: its shapes, parameters, operators and multiplications."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mponet.errors import ModelError
from mponet.models.spec import (
    AvgPool,
    BatchNorm,
    Concat,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool,
    PadChannels,
    Reshape,
    Residual,
)
from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Operator:
    """A matrix product operator that is the weight of a layer.

    Attributes:
        name: name of the layer.
        shape: factors and bond dimensions.
        cores: names of its cores among the layer's parameters, the first core first.
        replaced_weights: weights of the matrix or kernel that it replaces (paper Eq. 9).
        positions: how often it is applied to one example: once, or at each position of a
            convolution.
    """

    name: str
    shape: MPOShape
    cores: tuple[str, ...]
    replaced_weights: int
    positions: int = 1

    def mpo(self, parameters: Mapping[str, ArrayLike]) -> MPO:
        """The operator with its cores.

        Args:
            parameters: values by full name, in the canonical layout.
        """
        return MPO(self.shape, tuple(np.asarray(parameters[name], np.float64) for name in self.cores))


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A layer within its model.

    Attributes:
        layer: the layer.
        input_shape: shape of one input.
        output_shape: shape of one output.
        parameters: shapes by full name (``fc1/kernel``, ``fc1/bias``, ``fc1/core1``, ``bn1/scale``,
            ...), in the order of use; a layer with branches has those of all layers inside.
        multiplications: multiplications for one example with full matrices; those of an operator
            depend on its plan (`mponet.models.cost.multiplications`).
        statistics: shapes of a batch norm's running statistics by full name (``bn1/mean``,
            ``bn1/variance``).
        branches: layers inside: body and shortcut of a `Residual`, body of a `Concat`, else empty.
        operators: operators that are weights of this layer, those of layers inside left out.
    """

    layer: Layer
    input_shape: Shape
    output_shape: Shape
    parameters: Mapping[str, Shape] = field(default_factory=dict)
    multiplications: int = 0
    statistics: Mapping[str, Shape] = field(default_factory=dict)
    branches: "tuple[tuple[LayerInfo, ...], ...]" = ()
    operators: tuple[Operator, ...] = ()

    @property
    def kind(self) -> str:
        """Name of the layer's type."""
        return type(self.layer).__name__

    @property
    def name(self) -> str:
        """Name of the layer; empty for one without parameters of its own."""
        return getattr(self.layer, "name", "")

    @property
    def size(self) -> int:
        """Number of its parameters, bias included."""
        return sum(prod(shape) for shape in self.parameters.values())


def infer_chain(layers: Iterable[Layer], shape: Shape, where: str) -> tuple[LayerInfo, ...]:
    """Every layer of a chain with its shapes.

    Args:
        layers: the layers, in order.
        shape: shape of an example before the first layer.
        where: name of the model, for messages.

    Raises:
        ModelError: a layer does not fit the one before it.
    """
    infos: list[LayerInfo] = []
    for layer in layers:
        infos.append(_info(layer, shape, where))
        shape = infos[-1].output_shape
    return tuple(infos)


def _info(layer: Layer, shape: Shape, where: str) -> LayerInfo:
    match layer:
        case Dense():
            return _dense(layer, shape, where)
        case Conv2D():
            return _conv(layer, shape, where)
        case BatchNorm():
            return _norm(layer, shape)
        case MaxPool() | AvgPool():
            return _pool(layer, shape, where)
        case Flatten():
            return LayerInfo(layer, shape, (prod(shape),))
        case Reshape():
            return _reshape(layer, shape, where)
        case PadChannels():
            height, width, channels = _map(layer, shape, where)
            return LayerInfo(layer, shape, (height, width, channels + layer.channels))
        case Residual():
            return _residual(layer, shape, where)
        case Concat():
            return _concat(layer, shape, where)
        case Dropout() if not 0 <= layer.rate < 1:
            raise ModelError(f"{where}: dropout rate is {layer.rate}; expected a share in [0, 1)")
        case _:
            return LayerInfo(layer, shape, shape)


def _norm(layer: BatchNorm, shape: Shape) -> LayerInfo:
    parameters, statistics = (
        {f"{layer.name}/{name}": (shape[-1],) for name in names} for names in (("scale", "shift"), ("mean", "variance"))
    )
    return LayerInfo(layer, shape, shape, parameters, 0, statistics)


def _pool(layer: MaxPool | AvgPool, shape: Shape, where: str) -> LayerInfo:
    height, width, channels = _map(layer, shape, where)
    if min(height, width) < layer.size:
        raise ModelError(f"{where}: {layer} gets the map {shape}; expected one of at least its size")
    pooled = tuple((n - layer.size) // layer.stride + 1 for n in (height, width))
    return LayerInfo(layer, shape, (*pooled, channels))


def _reshape(layer: Reshape, shape: Shape, where: str) -> LayerInfo:
    if prod(layer.shape) != prod(shape):
        raise ModelError(f"{where}: {layer} gets the shape {shape}; expected one of as many values")
    return LayerInfo(layer, shape, layer.shape)


def _residual(layer: Residual, shape: Shape, where: str) -> LayerInfo:
    body, shortcut = infer_chain(layer.body, shape, where), infer_chain(layer.shortcut, shape, where)
    ends = [(branch[-1].output_shape if branch else shape) for branch in (body, shortcut)]
    if ends[0] != ends[1]:
        raise ModelError(f"{where}: a residual's body ends in {ends[0]}, its shortcut in {ends[1]}; expected the same")
    return _branching(layer, shape, ends[0], (body, shortcut))


def _concat(layer: Concat, shape: Shape, where: str) -> LayerInfo:
    height, width, channels = _map(layer, shape, where)
    body = infer_chain(layer.body, shape, where)
    end = body[-1].output_shape if body else shape
    if end[:-1] != (height, width):
        raise ModelError(f"{where}: a concatenation's body ends in {end}; expected a map of {height} x {width}")
    return _branching(layer, shape, (height, width, channels + end[-1]), (body,))


def _branching(layer: Layer, shape: Shape, end: Shape, branches: tuple[tuple[LayerInfo, ...], ...]) -> LayerInfo:
    inside = [info for branch in branches for info in branch]
    parameters = {name: size for info in inside for name, size in info.parameters.items()}
    statistics = {name: size for info in inside for name, size in info.statistics.items()}
    return LayerInfo(layer, shape, end, parameters, sum(i.multiplications for i in inside), statistics, branches)


def _dense(layer: Dense, shape: Shape, where: str) -> LayerInfo:
    if len(shape) != 1:
        raise ModelError(f"{where}: {layer.name!r} gets the shape {shape}; expected a vector; put a Flatten before it")
    kernel = (shape[0], layer.features)
    weights, operators = _weights(layer, kernel, layer.replaces, 1, where)
    return LayerInfo(layer, shape, (layer.features,), weights, prod(kernel), operators=operators)


def _conv(layer: Conv2D, shape: Shape, where: str) -> LayerInfo:
    height, width, channels = _map(layer, shape, where)
    kernel = (*layer.kernel, channels, layer.features)
    if layer.padding == "SAME":
        positions = tuple(-(-n // layer.stride) for n in (height, width))
    else:
        positions = tuple((n - k) // layer.stride + 1 for n, k in zip((height, width), layer.kernel, strict=True))
    if min(positions) < 1:
        raise ModelError(
            f"{where}: {layer.name!r} has the kernel {layer.kernel}; expected one that fits the map {shape}"
        )
    count = prod(positions)
    weights, operators = _weights(layer, kernel, None, count, where)
    return LayerInfo(layer, shape, (*positions, layer.features), weights, count * prod(kernel), operators=operators)


def _weights(
    layer: Dense | Conv2D, kernel: Shape, replaced: int | None, positions: int, where: str
) -> tuple[dict[str, Shape], tuple[Operator, ...]]:
    """Parameters of a layer with a kernel ``(*inputs, outputs)`` or an operator in its place."""
    bias = {f"{layer.name}/bias": (layer.features,)} if layer.bias else {}
    mpo, sizes = layer.mpo, (prod(kernel[:-1]), kernel[-1])
    if mpo is None:
        return {f"{layer.name}/kernel": kernel, **bias}, ()
    if (mpo.in_features, mpo.out_features) != sizes:
        raise ModelError(
            f"{where}: {layer.name!r} is {mpo}, {mpo.in_features} -> {mpo.out_features}; "
            f"expected {sizes[0]} -> {sizes[1]}"
        )
    cores = {f"{layer.name}/core{k}": shape for k, shape in enumerate(mpo.core_shapes, start=1)}
    operator = Operator(layer.name, mpo, tuple(cores), prod(kernel) if replaced is None else replaced, positions)
    return {**cores, **bias}, (operator,)


def _map(layer: Any, shape: Shape, where: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ModelError(f"{where}: {layer} gets the shape {shape}; expected a feature map (height, width, channels)")
    return shape[0], shape[1], shape[2]
