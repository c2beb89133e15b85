"""Convert layer specifications to native modules, and find their parameters.

Each layer type has one small function.

The native model is an ordinary ``nnx.Module``.  It takes images as flax does, ``(batch, height,
width, channels)``: so feature maps already are in the order that factors group, and parameters in
the canonical layout.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from numpy.typing import NDArray

from mponet.errors import ModelError
from mponet.models import spec as spec
from mponet.models.dropout import Masks
from mponet.models.shapes import LayerInfo, layers
from mponet_jax.nn.blocks import (
    AvgPool,
    BatchNorm,
    Concat,
    Dropout,
    FlattenNHWC,
    MaxPool,
    PadChannels,
    ReLU,
    ReshapeNHWC,
    Residual,
    Sequential,
)
from mponet_jax.nn.linear import MPOLinear
from mponet_jax.ops.arrays import PRECISION, Array


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a canonical parameter lives.

    Attributes:
        parameter: the native one.
        axes: its axes in canonical order: ``native.transpose(axes)`` is canonical.
        trainable: False for running statistics.
    """

    parameter: nnx.Variable[Array]
    axes: tuple[int, ...]
    trainable: bool = True


def lower(model: spec.Model, dtype: Any = jnp.float32) -> Sequential:
    """The model as native modules with parameters of that dtype, full matrices zero.

    `assign` sets them.
    """
    # one for all dropouts: each takes a stream of its own from it
    return _chain(layers(model), dtype, nnx.Rngs(0), model)


def slots(native: nnx.Module) -> dict[str, Slot]:
    """Every parameter of a lowered model by its canonical name, then its running statistics.

    Raises:
        ModelError: the module was not made by `lower`.
    """
    found: dict[str, Slot] = {}
    for info, module in _leaves(native):
        if info.parameters:
            name = info.layer.name  # type: ignore[union-attr]
            found.update({f"{name}/{own}": slot for own, slot in _slots(module).items()})
    return dict(sorted(found.items(), key=lambda pair: not pair[1].trainable))  # sorting keeps the order of equals


@contextmanager
def dropping(native: nnx.Module, masks: Masks | tuple[Array, ...]) -> Iterator[None]:
    """Inside, each dropout keeps what its mask says, in the order of use.

    Without masks nothing changes.

    Args:
        native: the model, to be used inside the function that is compiled, or given to it as an
            argument.
        masks: booleans ``(batch, *shape)``, one for each dropout.

    Raises:
        ModelError: there are more or fewer of them than dropouts.
    """
    dropouts = [module for _, module in _leaves(native) if isinstance(module, Dropout)] if len(masks) else []
    if len(dropouts) != len(masks):
        raise ModelError(f"there are {len(masks)} masks for {len(dropouts)} dropouts; expected one for each, or none")
    try:
        for module, mask in zip(dropouts, masks, strict=True):
            module.kept = jnp.asarray(mask)
        yield
    finally:
        for module in dropouts:
            module.kept = None


def _chain(infos: tuple[LayerInfo, ...], dtype: Any, rngs: nnx.Rngs, model: spec.Model | None = None) -> Sequential:
    modules: dict[str, nnx.Module] = {}
    for index, info in enumerate(infos):
        named = getattr(info.layer, "name", f"{info.kind.lower()}{index}")
        modules[named] = _module(info, dtype, rngs)
    return Sequential(modules, model)


