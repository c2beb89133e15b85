"""Layer specifications to native modules, one small function per type, and where their parameters are.

The native model is an ordinary ``nnx.Module``.  It takes images as flax does, ``(batch, height, width, channels)``: so
feature maps already are in the order that factors group, and parameters in the canonical layout.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax.numpy as jnp
from flax import nnx
from numpy.typing import NDArray

from mponet.errors import ModelError
from mponet.models import layers as spec
from mponet.models.infer import LayerInfo, layers
from mponet_jax.arrays import PRECISION, Array
from mponet_jax.layers import MPOLinear


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a canonical parameter lives.

    Attributes:
        parameter: the native one.
        axes: its axes in canonical order: ``native.transpose(axes)`` is canonical.
    """

    parameter: nnx.Param[Array]
    axes: tuple[int, ...]


class Sequential(nnx.Module):
    """Layers one after the other, each an attribute under its name."""

    def __init__(self, model: spec.Model, modules: Mapping[str, nnx.Module]) -> None:
        self._model = model
        self._order = tuple(modules)
        for name, module in modules.items():
            setattr(self, name, module)

    @property
    def mponet_model(self) -> spec.Model:
        """What it was made from."""
        return self._model

    def __call__(self, inputs: Array) -> Array:
        """``(batch, height, width, channels)`` to ``(batch, classes)``."""
        for name in self._order:
            inputs = getattr(self, name)(inputs)
        return inputs


class ReLU(nnx.Module):
    """``max(x, 0)``."""

    def __call__(self, inputs: Array) -> Array:
        """Of each number."""
        return nnx.relu(inputs)


class MaxPool(nnx.Module):
    """Largest value of each ``size x size`` window, no padding."""

    def __init__(self, size: int, stride: int) -> None:
        self.size = size
        self.stride = stride

    def __call__(self, inputs: Array) -> Array:
        """``(batch, height, width, channels)`` to fewer rows and columns."""
        window, strides = (self.size, self.size), (self.stride, self.stride)
        pooled: Array = nnx.max_pool(inputs, window, strides, "VALID")  # type: ignore[no-untyped-call]
        return pooled


class FlattenNHWC(nnx.Module):
    """``(batch, height, width, channels)`` to ``(batch, height * width * channels)``, channels fastest."""

    def __call__(self, inputs: Array) -> Array:
        """The feature maps as vectors; vectors stay as they are."""
        return inputs.reshape(inputs.shape[0], prod(inputs.shape[1:]))


def lower(model: spec.Model, dtype: Any = jnp.float32) -> Sequential:
    """The model as native modules with parameters of that dtype, full matrices zero; `assign` sets them."""
    modules: dict[str, nnx.Module] = {}
    for index, info in enumerate(layers(model)):
        named = getattr(info.layer, "name", f"{info.kind.lower()}{index}")
        modules[named] = _module(info, dtype)
    return Sequential(model, modules)


def slots(native: nnx.Module) -> dict[str, Slot]:
    """Every parameter of a lowered model by its canonical name.

    Raises:
        ModelError: the module was not made by `lower`.
    """
    model = getattr(native, "mponet_model", None)
    if not isinstance(model, spec.Model):
        raise ModelError(f"{type(native).__name__} was not built by mponet; expected the result of mponet_jax.build")
    found: dict[str, Slot] = {}
    for info in layers(model):
        if info.parameters:
            found.update(_slots(info, getattr(native, info.layer.name)))  # type: ignore[union-attr]
    return found


def _module(info: LayerInfo, dtype: Any) -> nnx.Module:
    match info.layer:
        case spec.Dense(mpo=None):
            return nnx.Linear(info.input_shape[0], info.layer.features, **_options(info.layer, dtype))
        case spec.Dense(mpo=shape) if shape is not None:
            sizes = shape.input_dims, shape.output_dims, shape.bond_dims[1:-1]
            return MPOLinear(*sizes, use_bias=info.layer.bias, param_dtype=dtype, rngs=nnx.Rngs(0))
        case spec.Conv2D(features=features, kernel=kernel, stride=stride):
            pads, options = info.layer.pads(info.input_shape), _options(info.layer, dtype)
            return nnx.Conv(info.input_shape[2], features, kernel, stride, padding=pads, **options)
        case spec.ReLU():
            return ReLU()
        case spec.MaxPool(size=size, stride=stride):
            return MaxPool(size, stride)
        case spec.Flatten():
            return FlattenNHWC()
    raise ModelError(f"layer {info.layer} is unknown to mponet_jax; expected one of {spec.Layer}")


def _options(layer: spec.Dense | spec.Conv2D, dtype: Any) -> dict[str, Any]:
    """What every layer with a full matrix is told; random kernels would only cost a compilation for each shape."""
    return {
        "use_bias": layer.bias,
        "param_dtype": dtype,
        "precision": PRECISION,
        "kernel_init": nnx.initializers.zeros_init(),
        "rngs": nnx.Rngs(0),
    }


def _slots(info: LayerInfo, module: Any) -> dict[str, Slot]:
    name = info.layer.name  # type: ignore[union-attr]
    if isinstance(module, MPOLinear):
        found = {f"{name}/core{k}": core for k, core in enumerate(module.cores, start=1)}
    else:
        found = {f"{name}/kernel": module.kernel}  # (in, out) and HWIO natively
    if module.bias is not None:
        found[f"{name}/bias"] = module.bias
    return {key: Slot(parameter, tuple(range(parameter.ndim))) for key, parameter in found.items()}


def images(array: Array) -> Array:
    """NHWC to flax's order, which it is."""
    return array


def canonical(slot: Slot, array: Array | None = None) -> Array:
    """A slot's parameter, or an array laid out like it, in canonical order."""
    return (slot.parameter.get_raw_value() if array is None else array).transpose(slot.axes)


def native_order(slot: Slot, array: NDArray[Any]) -> NDArray[Any]:
    """`canonical` backwards, of a numpy array."""
    return array.transpose(tuple(slot.axes.index(k) for k in range(len(slot.axes))))
