"""Modules of PyTorch and Hugging Face that hold a matrix.

For each kind it says how the matrix is read, and which module replaces it.

A kind of module is an entry of `KINDS`.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mponet.compress.convolution import kernel_operator
from mponet.compress.fitting import FittedLayer
from mponet.compress.target import Target
from mponet.errors import InputError, MPONetError
from mponet.layers.window import Window
from mponet_torch.nn.convolution import MPOConv1d, MPOConv2d
from mponet_torch.nn.dense import adopt, dense_weights
from mponet_torch.nn.embedding import MPOEmbedding, TiedHead
from mponet_torch.nn.linear import MPOLinear
from mponet_torch.nn.network import NetworkLinear
from mponet_torch.ops.arrays import Array, to_numpy

#: Modules that are operators already.
OPERATORS = (MPOLinear, NetworkLinear, MPOConv1d, MPOConv2d, MPOEmbedding, TiedHead)
#: ``sum x^T x``, ``sum x`` and the number of rows of some inputs.
Sums = tuple[NDArray[np.float64], NDArray[np.float64], int]


@dataclass(frozen=True, slots=True)
class ModuleKind:
    """How one kind of module is described and replaced.

    Attributes:
        recognise: whether a module is of the kind.
        describe: the target of a module, from its name.
        sums: sums over the rows that the module multiplies with, from its input.
        build: the module that takes the place, from the module and the fitted layer.
        gradient_rows: rows ``(n, out)`` of the gradient at a module's output.
        reading: what decides which rows are made of an input; layers that read the same tensor, and
            agree in it, share sums.
        share: the module that takes the place and shares the operator of another, from the module,
            the other one's replacement, and the new bias.
    """

    recognise: Callable[[nn.Module], bool]
    describe: Callable[[str, Any], Target]
    sums: Callable[[Any, Array], Sums]
    build: Callable[[Any, FittedLayer], nn.Module]
    gradient_rows: Callable[[Any, Array], Array]
    reading: Callable[[Any], Hashable]
    share: Callable[[Any, nn.Module, NDArray[np.float64] | None], nn.Module]


def kind_of(module: nn.Module) -> ModuleKind | None:
    """The kind of a module; None if it is of none."""
    if isinstance(getattr(module, "weight", None), nn.UninitializedParameter):
        return None
    return next((kind for kind in KINDS if kind.recognise(module)), None)


def share(layer: Any, owner: Any) -> None:
    """Give a layer the parameters of another one's operator."""
    for name in owner.parameter_names:
        setattr(layer, name, getattr(owner, name))


def type_name(module: nn.Module) -> str:
    """``torch.nn.Linear`` as users write it."""
    cls = type(module)
    return f"torch.nn.{cls.__name__}" if cls.__module__.startswith("torch.nn.") else cls.__name__


def _target(name: str, module: Any, read: Callable[[Any], Any], **sizes: Any) -> Target:
    """A target whose weight is read by ``read``.

    What that refuses is the reason why it is left alone.
    """
    problem = ""
    if getattr(module, "parametrizations", None):
        problem = "its weight is parametrised; remove the parametrisation first"
    if hasattr(module, "_hf_hook"):
        problem = "accelerate moves its weight and its inputs; load the model on one device, without device_map"
    try:
        read(module)
    except MPONetError as error:
        problem = problem or str(error)
    bias = getattr(module, "bias", None)

    def load() -> NDArray[np.float64]:
        matrix = read(module).matrix
        return matrix.reshape(-1, matrix.shape[-1]).astype(np.float64)  # type: ignore[no-any-return]

    return Target(
        name=name,
        type_name=type_name(module),
        load=load,
        load_bias=None if bias is None else lambda: to_numpy(module.bias).astype(np.float64),
        itemsize=module.weight.element_size(),
        **{"unsupported": problem, **sizes},
    )


# ---------------------------------------------------------------- linear layers