def _module(info: LayerInfo, dtype: Any, rngs: nnx.Rngs) -> nnx.Module:
    match info.layer:
        case spec.Dense(mpo=None):
            return nnx.Linear(info.input_shape[0], info.layer.features, **_options(info.layer, dtype))
        case spec.Dense(mpo=shape) if shape is not None:
            sizes = shape.input_dims, shape.output_dims, shape.bond_dims[1:-1]
            return MPOLinear(*sizes, use_bias=info.layer.bias, param_dtype=dtype, rngs=nnx.Rngs(0))
        case spec.Conv2D(features=features, kernel=kernel, stride=stride, mpo=None):
            pads, options = info.layer.pads(info.input_shape), _options(info.layer, dtype)
            return nnx.Conv(info.input_shape[2], features, kernel, stride, padding=pads, **options)
        case spec.BatchNorm(decay=decay, epsilon=epsilon):
            return BatchNorm(info.input_shape[-1], decay, epsilon, param_dtype=dtype)
        case spec.ReLU():
            return ReLU()
        case spec.MaxPool(size=size, stride=stride):
            return MaxPool(size, stride)
        case spec.AvgPool(size=size, stride=stride):
            return AvgPool(size, stride)
        case spec.Flatten():
            return FlattenNHWC()
        case spec.Reshape(shape=shape):
            return ReshapeNHWC(shape)
        case spec.PadChannels(channels=channels):
            return PadChannels(channels)
        case spec.Dropout(rate=rate):
            return Dropout(rate, rngs=rngs)
        case spec.Residual():
            body, shortcut = info.branches
            return Residual(_chain(body, dtype, rngs), _chain(shortcut, dtype, rngs))
        case spec.Concat():
            return Concat(_chain(info.branches[0], dtype, rngs))
    raise ModelError(f"layer {info.layer} is unknown to mponet_jax; expected one of {spec.Layer}")


def _options(layer: spec.Dense | spec.Conv2D, dtype: Any) -> dict[str, Any]:
    """What every layer with a full matrix is told.

    Random kernels would only cost a compilation for each shape.
    """
    return {
        "use_bias": layer.bias,
        "param_dtype": dtype,
        "precision": PRECISION,
        "kernel_init": nnx.initializers.zeros_init(),
        "rngs": nnx.Rngs(0),
    }


def _leaves(native: nnx.Module) -> Iterator[tuple[LayerInfo, Any]]:
    """Every layer that has no layers inside, and its module, in the order of use.

    Raises:
        ModelError: the module was not made by `lower`.
    """
    model = getattr(native, "mponet_model", None)
    if not isinstance(model, spec.Model):
        raise ModelError(
            f"{type(native).__name__} was not built by mponet; expected the result of mponet_jax.backend.build"
        )
    return _within(layers(model), native)


def _within(infos: tuple[LayerInfo, ...], chain: Any) -> Iterator[tuple[LayerInfo, Any]]:
    for info, module in zip(infos, chain, strict=True):
        for branch, inner in zip(info.branches, ("body", "shortcut"), strict=False):
            yield from _within(branch, getattr(module, inner))
        if not info.branches:
            yield info, module


def _slots(module: Any) -> dict[str, Slot]:
    """The slots of one module, by the last part of their names."""
    found: dict[str, nnx.Variable[Array]]
    match module:
        case BatchNorm():
            found = {"scale": module.scale, "shift": module.bias, "mean": module.mean, "variance": module.var}
        case MPOLinear():
            found = {f"core{k}": core for k, core in enumerate(module.cores, start=1)} | _bias(module)
        case _:
            found = {"kernel": module.kernel} | _bias(module)  # (in, out) and HWIO natively
    return {own: Slot(value, tuple(range(value.ndim)), isinstance(value, nnx.Param)) for own, value in found.items()}


def _bias(module: Any) -> dict[str, nnx.Variable[Array]]:
    return {} if module.bias is None else {"bias": module.bias}


def images(array: Array) -> Array:
    """NHWC to flax's order, which it is."""
    return array


def canonical(slot: Slot, array: Array | None = None) -> Array:
    """A slot's parameter, or an array laid out like it, in canonical order."""
    return (slot.parameter.get_raw_value() if array is None else array).transpose(slot.axes)


def native_order(slot: Slot, array: NDArray[Any]) -> NDArray[Any]:
    """`canonical` backwards, of a numpy array."""
    return array.transpose(tuple(slot.axes.index(k) for k in range(len(slot.axes))))
