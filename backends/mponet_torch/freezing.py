"""`freeze`: a model whose operators keep merged weights, for inference."""

from copy import deepcopy
from typing import Any, TypeVar

from torch import nn

from mponet.layers.frozen import FreezeReport, FrozenLayer
from mponet_torch.compression.modules import OPERATORS
from mponet_torch.nn.embedding import TiedHead
from mponet_torch.nn.frozen import freeze_layer, unfreeze_layer

Module = TypeVar("Module", bound=nn.Module)


def freeze(model: Module, *, in_place: bool = False) -> tuple[Module, FreezeReport]:
    """A model in eval mode whose operators are merged once, and what its layers keep.

    Every layer keeps what is predicted to be fastest for its sizes of batch: the weights of a
    sweep, or the matrix where no sweep is clearly faster.  An embedding keeps its cores laid out
    for lookups.  With ``MPONET_PLAN=measure`` candidates are timed instead.

    The parameters of frozen layers are not trained.  ``train()``, `unfreeze`, loading a state dict
    and a recorded pass of parameters that require gradients end the freezing.  Numbers that are
    written to a parameter in other ways are not seen by layers that keep weights.  A layer of low
    rank may keep none: it multiplies by its cores as they are.

    Args:
        model: a module that holds layers of mponet, or such a layer.
        in_place: whether to freeze the layers of ``model`` itself, which saves the memory of a
            copy.

    Example:
        >>> import torch
        >>> from mponet_torch import MPOLinear
        >>> model = nn.Sequential(MPOLinear((64, 64), (64, 64), 4, seed=0))
        >>> frozen, report = freeze(model)
        >>> print(report)
        1 layer frozen, 0 with their matrix; 0.1 MB kept, dense weights have 67.1 MB
        >>> rows = torch.ones(2, 4096)
        >>> bool(torch.allclose(frozen(rows), model(rows), atol=1e-4))
        True
    """
    model = (model if in_place else deepcopy(model)).eval()
    layers: dict[str, Any] = dict(_operators(model))
    heads = {layer.embedding for layer in layers.values() if isinstance(layer, TiedHead)}
    found = {}
    for name, layer in layers.items():
        if isinstance(layer, TiedHead):
            continue
        freeze_layer(layer, head=layer in heads)
        kept = layer.frozen
        words = "rows of its cores" if kept.plans is None else str(kept.plans)
        found[name] = FrozenLayer(words, kept.nbytes, layer.shape.dense_parameters * layer.tensors[0].element_size())
    return model, FreezeReport(found)


def unfreeze(model: Module) -> Module:
    """The same model with its operators as they were before `freeze`.

    Args:
        model: what `freeze` gave; it is changed in place.

    Example:
        >>> from mponet_torch import MPOLinear
        >>> model, _ = freeze(MPOLinear(64, 64, 4))
        >>> unfreeze(model).core1.requires_grad
        True
    """
    for _, layer in _operators(model):
        if not isinstance(layer, TiedHead):
            unfreeze_layer(layer)
    return model


def _operators(model: nn.Module) -> list[tuple[str, Any]]:
    """Layers of mponet by name."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, OPERATORS)]
