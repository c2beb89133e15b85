"""`freeze`: a model whose operators keep merged weights, for inference."""

from typing import Any, TypeVar

from mponet.layers.frozen import FreezeReport, FrozenLayer
from mponet_tensorflow.compression.duplicate import copied
from mponet_tensorflow.compression.graph import named_layers
from mponet_tensorflow.compression.modules import OPERATORS
from mponet_tensorflow.nn.frozen import freeze_layer, unfreeze_layer
from mponet_tensorflow.ops.arrays import keras, tf

Module = TypeVar("Module", bound=keras.layers.Layer)


def freeze(model: Module, *, in_place: bool = False, heads: bool = False) -> tuple[Module, FreezeReport]:
    """A model whose operators are merged once, and what its layers keep.

    Every layer keeps what is predicted to be fastest for its sizes of batch: the weights of a
    sweep, or the matrix where no sweep is clearly faster.  An embedding keeps its cores laid out
    for lookups.  With ``MPONET_PLAN=measure`` candidates are timed instead.

    Frozen layers are not trainable; to set their ``trainable`` is an error, and `unfreeze` ends the
    freezing.  What is kept are constants: a `tf.function` of your own that has called a frozen
    layer has them in its graph, so trace it anew after `unfreeze`.  Numbers that are assigned to a
    core are not seen.

    Args:
        model: a built model that holds layers of mponet, or such a layer.
        in_place: whether to freeze the layers of ``model`` itself, which saves the memory of a
            copy.
        heads: whether embeddings are output heads, too (``reverse=True``); weights are then kept
            for that.

    Example:
        >>> import numpy as np
        >>> from mponet_tensorflow import MPODense
        >>> model = keras.Sequential([keras.Input((4096,)), MPODense((64, 64), 4)])
        >>> frozen, report = freeze(model)
        >>> print(report)
        1 layer frozen, 0 with their matrix; 0.1 MB kept, dense weights have 67.1 MB
        >>> rows = np.ones((2, 4096), "float32")
        >>> bool(np.allclose(frozen(rows), model(rows), atol=1e-4))
        True
    """
    model = model if in_place else copied(model)
    found = {}
    for name, layer in _operators(model):
        with tf.init_scope():
            freeze_layer(layer, head=heads)
        kept = layer.frozen
        words = "rows of its cores" if kept.plans is None else str(kept.plans)
        size = tf.as_dtype(layer.variable_dtype).size
        found[name] = FrozenLayer(words, kept.nbytes, layer.shape.dense_parameters * size)
    _forget_graphs(model)
    return model, FreezeReport(found)


def unfreeze(model: Module) -> Module:
    """The same model with its operators as they were before `freeze`.

    Args:
        model: what `freeze` gave; it is changed in place.

    Example:
        >>> from mponet_tensorflow import MPODense
        >>> layer = MPODense(64, 4)
        >>> layer.build((None, 64))
        >>> model, _ = freeze(layer)
        >>> unfreeze(model).trainable
        True
    """
    for _, layer in _operators(model):
        unfreeze_layer(layer)
    _forget_graphs(model)
    return model


def _operators(model: Any) -> list[tuple[str, Any]]:
    """Layers of mponet by name."""
    if isinstance(model, OPERATORS):
        return [("", model)]
    return [(name, layer) for name, layer in named_layers(model).items() if isinstance(layer, OPERATORS)]


def _forget_graphs(model: Any) -> None:
    """Have Keras trace its functions anew: their graphs hold the weights of before."""
    for part in (model, *named_layers(model).values()):
        if isinstance(part, keras.Model):
            part.train_function = part.test_function = part.predict_function = None
