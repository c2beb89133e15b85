"""Convert layer specifications to native modules, and find their parameters.

Each layer type has one small function.

The native model is an ordinary ``nn.Sequential``.  It takes images the way torch does, ``(batch,
channels, height, width)``, and keeps maps in channels-last memory; flattening puts them in NHWC
order, so that factors group the same indices on every backend.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mponet.errors import ModelError
from mponet.models import spec as spec
from mponet.models.dropout import Masks
from mponet.models.shapes import LayerInfo, layers, leaves
from mponet_torch.nn.blocks import (
    BatchNorm,
    Concat,
    Dropout,
    FlattenNHWC,
    PadChannels,
    PaddedConv2d,
    ReshapeNHWC,
    Residual,
)
from mponet_torch.nn.linear import MPOLinear
from mponet_torch.ops.arrays import Array


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a canonical parameter lives.

    Attributes:
        parameter: the native one.
        axes: its axes in canonical order: ``native.permute(axes)`` is canonical.
        trainable: False for running statistics.
    """

    parameter: Array
    axes: tuple[int, ...]
    trainable: bool = True


def lower(model: spec.Model) -> nn.Sequential:
    """The model as native modules with parameters of torch's own making; `assign` sets them."""
    native = _chain(layers(model))
    native.mponet_model = model  # type: ignore[assignment]  # how slots() knows what it holds
    return native


def slots(native: nn.Module) -> dict[str, Slot]:
    """Every parameter of a lowered model by its canonical name, then its running statistics.

    Raises:
        ModelError: the module was not made by `lower`.
    """
    model = getattr(native, "mponet_model", None)
    if not isinstance(model, spec.Model):
        raise ModelError(
            f"{type(native).__name__} was not built by mponet; expected the result of mponet_torch.backend.build"
        )
    modules = {path.rpartition(".")[2]: module for path, module in native.named_modules() if module._parameters}
    found: dict[str, Slot] = {}
    for info in leaves(model):
        if info.parameters:
            name = info.layer.name  # type: ignore[union-attr]
            found.update({f"{name}/{own}": slot for own, slot in _slots(modules[name]).items()})
    return dict(sorted(found.items(), key=lambda pair: not pair[1].trainable))  # sorting keeps the order of equals


@contextmanager
def dropping(native: nn.Module, masks: Masks) -> Iterator[None]:
    """Inside, each dropout keeps what its mask says, in the order of use.

    Without masks nothing changes.

    Args:
        native: the model.
        masks: booleans ``(batch, *shape)``, maps in NHWC order, one for each dropout.

    Raises:
        ModelError: there are more or fewer of them than dropouts.
    """
    dropouts = [module for module in native.modules() if isinstance(module, Dropout)] if masks else []
    if len(dropouts) != len(masks):
        raise ModelError(f"there are {len(masks)} masks for {len(dropouts)} dropouts; expected one for each, or none")
    try:
        for module, mask in zip(dropouts, masks, strict=True):
            kept = torch.as_tensor(mask, device=next(native.parameters()).device)
            module.kept = images(kept) if kept.ndim == 4 else kept
        yield
    finally:
        for module in dropouts:
            module.kept = None


@contextmanager
def full_precision(native: nn.Module) -> Iterator[None]:
    """Inside, a model on a GPU multiplies without TF32, and adds up gradients in a fixed order.

    torch has only flags of the whole process for this; they are restored at the end.
    """
    if not next(native.parameters()).is_cuda:
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.deterministic, matmul.allow_tf32
    cudnn.allow_tf32, cudnn.deterministic, matmul.allow_tf32 = False, True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic, matmul.allow_tf32 = before


def _chain(infos: tuple[LayerInfo, ...]) -> nn.Sequential:
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for index, info in enumerate(infos):
        named = getattr(info.layer, "name", f"{info.kind.lower()}{index}")
        modules[named] = _module(info)
        if index and isinstance(infos[index - 1].layer, spec.BatchNorm) and isinstance(modules[named], nn.ReLU):
            modules[named].inplace = True  # type: ignore[assignment]  # nobody else sees what a batch norm gave
    return nn.Sequential(modules)


