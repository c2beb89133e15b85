"""Layer specifications to native modules, one small function per type, and where their parameters are.

The native model is an ordinary ``nn.Sequential``.  It takes images the way torch does, ``(batch, channels, height,
width)``; flattening puts feature maps in NHWC order first, so that factors group the same indices on every backend.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn

from mponet.errors import ModelError
from mponet.models import layers as spec
from mponet.models.infer import LayerInfo, layers
from mponet_torch.arrays import Array
from mponet_torch.layers import MPOLinear


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a canonical parameter lives.

    Attributes:
        parameter: the native one.
        axes: its axes in canonical order: ``native.permute(axes)`` is canonical.
    """

    parameter: Array
    axes: tuple[int, ...]


class FlattenNHWC(nn.Module):
    """``(batch, channels, height, width)`` to ``(batch, height * width * channels)``, channels fastest."""

    def forward(self, inputs: Array) -> Array:
        """The feature maps as vectors; vectors stay as they are."""
        return inputs.permute(0, 2, 3, 1).flatten(1) if inputs.ndim == 4 else inputs


def lower(model: spec.Model) -> nn.Sequential:
    """The model as native modules with parameters of torch's own making; `assign` sets them."""
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for index, info in enumerate(layers(model)):
        named = getattr(info.layer, "name", f"{info.kind.lower()}{index}")
        modules[named] = _module(info)
    native = nn.Sequential(modules)
    native.mponet_model = model  # type: ignore[assignment]  # how slots() knows what it holds
    return native


def slots(native: nn.Module) -> dict[str, Slot]:
    """Every parameter of a lowered model by its canonical name.

    Raises:
        ModelError: the module was not made by `lower`.
    """
    model = getattr(native, "mponet_model", None)
    if not isinstance(model, spec.Model):
        raise ModelError(f"{type(native).__name__} was not built by mponet; expected the result of mponet_torch.build")
    found: dict[str, Slot] = {}
    for info in layers(model):
        if info.parameters:
            found.update(_slots(info, native.get_submodule(info.layer.name)))  # type: ignore[union-attr]
    return found


def _module(info: LayerInfo) -> nn.Module:
    match info.layer:
        case spec.Dense(mpo=None):
            return nn.Linear(info.input_shape[0], info.layer.features, info.layer.bias)
        case spec.Dense(mpo=shape) if shape is not None:
            return MPOLinear(shape.input_dims, shape.output_dims, shape.bond_dims[1:-1], info.layer.bias, seed=0)
        case spec.Conv2D():
            return _conv(info.layer, info)
        case spec.ReLU():
            return nn.ReLU()
        case spec.MaxPool(size=size, stride=stride):
            return nn.MaxPool2d(size, stride)
        case spec.Flatten():
            return FlattenNHWC()
    raise ModelError(f"layer {info.layer} is unknown to mponet_torch; expected one of {spec.Layer}")


def _conv(layer: spec.Conv2D, info: LayerInfo) -> nn.Module:
    pads = layer.pads(info.input_shape)
    (top, bottom), (left, right) = pads
    symmetric = top == bottom and left == right
    conv = nn.Conv2d(
        info.input_shape[2],
        layer.features,
        layer.kernel,
        stride=layer.stride,
        padding=(top, left) if symmetric else 0,
        bias=layer.bias,
    )
    return conv if symmetric else _Padded(OrderedDict(pad=nn.ZeroPad2d((left, right, top, bottom)), conv=conv))


class _Padded(nn.Sequential):
    """A convolution behind the uneven padding that TensorFlow's SAME asks for."""


def _slots(info: LayerInfo, module: nn.Module) -> dict[str, Slot]:
    name = info.layer.name  # type: ignore[union-attr]
    if isinstance(module, MPOLinear):
        found = {f"{name}/core{k}": Slot(core, (0, 1, 2, 3)) for k, core in enumerate(module.cores, start=1)}
    else:
        module = module.conv if isinstance(module, _Padded) else module  # type: ignore[assignment]
        axes = (1, 0) if isinstance(module, nn.Linear) else (2, 3, 1, 0)  # (out, in) and OIHW natively
        found = {f"{name}/kernel": Slot(module.weight, axes)}  # type: ignore[arg-type]
    if module.bias is not None:
        found[f"{name}/bias"] = Slot(module.bias, (0,))  # type: ignore[arg-type]
    return found


def images(array: Array) -> Array:
    """NHWC to torch's order; no copy, the result is in channels-last memory."""
    return array.permute(0, 3, 1, 2)


def canonical(slot: Slot, array: Array | None = None) -> Array:
    """A slot's parameter, or an array laid out like it, in canonical order."""
    return (slot.parameter if array is None else array).detach().permute(slot.axes)


def native_order(slot: Slot, array: Array) -> Array:
    """`canonical` backwards."""
    return array.permute(tuple(int(k) for k in torch.argsort(torch.tensor(slot.axes))))
