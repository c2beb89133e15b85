"""What follows from a model without running it: shapes, parameters, multiplications, compression ratios."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

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
    Model,
    PadChannels,
    Reshape,
    Residual,
)
from mponet.operators.measure import compression_ratio
from mponet.operators.shape import MPOShape

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """What one layer is within its model.

    Attributes:
        layer: the layer.
        input_shape: of one example.
        output_shape: of one example.
        parameters: shapes by full name (``fc1/kernel``, ``fc1/bias``, ``fc1/core1``, ``bn1/scale``,
            ...), in the order of use; those of all branches for a layer that has branches.
        multiplications: for one example, with a full matrix; what an operator takes is for its plan
            to say.
        statistics: shapes of what a batch norm remembers, by full name (``bn1/mean``,
            ``bn1/variance``).
        branches: the layers inside: body and shortcut of a `Residual`, body of a `Concat`, else
            none.
    """

    layer: Layer
    input_shape: Shape
    output_shape: Shape
    parameters: Mapping[str, Shape] = field(default_factory=dict)
    multiplications: int = 0
    statistics: Mapping[str, Shape] = field(default_factory=dict)
    branches: "tuple[tuple[LayerInfo, ...], ...]" = ()

    @property
    def kind(self) -> str:
        """Name of the layer's type."""
        return type(self.layer).__name__

    @property
    def mpo(self) -> MPOShape | None:
        """Shape of its operator, if it has one."""
        return self.layer.mpo if isinstance(self.layer, Dense) else None

    @property
    def size(self) -> int:
        """Number of its parameters, bias included."""
        return sum(prod(shape) for shape in self.parameters.values())


@dataclass(frozen=True, slots=True)
class Counts:
    """How many numbers a network has, by what they are.

    Attributes:
        weights: in kernels and cores.
        biases: added to what weights give.
        norms: scales and shifts of batch norms.
        statistics: running ones, which are no parameters.
    """

    weights: int
    biases: int
    norms: int
    statistics: int

    @property
    def parameters(self) -> int:
        """All that training changes."""
        return self.weights + self.biases + self.norms


def layers(model: Model) -> tuple[LayerInfo, ...]:
    """Every layer with its shapes, in order.

    Raises:
        ModelError: layers do not follow one another, or two have the same name.
    """
    infos = _chain(model.layers, model.input_shape, str(model))
    names = [info.layer.name for info in _leaves(infos) if info.parameters]  # type: ignore[union-attr]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ModelError(f"{model} has two layers named {', '.join(twice)}; expected different names")
    return infos


def leaves(model: Model) -> Iterator[LayerInfo]:
    """Every layer that has no layers inside, in the order of use: a body before its shortcut."""
    return _leaves(layers(model))


def parameter_shapes(model: Model) -> dict[str, Shape]:
    """Shapes of all parameters by name, in the order of use."""
    return {name: shape for info in layers(model) for name, shape in info.parameters.items()}


def statistic_shapes(model: Model) -> dict[str, Shape]:
    """Shapes of all running statistics by name, in the order of use."""
    return {name: shape for info in layers(model) for name, shape in info.statistics.items()}


def parameter_count(model: Model) -> int:
    """Number of parameters, biases included; running statistics are none."""
    return sum(info.size for info in layers(model))


def counts(model: Model) -> Counts:
    """The network's numbers by what they are."""
    found = {"weights": 0, "biases": 0, "norms": 0}
    for name, shape in parameter_shapes(model).items():
        kind = name.rpartition("/")[2]
        found[{"bias": "biases", "scale": "norms", "shift": "norms"}.get(kind, "weights")] += prod(shape)
    return Counts(**found, statistics=sum(prod(shape) for shape in statistic_shapes(model).values()))


def rho(model: Model) -> float | None:
    """The paper's compression ratio (Eq. 9) of the replaced layers; None if there is none."""
    replaced = [info for info in leaves(model) if info.mpo is not None]
    if not replaced:
        return None
    return compression_ratio([i.mpo for i in replaced if i.mpo], [replaced_weights(i) for i in replaced])


def replaced_weights(info: LayerInfo) -> int:
    """Weights of the layer that an MPO layer stands for."""
    assert isinstance(info.layer, Dense) and info.mpo is not None
    return info.mpo.dense_parameters if info.layer.replaces is None else info.layer.replaces


def _leaves(infos: Iterable[LayerInfo]) -> Iterator[LayerInfo]:
    for info in infos:
        if info.branches:
            for branch in info.branches:
                yield from _leaves(branch)
        else:
            yield info


def _chain(chain: Iterable[Layer], shape: Shape, where: str) -> tuple[LayerInfo, ...]:
    infos: list[LayerInfo] = []
    for layer in chain:
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
    own, remembered = (
        {f"{layer.name}/{name}": (shape[-1],) for name in names} for names in (("scale", "shift"), ("mean", "variance"))
    )
    return LayerInfo(layer, shape, shape, own, 0, remembered)


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
    body, shortcut = _chain(layer.body, shape, where), _chain(layer.shortcut, shape, where)
    ends = [(branch[-1].output_shape if branch else shape) for branch in (body, shortcut)]
    if ends[0] != ends[1]:
        raise ModelError(f"{where}: a residual's body ends in {ends[0]}, its shortcut in {ends[1]}; expected the same")
    return _branching(layer, shape, ends[0], (body, shortcut))


def _concat(layer: Concat, shape: Shape, where: str) -> LayerInfo:
    height, width, channels = _map(layer, shape, where)
    body = _chain(layer.body, shape, where)
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
    weights: dict[str, Shape] = {f"{layer.name}/kernel": (shape[0], layer.features)}
    if layer.mpo is not None:
        if (layer.mpo.in_features, layer.mpo.out_features) != (shape[0], layer.features):
            raise ModelError(
                f"{where}: {layer.name!r} is {layer.mpo}, {layer.mpo.in_features} -> {layer.mpo.out_features}; "
                f"expected {shape[0]} -> {layer.features}"
            )
        weights = {f"{layer.name}/core{k}": size for k, size in enumerate(layer.mpo.core_shapes, start=1)}
    return LayerInfo(layer, shape, (layer.features,), {**weights, **_bias(layer)}, shape[0] * layer.features)


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
    weights = {f"{layer.name}/kernel": kernel, **_bias(layer)}
    return LayerInfo(layer, shape, (*positions, layer.features), weights, prod(positions) * prod(kernel))


def _bias(layer: Dense | Conv2D) -> dict[str, Shape]:
    return {f"{layer.name}/bias": (layer.features,)} if layer.bias else {}


def _map(layer: Any, shape: Shape, where: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ModelError(f"{where}: {layer} gets the shape {shape}; expected a feature map (height, width, channels)")
    return shape[0], shape[1], shape[2]
