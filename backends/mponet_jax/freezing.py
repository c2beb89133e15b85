"""`freeze`: a model whose operators keep merged weights, for inference."""

from typing import Any, TypeVar

from flax import nnx

from mponet.layers.frozen import FreezeReport, FrozenLayer
from mponet_jax.compression.modules import OPERATORS
from mponet_jax.compression.streaming import named_modules
from mponet_jax.nn.frozen import freeze_layer, unfreeze_layer

Module = TypeVar("Module", bound=nnx.Module)


def freeze(model: Module, *, in_place: bool = False, heads: bool = False) -> tuple[Module, FreezeReport]:
    """A model in eval mode whose operators are merged once, and what its layers keep.

    Every layer keeps what is predicted to be fastest for its sizes of batch: the weights of a
    sweep, or the matrix where no sweep is clearly faster.  An embedding keeps its cores laid out
    for lookups.  With ``MPONET_PLAN=measure`` candidates are timed instead.

    What is kept are variables that are not parameters, and the parameters of frozen layers become
    such variables: `flax.nnx.Optimizer` with ``wrt=nnx.Param`` does not train them.  `unfreeze`
    ends the freezing.  Numbers that are written to a core are not seen.

    Args:
        model: a module that holds layers of mponet, or such a layer.
        in_place: whether to freeze the layers of ``model`` itself.
        heads: whether embeddings are output heads, too (``attend``); weights are then kept for
            that.

    Example:
        >>> import jax.numpy as jnp
        >>> from mponet_jax import MPOLinear
        >>> model = nnx.Sequential(MPOLinear((64, 64), (64, 64), 4, rngs=nnx.Rngs(0)))
        >>> frozen, report = freeze(model)
        >>> print(report)
        1 layer frozen, 0 with their matrix; 0.1 MB kept, dense weights have 67.1 MB
        >>> rows = jnp.ones((2, 4096))
        >>> bool(jnp.allclose(frozen(rows), model(rows), atol=1e-4))
        True
    """
    model = model if in_place else nnx.clone(model)
    model.eval()  # type: ignore[no-untyped-call]
    found, made = {}, dict[int, Any]()
    for name, layer in _operators(model):
        freeze_layer(layer, made, head=heads)
        kept = layer.frozen
        words = "rows of its cores" if kept.plans is None else str(kept.plans)
        found[name] = FrozenLayer(words, kept.nbytes, layer.shape.dense_parameters * layer.tensors[0].dtype.itemsize)
    return model, FreezeReport(found)


def unfreeze(model: Module) -> Module:
    """The same model with its operators as they were before `freeze`.

    Args:
        model: what `freeze` gave; it is changed in place.

    Example:
        >>> from mponet_jax import MPOLinear
        >>> model, _ = freeze(MPOLinear(64, 64, 4, rngs=nnx.Rngs(0)))
        >>> type(unfreeze(model).core1).__name__
        'Param'
    """
    made: dict[int, Any] = {}
    for _, layer in _operators(model):
        unfreeze_layer(layer, made)
    return model


def _operators(model: nnx.Module) -> list[tuple[str, Any]]:
    """Layers of mponet by name."""
    if isinstance(model, OPERATORS):
        return [("", model)]
    return [(name, module) for name, module in named_modules(model) if isinstance(module, OPERATORS)]
