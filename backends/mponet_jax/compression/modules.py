"""Modules of flax.nnx that hold a matrix.

For each kind it says how the matrix is read, and which module replaces it.

A kind of module is an entry of `KINDS`.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from numpy.typing import NDArray

from mponet.compress.convolution import kernel_operator
from mponet.compress.fitting import FittedLayer
from mponet.compress.target import Target
from mponet.errors import InputError, MPONetError
from mponet.layers.window import NUMPY_MODES
from mponet_jax.compression.describing import target_of, type_name
from mponet_jax.nn.convolution import MPOConv, window_of
from mponet_jax.nn.einsum import MPOEinsum, as_rows, einsum_of
from mponet_jax.nn.embedding import MPOEmbed
from mponet_jax.nn.linear import MPOLinear
from mponet_jax.nn.network import NetworkLinear
from mponet_jax.ops.arrays import Array

#: Modules that are operators already.
OPERATORS = (MPOLinear, NetworkLinear, MPOEinsum, MPOConv, MPOEmbed)
#: ``sum x^T x``, ``sum x`` and the number of rows of some inputs.
Sums = tuple[NDArray[np.float64], NDArray[np.float64], int]


@dataclass(frozen=True, slots=True)
class Head:
    """The second use of an embedding: ``attend`` multiplies with the transposed table.

    Attributes:
        embed: the embedding.
    """

    embed: nnx.Embed

    @property
    def in_features(self) -> int:
        """Features of a row of the table."""
        return self.embed.features


@dataclass(frozen=True, slots=True)
class ModuleKind:
    """How one kind of module is described and replaced.

    Attributes:
        recognise: whether a module is of the kind.
        describe: the target of a module, from its name.
        sums: sums over the rows that the module multiplies with, from its input.
        build: the module that takes the place, from the module and the fitted layer.
        gradient_rows: rows ``(n, out)`` of the gradient at a module's output.
        reading: what decides which rows are made of an input; layers that read the same array, and
            agree in it, share sums.
        share: the module that takes the place and shares the operator of another, from the module,
            the other one's replacement, and the new bias.
    """

    recognise: Callable[[Any], bool]
    describe: Callable[[str, Any], Target]
    sums: Callable[[Any, Array], Sums]
    build: Callable[[Any, FittedLayer], nnx.Module]
    gradient_rows: Callable[[Any, Array], Array]
    reading: Callable[[Any], Hashable]
    share: Callable[[Any, nnx.Module, NDArray[np.float64] | None], nnx.Module]


def kind_of(module: Any) -> ModuleKind | None:
    """The kind of a module; None if it is of none."""
    return next((kind for kind in KINDS if kind.recognise(module)), None)


# ---------------------------------------------------------------- linear layers


def _describe_linear(name: str, module: Any) -> Target:
    sizes = {"in_features": module.in_features, "out_features": module.out_features}
    return target_of(name, module, MPOLinear._dense_weights, 2, kind="linear", **sizes)


def rows_of(module: Any, inputs: Array) -> Array:
    """The rows ``(n, in)`` that a linear layer or an einsum multiplies with, from its input."""
    if not isinstance(module, nnx.LinearGeneral | nnx.Einsum):
        return inputs.reshape(-1, module.in_features)
    einsum = einsum_of(module)
    return as_rows(inputs, einsum.input_axes(inputs.ndim), einsum.dims(module.kernel.shape)[0])


def _linear_sums(module: Any, inputs: Array) -> Sums:
    return _row_sums(rows_of(module, inputs))


def _reads_last(module: Any) -> Hashable:
    return "last", module.in_features


def _build_linear(module: Any, fitted: FittedLayer) -> nnx.Module:
    weights = MPOLinear._dense_weights(module)
    with weights.place:
        return MPOLinear.from_mpo(fitted.mpo, fitted.bias, **weights.options)


def _share_linear(module: Any, owner: Any, bias: NDArray[np.float64] | None) -> nnx.Module:
    weights = MPOLinear._dense_weights(module)
    with weights.place:
        return _sharing(MPOLinear.from_mpo(owner.to_mpo(), bias, **weights.options), owner)


# ---------------------------------------------------------------- einsums


def _describe_einsum(name: str, module: Any) -> Target:
    sizes: dict[str, Any] = {"kind": "linear"}
    try:
        einsum = einsum_of(module)
        axes = len(einsum.kernel)
        shape = module.kernel_shape if isinstance(module, nnx.Einsum) else (*module.in_features, *module.out_features)
        sizes["in_features"], sizes["out_features"] = einsum.matrix_shape(shape)
    except MPONetError as error:
        axes, sizes["unsupported"] = 0, str(error)
    return target_of(name, module, MPOEinsum._dense_weights, axes, **sizes)


def _reads_axes(module: Any) -> Hashable:
    einsum = einsum_of(module)
    rows = einsum.contracted
    last = einsum.inputs[-len(rows) :] == rows
    return ("last", einsum.matrix_shape(module.kernel.shape)[0]) if last else (einsum.inputs, rows)


def _build_einsum(module: Any, fitted: FittedLayer) -> nnx.Module:
    weights = MPOEinsum._dense_weights(module)
    with weights.place:
        return MPOEinsum.from_mpo(fitted.mpo, fitted.bias, **weights.options)


def _features_apart(module: Any, gradient: Array) -> Array:
    """Features are put last, in the order of the matrix."""
    einsum = einsum_of(module)
    axes = [int(axis) for axis in np.argsort(einsum.output_axes(gradient.ndim))]
    return as_rows(gradient, axes, einsum.dims(module.kernel.shape)[1])


# ---------------------------------------------------------------- convolutions


def _describe_convolution(name: str, module: Any) -> Target:
    rank, groups = len(module.kernel_size), module.feature_group_count
    inner = module.in_features // groups
    problem = f"it has {groups} groups; only one is supported" if groups > 1 else ""
    if rank > 2:
        problem = f"it has {rank} spatial axes; one or two are supported"
    return target_of(
        name,
        module,
        MPOConv._dense_weights,
        rank + 2,
        kind="convolution",
        in_features=inner * int(np.prod(module.kernel_size)),
        out_features=module.out_features,
        input_dims=(*module.kernel_size, inner),
        unsupported=problem,
    )


def _convolution_sums(module: Any, inputs: Array) -> Sums:
    """Of the patches ``(*window, channels)`` that the kernel is multiplied with."""
    rank = len(module.kernel_size)
    maps = inputs.reshape(-1, *inputs.shape[-1 - rank :])
    window = window_of(module.kernel_size, module.strides, module.padding, module.kernel_dilation)
    sizes = window.output_sizes(maps.shape[1:-1])
    maps = jnp.pad(maps, ((0, 0), *window.pads(maps.shape[1:-1]), (0, 0)), NUMPY_MODES[window.mode])
    patches = []
    for offsets in np.ndindex(*window.size):
        starts = [offset * gap for offset, gap in zip(offsets, window.dilation, strict=True)]
        cut = [
            slice(start, start + (size - 1) * stride + 1, stride)
            for start, size, stride in zip(starts, sizes, window.stride, strict=True)
        ]
        patches.append(maps[(slice(None), *cut)])
    rows = jnp.stack(patches, -2)  # (batch, *positions, window, channels)
    return _row_sums(rows.reshape(-1, rows.shape[-2] * rows.shape[-1]))


def _reads_patches(module: Any) -> Hashable:
    return "patches", window_of(module.kernel_size, module.strides, module.padding, module.kernel_dilation)


def _build_convolution(module: Any, fitted: FittedLayer) -> nnx.Module:
    structure, mpo = kernel_operator(fitted)
    weights = MPOConv._dense_weights(module)
    with weights.place:
        return MPOConv.from_mpo(
            mpo, fitted.bias, kernel_size=module.kernel_size, structure=structure, **weights.options
        )


# ---------------------------------------------------------------- embeddings


def _describe_embedding(name: str, module: Any) -> Target:
    sizes = {"in_features": module.num_embeddings, "out_features": module.features}
    return target_of(name, module, MPOEmbed._dense_weights, 2, kind="embedding", **sizes)


def _embedding_sums(module: Any, inputs: Array) -> Sums:
    tokens = np.asarray(inputs).reshape(-1)
    size = module.num_embeddings
    counts = np.bincount(np.where(tokens < 0, tokens + size, tokens), minlength=size).astype(np.float64)
    return counts, counts, tokens.size


def _reads_tokens(module: Any) -> Hashable:
    return "tokens", module.num_embeddings


def _build_embedding(module: Any, fitted: FittedLayer) -> nnx.Module:
    weights = MPOEmbed._dense_weights(module)
    with weights.place:
        return MPOEmbed.from_mpo(fitted.mpo, num_embeddings=module.num_embeddings, **weights.options)


def _share_embedding(module: Any, owner: Any, _: NDArray[np.float64] | None) -> nnx.Module:
    weights = MPOEmbed._dense_weights(module)
    with weights.place:
        built = MPOEmbed.from_mpo(owner.to_mpo(), num_embeddings=module.num_embeddings, **weights.options)
    return _sharing(built, owner)


def _describe_head(name: str, head: Any) -> Target:
    table = _describe_embedding(name, head.embed)
    return replace(
        table,
        kind="linear",
        type_name="nnx.Embed.attend",
        in_features=table.out_features,
        out_features=table.in_features,
        load=lambda: table.load().T,
        tied_to=name.rpartition(".")[0],
        transposed=True,
    )


# ---------------------------------------------------------------- all kinds


def _sharing(built: Any, owner: Any) -> nnx.Module:
    """A layer whose cores are the parameters of another one."""
    for name in owner.parameter_names:
        setattr(built, name, getattr(owner, name))
    return built  # type: ignore[no-any-return]


def _share_nothing(module: Any, owner: Any, bias: NDArray[np.float64] | None) -> nnx.Module:
    raise InputError(f"{type_name(module)} shares its weight; expected a linear layer or an embedding; untie it first")


def _build_nothing(module: Any, fitted: FittedLayer) -> nnx.Module:
    raise InputError(f"{fitted.name} is a use of an embedding; expected the embedding itself to be replaced")


def products(rows: Array, *, diagonal: bool = False) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``sum x^T x``, or ``sum x^2``, and ``sum x`` of rows, float64.

    They are computed where the rows are: a device then hands out ``(in, in)`` numbers, not the
    activations.
    """
    with jax.enable_x64(True):
        return tuple(np.asarray(value) for value in (_diagonal if diagonal else _products)(rows))  # type: ignore[return-value]