def _is_conv1d(module: nn.Module) -> bool:
    """Whether it is Hugging Face's ``Conv1D``, a linear layer.

    The name decides, so that nothing needs to be imported.
    """
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")


def _describe_linear(name: str, module: Any) -> Target:
    shape = tuple(module.weight.shape)  # Conv1D keeps its weight as (in, out)
    inputs, outputs = shape if _is_conv1d(module) else shape[::-1]
    return _target(name, module, dense_weights, kind="linear", in_features=inputs, out_features=outputs)


def _linear_sums(_: nn.Module, inputs: Array) -> Sums:
    return _row_sums(inputs.reshape(-1, inputs.shape[-1]))


def _reads_last(_: nn.Module) -> Hashable:
    return "last"


def _build_linear(module: Any, fitted: FittedLayer) -> nn.Module:
    weight = module.weight
    built: Any = MPOLinear.from_mpo(fitted.mpo, fitted.bias, device=weight.device, dtype=weight.dtype)
    if _is_conv1d(module):
        built._dense_type = type(module)  # what merge makes of it again
    return _adopted(built, module)


def _share_linear(module: Any, owner: Any, bias: NDArray[np.float64] | None) -> nn.Module:
    if isinstance(owner, MPOEmbedding):
        head = TiedHead(owner, bias is not None)
        if bias is not None:
            owner._write(head.bias, bias)
        adopt(head, (), module)
        return head
    weight = module.weight
    options = {"padding": owner.padding, "device": weight.device, "dtype": weight.dtype}
    built = MPOLinear._new(owner.shape, bias is not None, **options)
    if bias is not None:
        built._write(built.bias, bias)
    return _sharing(built, owner, module)


# ---------------------------------------------------------------- convolutions


def _layer_of(module: nn.Module) -> Any:
    return MPOConv1d if isinstance(module, nn.Conv1d) else MPOConv2d


def _describe_convolution(name: str, module: Any) -> Target:
    inner = module.in_channels // module.groups
    problem = {} if module.groups == 1 else {"unsupported": _grouped(module)}
    return _target(
        name,
        module,
        _layer_of(module)._dense_weights,
        kind="convolution",
        in_features=inner * int(np.prod(module.kernel_size)),
        out_features=module.out_channels,
        input_dims=(*module.kernel_size, inner),
        **problem,
    )


def _grouped(module: Any) -> str:
    """Why a convolution with groups is left alone.

    Its groups are small matrices: 9 x 1 or 25 x 1 of a depthwise kernel.  An operator that all of
    them share filters every channel with each of its ``D`` kernels, which multiplies more than the
    one kernel that it replaces; one for each group has nothing to save.  They hold little, too:
    3.9 % of the weights of EfficientNet-lite0.  `MPOConv2d` itself takes groups.
    """
    rows, columns = module.weight[0].numel(), module.out_channels // module.groups
    return f"it has {module.groups} groups of {rows} x {columns} weights, which no operator makes cheaper"


def _convolution_sums(module: Any, inputs: Array) -> Sums:
    """Of the patches ``(*window, channels)`` that the kernel is multiplied with."""
    options = _layer_of(module)._dense_options(module)
    window = Window.of(module.kernel_size, module.stride, options["padding"], module.dilation, module.padding_mode)
    rank = len(module.kernel_size)
    maps = inputs if inputs.ndim == rank + 2 else inputs[None]
    pads = [n for pair in reversed(window.pads(tuple(maps.shape[2:]))) for n in pair]
    mode = "constant" if window.mode == "zeros" else window.mode
    patches = nn.functional.pad(maps, pads, mode=mode)
    for axis, (size, stride, gap) in enumerate(zip(window.size, window.stride, window.dilation, strict=True), start=2):
        patches = patches.unfold(axis, (size - 1) * gap + 1, stride)[..., ::gap]
    # (batch, channels, *positions, *window) -> rows (*window, channels)
    order = (0, *range(2, 2 + 2 * rank), 1)
    return _row_sums(patches.permute(order).flatten(1 + rank).flatten(0, rank))


