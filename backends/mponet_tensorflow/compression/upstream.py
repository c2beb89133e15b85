"""Inputs of layers in two models at once: the dense one, and the one that is being compressed."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mponet.compress.upstream import CrossSums, cross_sums
from mponet_tensorflow.compression.graph import named_layers, shadowed
from mponet_tensorflow.compression.modules import linear_rows
from mponet_tensorflow.compression.streaming import call, eager
from mponet_tensorflow.ops.arrays import Array, keras, tf, to_numpy


def cross_stream(
    dense: keras.Model, compressed: keras.Model, names: Sequence[str], data: Iterable[Any]
) -> dict[str, CrossSums]:
    """Run both models on data, in inference mode, and sum over the inputs of some linear layers.

    Args:
        dense: the model as it was.
        compressed: the same with some of its layers replaced.
        names: of linear layers that both have.
        data: batches of the models' own inputs.

    Raises:
        CompressionError: a layer reads another number of rows in the two models.
    """
    models = dense, compressed
    return cross_sums(([_inputs(model, names, batch) for model in models] for batch in data), _products)


def _products(rows: Array, other: Array) -> tuple[Any, ...]:
    own, cross = (tf.matmul(rows, matrix, transpose_a=True) for matrix in (rows, other))
    return tuple(to_numpy(value) for value in (own, tf.reduce_sum(rows, 0), cross, tf.reduce_sum(other, 0)))


def _inputs(model: keras.Model, names: Sequence[str], batch: Any) -> dict[str, Array]:
    """The rows that each layer reads in one batch; of a layer that is called twice, all."""
    layers = named_layers(model)
    rows: dict[str, list[Array]] = {name: [] for name in names}

    def recorded(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def record(*args: Any, **kwargs: Any) -> Any:
            inputs = args[0] if args else next(iter(kwargs.values()))
            rows[name].append(tf.cast(linear_rows(layers[name], inputs), tf.float64))
            return original(*args, **kwargs)

        return record

    with eager(), shadowed({name: layers[name] for name in names}, "call", recorded):
        call(model, batch)
    return {name: tf.concat(parts, 0) for name, parts in rows.items() if parts}