@jax.jit
def _products(rows: Array) -> tuple[Array, Array]:
    exact = rows.astype(jnp.float64)
    return jnp.matmul(exact.T, exact, precision=lax.Precision.HIGHEST), exact.sum(0)


@jax.jit
def _diagonal(rows: Array) -> tuple[Array, Array]:
    exact = rows.astype(jnp.float64)
    return jnp.square(exact).sum(0), exact.sum(0)


def _row_sums(rows: Array) -> Sums:
    return (*products(rows), len(rows))


def _features_last(_: nnx.Module, gradient: Array) -> Array:
    return gradient.reshape(-1, gradient.shape[-1])


#: The kinds, the first that recognises a module counts.
KINDS: tuple[ModuleKind, ...] = (
    ModuleKind(
        lambda module: isinstance(module, nnx.Linear),
        _describe_linear,
        _linear_sums,
        _build_linear,
        _features_last,
        _reads_last,
        _share_linear,
    ),
    ModuleKind(
        lambda module: isinstance(module, nnx.LinearGeneral | nnx.Einsum),
        _describe_einsum,
        _linear_sums,
        _build_einsum,
        _features_apart,
        _reads_axes,
        _share_nothing,
    ),
    ModuleKind(
        lambda module: isinstance(module, nnx.Conv),
        _describe_convolution,
        _convolution_sums,
        _build_convolution,
        _features_last,
        _reads_patches,
        _share_nothing,
    ),
    ModuleKind(
        lambda module: isinstance(module, nnx.Embed),
        _describe_embedding,
        _embedding_sums,
        _build_embedding,
        _features_last,
        _reads_tokens,
        _share_embedding,
    ),
    ModuleKind(
        lambda module: isinstance(module, Head),
        _describe_head,
        _linear_sums,
        _build_nothing,
        _features_last,
        _reads_last,
        _share_nothing,
    ),
)