def _reads_patches(module: Any) -> Hashable:
    return "patches", module.kernel_size, module.stride, module.padding, module.dilation, module.padding_mode


def _build_convolution(module: Any, fitted: FittedLayer) -> nn.Module:
    layer = _layer_of(module)
    structure, mpo = kernel_operator(fitted)
    options = layer._dense_options(module)
    built = layer.from_mpo(mpo, fitted.bias, kernel_size=module.kernel_size, structure=structure, **options)
    return _adopted(built, module)


# ---------------------------------------------------------------- embeddings


def _describe_embedding(name: str, module: Any) -> Target:
    sizes = {"in_features": module.num_embeddings, "out_features": module.embedding_dim}
    return _target(name, module, MPOEmbedding._dense_weights, kind="embedding", **sizes)


def _embedding_sums(module: Any, inputs: Array) -> Sums:
    counts = torch.bincount(inputs.reshape(-1), minlength=module.num_embeddings).cpu().numpy().astype(np.float64)
    return counts, counts, inputs.numel()


def _reads_tokens(module: Any) -> Hashable:
    return "tokens", module.num_embeddings


def _build_embedding(module: Any, fitted: FittedLayer) -> nn.Module:
    options = MPOEmbedding._dense_options(module)
    return _adopted(MPOEmbedding.from_mpo(fitted.mpo, num_embeddings=module.num_embeddings, **options), module)


def _share_embedding(module: Any, owner: Any, _: NDArray[np.float64] | None) -> nn.Module:
    options = MPOEmbedding._dense_options(module)
    return _sharing(MPOEmbedding._new(owner.shape, False, **options), owner, module)


# ---------------------------------------------------------------- all kinds


def _sharing(built: Any, owner: Any, module: nn.Module) -> nn.Module:
    """A layer whose cores are the parameters of another one, adopted from a module."""
    share(built, owner)
    return _adopted(built, module)


def _share_nothing(module: Any, owner: Any, bias: NDArray[np.float64] | None) -> nn.Module:
    raise InputError(f"{type_name(module)} shares its weight; expected a linear layer or an embedding; untie it first")


def _row_sums(rows: Array) -> Sums:
    exact = rows.double()
    return (exact.T @ exact).cpu().numpy(), exact.sum(0).cpu().numpy(), len(rows)


def _features_last(_: nn.Module, gradient: Array) -> Array:
    return gradient.reshape(-1, gradient.shape[-1])


def _channels_first(module: Any, gradient: Array) -> Array:
    """Channels are the first axis of a single map, and the second of a batch."""
    axis = gradient.ndim - len(module.kernel_size) - 1
    return gradient.movedim(axis, -1).flatten(0, -2)


def _adopted(layer: Any, module: nn.Module) -> nn.Module:
    """The layer with the mode, the hooks and the requires_grad of the module."""
    layer._adopt(module)
    return layer  # type: ignore[no-any-return]


#: The kinds, the first that recognises a module counts.
KINDS: tuple[ModuleKind, ...] = (
    ModuleKind(
        lambda module: isinstance(module, nn.Linear) or _is_conv1d(module),
        _describe_linear,
        _linear_sums,
        _build_linear,
        _features_last,
        _reads_last,
        _share_linear,
    ),
    ModuleKind(
        lambda module: isinstance(module, nn.Conv1d | nn.Conv2d),
        _describe_convolution,
        _convolution_sums,
        _build_convolution,
        _channels_first,
        _reads_patches,
        _share_nothing,
    ),
    ModuleKind(
        lambda module: isinstance(module, nn.Embedding),
        _describe_embedding,
        _embedding_sums,
        _build_embedding,
        _features_last,
        _reads_tokens,
        _share_embedding,
    ),
)
