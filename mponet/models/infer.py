"""What follows from a model without running it: shapes, parameters, multiplications, compression ratios."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from mponet.errors import ModelError
from mponet.measure import compression_ratio
from mponet.models.layers import Conv2D, Dense, Flatten, Layer, MaxPool, Model
from mponet.shape import MPOShape

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """What one layer is within its model.

    Attributes:
        layer: the layer.
        input_shape: of one example.
        output_shape: of one example.
        parameters: shapes by full name (``fc1/kernel``, ``fc1/bias``, ``fc1/core1``, ...), in the order of use.
        multiplications: for one example, with a full matrix; what an operator takes is for its plan to say.
    """

    layer: Layer
    input_shape: Shape
    output_shape: Shape
    parameters: Mapping[str, Shape]
    multiplications: int

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


def layers(model: Model) -> tuple[LayerInfo, ...]:
    """Every layer with its shapes, in order.

    Raises:
        ModelError: layers do not follow one another, or two have the same name.
    """
    shape: Shape = model.input_shape
    infos: list[LayerInfo] = []
    names: set[str] = set()
    for layer in model.layers:
        info = _info(layer, shape, str(model))
        if names & set(info.parameters):
            raise ModelError(f"{model} has two layers named {layer!r}; expected different names")  # pragma: no cover
        names |= set(info.parameters)
        infos.append(info)
        shape = info.output_shape
    return tuple(infos)


def parameter_shapes(model: Model) -> dict[str, Shape]:
    """Shapes of all parameters by name, in the order of use."""
    return {name: shape for info in layers(model) for name, shape in info.parameters.items()}


def parameter_count(model: Model) -> int:
    """Number of parameters, biases included."""
    return sum(info.size for info in layers(model))


def rho(model: Model) -> float | None:
    """The paper's compression ratio (Eq. 9) of the replaced layers; None if there is none."""
    replaced = [info for info in layers(model) if info.mpo is not None]
    if not replaced:
        return None
    return compression_ratio([i.mpo for i in replaced if i.mpo], [replaced_weights(i) for i in replaced])


def replaced_weights(info: LayerInfo) -> int:
    """Weights of the layer that an MPO layer stands for."""
    assert isinstance(info.layer, Dense) and info.mpo is not None
    return info.mpo.dense_parameters if info.layer.replaces is None else info.layer.replaces


def _info(layer: Layer, shape: Shape, where: str) -> LayerInfo:
    match layer:
        case Dense():
            return _dense(layer, shape, where)
        case Conv2D():
            return _conv(layer, shape, where)
        case MaxPool():
            height, width, channels = _map(layer, shape, where)
            pooled = tuple((n - layer.size) // layer.stride + 1 for n in (height, width))
            return LayerInfo(layer, shape, (*pooled, channels), {}, 0)
        case Flatten():
            return LayerInfo(layer, shape, (prod(shape),), {}, 0)
        case _:
            return LayerInfo(layer, shape, shape, {}, 0)


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
