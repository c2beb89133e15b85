"""Layer specifications to plain numpy in float64, one small function per type.

Slow, and easy to check by eye.

Operators are contracted as the TensorNetwork graph that defines them, not by a plan.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mponet.errors import ModelError
from mponet.models import spec as spec
from mponet.models.dropout import Masks
from mponet.models.shapes import LayerInfo, layers, parameter_shapes, statistic_shapes
from mponet.operators.nodes import reference

Array = NDArray[np.float64]
#: Sees each layer and its inputs, in the order of use.
Watch = Callable[[LayerInfo, Array], None]


@dataclass(slots=True)
class Network:
    """A network as numpy functions.

    Attributes:
        model: what it was lowered from.
        parameters: parameters and running statistics by canonical name, float64.
    """

    model: spec.Model
    parameters: dict[str, Array] = field(default_factory=dict)

    def __call__(
        self,
        images: NDArray[np.floating],
        *,
        training: bool = False,
        masks: Masks = (),
        watch: Watch | None = None,
    ) -> Array:
        """Logits ``(batch, classes)`` of images NHWC.

        Args:
            images: ``(batch, height, width, channels)``.
            training: whether batch norms use the batch's statistics, and take them over into the
                running ones.
            masks: what each dropout keeps; without them nothing is dropped.
            watch: called with each layer that has no layers inside, and its inputs, which it may
                change in place.

        Raises:
            ModelError: the images have another shape.
        """
        state = np.asarray(images, dtype=np.float64)
        if state.shape[1:] != self.model.input_shape:
            expected = ", ".join(map(str, self.model.input_shape))
            raise ModelError(f"images have the shape {state.shape}; expected (batch, {expected}) for {self.model}")
        return _chain(layers(self.model), _Pass(self.parameters, training, iter(masks), watch), state)


@dataclass(frozen=True, slots=True)
class _Pass:
    """What all layers of one forward pass share."""

    parameters: dict[str, Array]
    training: bool
    masks: Iterator[NDArray[np.bool_]]
    watch: Watch | None


def lower(model: spec.Model) -> Network:
    """The model with all parameters zero; `assign` sets them."""
    shapes = parameter_shapes(model) | statistic_shapes(model)
    return Network(model, {name: np.zeros(shape) for name, shape in shapes.items()})


def _chain(infos: tuple[LayerInfo, ...], run: _Pass, state: Array) -> Array:
    for info in infos:
        if run.watch is not None and not info.branches:
            run.watch(info, state)
        state = _apply(info, run, state)
    return state


def _apply(info: LayerInfo, run: _Pass, inputs: Array) -> Array:
    match info.layer:
        case spec.Dense():
            return _linear(info, run, inputs)
        case spec.Conv2D():
            return _conv(info, info.layer, run, inputs)
        case spec.BatchNorm():
            return _norm(info.layer, run, inputs)
        case spec.ReLU():
            return np.maximum(inputs, 0.0)
        case spec.MaxPool(size=size, stride=stride):
            largest: Array = _windows(inputs, (size, size), stride).max(axis=(-2, -1))
            return largest
        case spec.AvgPool(size=size, stride=stride):
            mean: Array = _windows(inputs, (size, size), stride).mean(axis=(-2, -1))
            return mean
        case spec.Flatten() | spec.Reshape():
            return inputs.reshape(len(inputs), *info.output_shape)
        case spec.PadChannels(channels=channels):
            return np.pad(inputs, ((0, 0), (0, 0), (0, 0), (0, channels)))
        case spec.Dropout(rate=rate):
            mask = next(run.masks, None)
            return inputs if mask is None else inputs * mask / (1.0 - rate)
        case spec.Residual():
            body, shortcut = info.branches
            return _chain(body, run, inputs) + _chain(shortcut, run, inputs)
        case spec.Concat():
            return np.concatenate((inputs, _chain(info.branches[0], run, inputs)), axis=-1)
    raise ModelError(f"layer {info.layer} is unknown to mponet_numpy; expected one of {spec.Layer}")


def _linear(info: LayerInfo, run: _Pass, rows: Array) -> Array:
    """``rows @ W + b``, with ``W`` the kernel as one matrix or the layer's operator."""
    bias = run.parameters.get(f"{info.name}/bias", np.zeros(()))
    if not info.operators:
        return rows @ run.parameters[f"{info.name}/kernel"].reshape(rows.shape[1], -1) + bias
    (operator,) = info.operators
    return reference(operator.mpo(run.parameters), rows) + bias


def _conv(info: LayerInfo, layer: spec.Conv2D, run: _Pass, inputs: Array) -> Array:
    """Every window as one row, times the kernel as a matrix.

    The matrix is ``(height width channels, features)``.
    """
    padded = np.pad(inputs, ((0, 0), *layer.pads(info.input_shape), (0, 0)))
    windows = _windows(padded, layer.kernel, layer.stride).transpose(0, 1, 2, 4, 5, 3)
    rows = windows.reshape(prod(windows.shape[:3]), prod(windows.shape[3:]))
    return _linear(info, run, rows).reshape(*windows.shape[:3], layer.features)


def _norm(layer: spec.BatchNorm, run: _Pass, inputs: Array) -> Array:
    scale, shift, mean, variance = (
        run.parameters[f"{layer.name}/{name}"] for name in ("scale", "shift", "mean", "variance")
    )
    if run.training:
        axes = tuple(range(inputs.ndim - 1))
        batch = {"mean": inputs.mean(axes), "variance": inputs.var(axes)}
        for name, running in (("mean", mean), ("variance", variance)):
            run.parameters[f"{layer.name}/{name}"] = layer.decay * running + (1 - layer.decay) * batch[name]
        mean, variance = batch["mean"], batch["variance"]
    return (inputs - mean) / np.sqrt(variance + layer.epsilon) * scale + shift


def _windows(maps: Array, size: tuple[int, int], stride: int) -> Array:
    """Every ``size`` window of feature maps: ``(batch, rows, columns, channels, *size)``."""
    return sliding_window_view(maps, size, axis=(1, 2))[:, ::stride, ::stride]
