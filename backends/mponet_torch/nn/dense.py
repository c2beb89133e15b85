"""What a dense layer of PyTorch computes.

Its matrix, its bias, and what a layer in its place takes over.
"""

from typing import Any

import torch
from torch import nn

from mponet.errors import InputError, ShapeError
from mponet.layers.checks import check_real
from mponet.layers.operator import DenseWeights
from mponet_torch.ops.arrays import Array, to_numpy

#: What is registered on a module before and after its calls; each is a dictionary that handles
#: refer to.
HOOKS = (
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs"),
    *("_forward_hooks_always_called", "_backward_pre_hooks", "_backward_hooks"),
)
#: Rows that a class with a forward pass of its own is tried with.
TRIED = 4


def dense_weights(dense: nn.Module) -> DenseWeights:
    """Matrix and bias of a layer that computes ``x @ W + b``.

    Taken are `torch.nn.Linear`, its subclasses if they compute the same as their weight and bias,
    1x1 convolutions (the matrix acts on the channels), and ``Conv1D`` of Hugging Face.

    Raises:
        InputError: the layer is of another kind, quantised, carries an adapter, or its weight lies
            elsewhere.
        ShapeError: the layer has no weight yet.
    """
    if isinstance(dense, nn.modules.lazy.LazyModuleMixin) and dense.has_uninitialized_params():
        raise ShapeError(f"{_kind(dense)} has no weight yet; expected known sizes; call it on a batch first")
    weight = _matrix(dense)
    check_weight(dense, weight)
    bias = getattr(dense, "bias", None)
    if isinstance(dense, nn.Linear) and (type(dense).forward is not nn.Linear.forward or "forward" in vars(dense)):
        _try(dense, weight, bias)
    options = {"device": weight.device, "dtype": weight.dtype}
    return DenseWeights(to_numpy(weight), None if bias is None else to_numpy(bias), options)


def adopt(layer: nn.Module, tensors: tuple[Array, ...], dense: nn.Module) -> None:
    """Give a new layer the mode of the dense one, whether it is trained, and its hooks.

    The dictionaries of hooks are shared, so that handles which users hold still remove them.  Hooks
    by which `torch.nn.utils` computes the dense weight stay behind.
    """
    layer.train(dense.training)
    weight, bias = dense.weight, getattr(dense, "bias", None)
    for tensor in tensors:
        tensor.requires_grad_(bool(weight.requires_grad))
    if getattr(layer, "bias", None) is not None and bias is not None:
        layer.bias.requires_grad_(bias.requires_grad)
    for name in HOOKS:
        hooks = getattr(dense, name)
        own = {key: hook for key, hook in hooks.items() if not type(hook).__module__.startswith("torch.nn.utils")}
        setattr(layer, name, hooks if len(own) == len(hooks) else type(hooks)(own))
    layer._is_full_backward_hook = dense._is_full_backward_hook


def _kind(dense: object) -> str:
    return f"dense is a {type(dense).__module__.partition('.')[0]} {type(dense).__name__}, which"


def _matrix(dense: Any) -> Array:
    """``W`` of ``x @ W``, still on its device."""
    if isinstance(dense, nn.Linear):
        return dense.weight.T
    if type(dense).__name__ == "Conv1D" and type(dense).__module__.startswith("transformers."):
        return dense.weight  # type: ignore[no-any-return]
    if isinstance(dense, nn.Conv1d | nn.Conv2d | nn.Conv3d) and not isinstance(dense, nn.modules.conv._ConvTransposeNd):
        plain = set(dense.kernel_size) == {1} == set(dense.stride) == {dense.groups}
        if plain and dense.padding in ("valid", "same", (0,) * len(dense.kernel_size)):
            return dense.weight.flatten(1).T
        raise InputError(
            f"{_kind(dense)} has kernel {dense.kernel_size}, stride {dense.stride}, padding {dense.padding} and "
            f"{dense.groups} groups; expected a 1x1 convolution, or a layer that is a matrix"
        )
    hint = "expected a torch.nn.Linear"
    if callable(getattr(dense, "to_mpo", None)):
        hint = "expected a dense layer; give from_mpo the operator: layer.to_mpo()"
    elif hasattr(dense, "base_layer"):
        hint = "expected a torch.nn.Linear; merge its adapters first: model.merge_and_unload()"
    elif "quant" in type(dense).__module__.lower() or "quant" in type(dense).__name__.lower():
        hint = "expected weights that are not quantised; use the layer as it was before"
    raise InputError(f"{_kind(dense)} is not a layer of a matrix and a bias; {hint}")


def check_weight(dense: nn.Module, weight: Array) -> None:
    """Refuse weights whose numbers are not those that the layer multiplies with."""
    if not isinstance(weight, torch.Tensor) or type(dense.weight) not in (torch.Tensor, nn.Parameter):
        raise InputError(
            f"{_kind(dense)} keeps its weight as a {type(dense.weight).__name__}; expected a plain tensor; dequantise "
            "or gather it first"
        )
    check_real(str(weight.dtype).removeprefix("torch."), f"{_kind(dense)} has a weight that")
    if not weight.is_floating_point() or weight.itemsize < 2:
        raise InputError(f"{_kind(dense)} has weights of {weight.dtype}; expected 16 bits or more; dequantise them")
    if weight.is_meta:
        raise InputError(f"{_kind(dense)} has its weight on the meta device; expected numbers; load or materialise it")


def _try(dense: nn.Linear, weight: Array, bias: Array | None) -> None:
    """Refuse a subclass whose forward pass does not compute what its weight and bias say.

    Layers with adapters are such subclasses.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(TRIED, dense.in_features, generator=generator).to(weight.device, weight.dtype)
    was = dense.training
    with torch.no_grad():
        dense.training = False  # of this module alone: no dropout, and no hook is called
        try:
            found = dense.forward(inputs)
        finally:
            dense.training = was
        expected = inputs @ weight if bias is None else inputs @ weight + bias
        size = inputs.abs() @ weight.abs() + (0 if bias is None else bias.abs())
    allowed = 2 * dense.in_features * torch.finfo(weight.dtype).eps
    if found.shape != expected.shape or bool(((found - expected).abs() > allowed * size).any()):
        raise InputError(
            f"{_kind(dense)} computes something else than its weight and bias say; expected x @ weight.T + bias; merge "
            "its adapters, or build a torch.nn.Linear from it"
        )
