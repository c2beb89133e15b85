"""`merge`: operators in a module back to ordinary layers."""

from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import nn

from mponet.compress.merging import MergeReport, deviation
from mponet.errors import CompressionError, InputError
from mponet_torch.compression import huggingface
from mponet_torch.compression.modules import OPERATORS
from mponet_torch.nn.dense import adopt
from mponet_torch.nn.embedding import MPOEmbedding, TiedHead
from mponet_torch.ops.arrays import to_numpy

Module = TypeVar("Module", bound=nn.Module)


def merge(model: Module, *, in_place: bool = False) -> tuple[Module, MergeReport]:
    """A model with ordinary layers instead of operators, and how far they are from these.

    Every `MPOLinear` becomes a `torch.nn.Linear`, or the Hugging Face ``Conv1D`` that it took the
    place of; convolutions and embeddings become those of torch; modules that share an operator
    share a weight.  Matrices are multiplied out in float64 and stored in the layer's dtype.

    Args:
        model: a compressed module, or any other that holds layers of mponet.
        in_place: whether to replace the modules of ``model`` itself, which saves the memory of a
            copy.

    Raises:
        CompressionError: numbers are not finite, or a layer has no counterpart in torch.  The model
            is unchanged then.

    Example:
        >>> from mponet.compress import CompressConfig
        >>> from mponet_torch import compress, merge
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 96))
        >>> small, _ = compress(model, CompressConfig(keep=0.5))
        >>> dense, report = merge(small)
        >>> dense[0]
        Linear(in_features=64, out_features=96, bias=True)
        >>> report.deviation < 1e-6
        True
    """
    model = model if in_place else deepcopy(model)
    if isinstance(model, OPERATORS):
        dense = _merged(model, {})
        return dense, MergeReport({"": _deviation("", model, dense)})
    merged: dict[nn.Module, nn.Module] = {}
    weights: dict[int, nn.Parameter] = {}
    deviations = {}
    found = [entry for entry in model.named_modules() if isinstance(entry[1], OPERATORS)]
    found.sort(key=lambda entry: isinstance(entry[1], TiedHead))  # after the table, which has the padding row
    for name, module in found:
        try:
            merged[module] = _merged(module, weights)
        except InputError as error:
            raise CompressionError(f"{name} cannot be merged: {error}") from error
        deviations[name] = _deviation(name, module, merged[module])
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in merged:
                setattr(parent, name, merged[child])
    huggingface.forget(model)
    return model, MergeReport({name: deviations[name] for name, _ in model.named_modules() if name in deviations})


def _merged(module: Any, weights: dict[int, nn.Parameter]) -> Any:
    """The ordinary layer; ``weights`` are those made so far, by what they were made of."""
    operator = module.embedding if isinstance(module, TiedHead) else module
    key = id(operator.tensors[0])
    if isinstance(module, TiedHead):
        first, sizes = operator.tensors[0], (module.in_features, module.out_features)
        dense: Any = nn.Linear(*sizes, bias=module.bias is not None, device="meta", dtype=first.dtype)
        dense.weight = weights[key] if key in weights else operator.to_dense().weight
    else:
        dense = module.to_dense()
        kind = getattr(module, "_dense_type", None)
        if kind is not None:
            dense = _conv1d(kind, dense)
        if key in weights:
            dense.weight = weights[key]
    weights[key] = dense.weight
    if module.bias is not None:
        dense.bias = module.bias  # which may be shared, as that of BERT's head
    adopt(dense, (dense.weight,), module)
    return dense


def _conv1d(kind: Any, linear: nn.Linear) -> Any:
    """Hugging Face's ``Conv1D`` with the numbers of a linear layer."""
    with torch.device("meta"):
        dense = kind(linear.out_features, linear.in_features)
    dense.weight = nn.Parameter(linear.weight.detach().T.contiguous(), linear.weight.requires_grad)
    if linear.bias is not None:
        dense.bias = linear.bias
    return dense


def _deviation(name: str, module: Any, dense: Any) -> float:
    weight = to_numpy(dense.weight)
    if isinstance(module, TiedHead | MPOEmbedding):
        table = module.embedding if isinstance(module, TiedHead) else module
        matrix = table.to_table()
        if table.padding_row is not None:
            matrix[table.padding_idx] = to_numpy(table.padding_row)
        return deviation(name, matrix, weight)
    if isinstance(dense, nn.Conv1d | nn.Conv2d):
        kernel = module.to_kernel()  # (*window, in, out)
        return deviation(name, kernel, weight.transpose(*range(2, weight.ndim), 1, 0))
    return deviation(name, module.to_matrix(), weight.T if isinstance(dense, nn.Linear) else weight)