def _module(info: LayerInfo) -> nn.Module:
    match info.layer:
        case spec.Dense(mpo=None):
            return nn.Linear(info.input_shape[0], info.layer.features, info.layer.bias)
        case spec.Dense(mpo=shape) if shape is not None:
            return MPOLinear(shape.input_dims, shape.output_dims, shape.bond_dims[1:-1], info.layer.bias, seed=0)
        case spec.Conv2D(mpo=None):
            return _conv(info.layer, info)
        case spec.BatchNorm(decay=decay, epsilon=epsilon):
            return BatchNorm(info.input_shape[-1], epsilon, 1 - decay)
        case spec.ReLU():
            return nn.ReLU()
        case spec.MaxPool(size=size, stride=stride):
            return nn.MaxPool2d(size, stride)
        case spec.AvgPool(size=size, stride=stride):
            return nn.AvgPool2d(size, stride)
        case spec.Flatten() | spec.Reshape(shape=(_,)):
            return FlattenNHWC()
        case spec.Reshape(shape=(height, width, channels)):
            return ReshapeNHWC((height, width, channels))
        case spec.PadChannels(channels=channels):
            return PadChannels(channels)
        case spec.Dropout(rate=rate):
            return Dropout(rate)
        case spec.Residual():
            body, shortcut = info.branches
            return Residual(_chain(body), _chain(shortcut) if shortcut else None)
        case spec.Concat():
            return Concat(_chain(info.branches[0]))
    raise ModelError(f"layer {info.layer} is unknown to mponet_torch; expected one of {spec.Layer}")


def _conv(layer: spec.Conv2D, info: LayerInfo) -> nn.Module:
    (top, bottom), (left, right) = layer.pads(info.input_shape)
    symmetric = top == bottom and left == right
    options: dict[str, Any] = {"padding": (top, left)} if symmetric else {"pads": (left, right, top, bottom)}
    kind = nn.Conv2d if symmetric else PaddedConv2d
    conv = kind(info.input_shape[2], layer.features, layer.kernel, stride=layer.stride, bias=layer.bias, **options)
    # not for the whole model: the cores of an operator have four axes as well
    laid_out: nn.Module = conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return laid_out


def _slots(module: nn.Module) -> dict[str, Slot]:
    """The slots of one module, by the last part of their names."""
    match module:
        case BatchNorm():
            found = {"scale": Slot(module.weight, (0,)), "shift": Slot(module.bias, (0,))}
            assert module.running_mean is not None and module.running_var is not None  # ours always has them
            statistics = {"mean": module.running_mean, "variance": module.running_var}
            return found | {own: Slot(value, (0,), trainable=False) for own, value in statistics.items()}
        case MPOLinear():
            found = {f"core{k}": Slot(core, (0, 1, 2, 3)) for k, core in enumerate(module.cores, start=1)}
        case nn.Linear():
            found = {"kernel": Slot(module.weight, (1, 0))}  # (out, in) natively
        case _:
            found = {"kernel": Slot(module.weight, (2, 3, 1, 0))}  # type: ignore[arg-type]  # OIHW natively
    return found if module.bias is None else found | {"bias": Slot(module.bias, (0,))}  # type: ignore[arg-type]


def images(array: Array) -> Array:
    """NHWC to torch's order; no copy, the result is in channels-last memory."""
    return array.permute(0, 3, 1, 2)


def canonical(slot: Slot, array: Array | None = None) -> Array:
    """A slot's parameter, or an array laid out like it, in canonical order."""
    return (slot.parameter if array is None else array).detach().permute(slot.axes)


def native_order(slot: Slot, array: Array) -> Array:
    """`canonical` backwards."""
    return array.permute(tuple(int(k) for k in torch.argsort(torch.tensor(slot.axes))))
