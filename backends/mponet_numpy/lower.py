"""Layer specifications to plain numpy in float64, one small function per type: slow, and easy to check by eye.

Operators are contracted as the TensorNetwork graph that defines them, not by a plan.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mponet.errors import ModelError
from mponet.models import layers as spec
from mponet.models.infer import LayerInfo, layers
from mponet.mpo import MPO
from mponet.network import reference

Array = NDArray[np.float64]


@dataclass(slots=True)
class Network:
    """A network as numpy functions.

    Attributes:
        model: what it was lowered from.
        parameters: by canonical name, float64.
    """

    model: spec.Model
    parameters: dict[str, Array] = field(default_factory=dict)

    def __call__(self, images: NDArray[np.floating]) -> Array:
        """Logits ``(batch, classes)`` of images NHWC.

        Raises:
            ModelError: the images have another shape.
        """
        state = np.asarray(images, dtype=np.float64)
        if state.shape[1:] != self.model.input_shape:
            expected = ", ".join(map(str, self.model.input_shape))
            raise ModelError(f"images have the shape {state.shape}; expected (batch, {expected}) for {self.model}")
        for info in layers(self.model):
            state = _apply(info, self.parameters, state)
        return state


def lower(model: spec.Model) -> Network:
    """The model with all parameters zero; `assign` sets them."""
    return Network(model, {name: np.zeros(shape) for info in layers(model) for name, shape in info.parameters.items()})


def _apply(info: LayerInfo, parameters: dict[str, Array], inputs: Array) -> Array:
    own = {name.split("/")[1]: parameters[name] for name in info.parameters}
    match info.layer:
        case spec.Dense():
            return _dense(info, own, inputs)
        case spec.Conv2D():
            return _conv(info, info.layer, own, inputs)
        case spec.ReLU():
            return np.maximum(inputs, 0.0)
        case spec.MaxPool(size=size, stride=stride):
            largest: Array = _windows(inputs, (size, size), stride).max(axis=(-2, -1))
            return largest
        case spec.Flatten():
            return inputs.reshape(len(inputs), *info.output_shape)
    raise ModelError(f"layer {info.layer} is unknown to mponet_numpy; expected one of {spec.Layer}")


def _dense(info: LayerInfo, own: dict[str, Array], inputs: Array) -> Array:
    bias = own.get("bias", np.zeros(()))
    if info.mpo is None:
        return inputs @ own["kernel"] + bias
    cores = tuple(own[f"core{k}"] for k in range(1, info.mpo.sites + 1))
    return reference(MPO(info.mpo, cores), inputs) + bias


def _conv(info: LayerInfo, layer: spec.Conv2D, own: dict[str, Array], inputs: Array) -> Array:
    """Every window as one row, times the kernel as one matrix ``(height width channels, features)``."""
    padded = np.pad(inputs, ((0, 0), *layer.pads(info.input_shape), (0, 0)))
    windows = _windows(padded, layer.kernel, layer.stride).transpose(0, 1, 2, 4, 5, 3)
    kernel = own["kernel"].reshape(-1, layer.features)
    return windows.reshape(*windows.shape[:3], len(kernel)) @ kernel + own.get("bias", np.zeros(()))


def _windows(maps: Array, size: tuple[int, int], stride: int) -> Array:
    """Every ``size`` window of feature maps: ``(batch, rows, columns, channels, *size)``."""
    return sliding_window_view(maps, size, axis=(1, 2))[:, ::stride, ::stride]
