"""`merge`: operators in a module back to ordinary layers."""

from typing import Any, TypeVar

import numpy as np
from flax import nnx

from mponet.compress.merging import MergeReport, deviation
from mponet.errors import CompressionError, InputError
from mponet_jax.compression.modules import OPERATORS
from mponet_jax.compression.network import exchange
from mponet_jax.compression.streaming import named_modules
from mponet_jax.nn.convolution import MPOConv
from mponet_jax.nn.einsum import MPOEinsum
from mponet_jax.nn.embedding import MPOEmbed
from mponet_jax.ops.arrays import to_numpy

Module = TypeVar("Module", bound=nnx.Module)


def merge(model: Module, *, in_place: bool = False) -> tuple[Module, MergeReport]:
    """A model with ordinary layers instead of operators, and how far they are from these.

    Every `MPOLinear` becomes a `flax.nnx.Linear`, an `MPOEinsum` a `flax.nnx.Einsum`; convolutions
    and embeddings become those of nnx; modules that share an operator share a kernel.  Matrices are
    multiplied out in float64 and stored in the layer's dtype.

    Args:
        model: a compressed module, or any other that holds layers of mponet.
        in_place: whether to replace the modules of ``model`` itself.

    Raises:
        CompressionError: numbers are not finite, or a layer has no counterpart in nnx.  The model
            is unchanged then.

    Example:
        >>> from mponet.compress import CompressConfig
        >>> from mponet_jax import compress, merge
        >>> model = nnx.Sequential(nnx.Linear(64, 96, rngs=nnx.Rngs(0)))
        >>> small, _ = compress(model, CompressConfig(keep=0.5))
        >>> dense, report = merge(small)
        >>> isinstance(dense.layers[0], nnx.Linear), report.deviation < 1e-6
        (True, True)
    """
    if isinstance(model, OPERATORS):
        alone: Any = model.to_dense()
        return alone, MergeReport({"": _deviation("", model, alone)})
    model = model if in_place else nnx.clone(model)
    found: dict[str, Any] = {name: layer for name, layer in named_modules(model) if isinstance(layer, OPERATORS)}
    merged: dict[str, Any] = {}
    weights: dict[int, Any] = {}
    for name, layer in found.items():
        try:
            dense = layer.to_dense()
        except InputError as error:
            raise CompressionError(f"{name} cannot be merged: {error}") from error
        attribute = "embedding" if isinstance(layer, MPOEmbed) else "kernel"
        setattr(dense, attribute, weights.setdefault(id(layer.tensors[0]), getattr(dense, attribute)))
        merged[name] = dense
    report = MergeReport({name: _deviation(name, found[name], dense) for name, dense in merged.items()})
    for name, dense in merged.items():
        exchange(model, found[name], dense)
    return model, report


def _deviation(name: str, layer: Any, dense: Any) -> float:
    if isinstance(layer, MPOEmbed):
        return deviation(name, layer.to_table(), to_numpy(dense.embedding[...]))
    kernel = to_numpy(dense.kernel[...])
    if isinstance(layer, MPOConv):
        return deviation(name, layer.to_kernel(), kernel)
    if isinstance(layer, MPOEinsum):
        kernel = np.ascontiguousarray(kernel.transpose(layer.equation.kernel_axes))
    return deviation(name, layer.to_matrix(), kernel)
