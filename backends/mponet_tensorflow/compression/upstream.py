"""Inputs of layers in two models at once: the dense one, and the one that is being compressed."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mponet.compress.upstream import CrossSums
from mponet.errors import CompressionError
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
    sums: dict[str, CrossSums] = {}
    for batch in data:
        before, after = (_inputs(model, names, batch) for model in (dense, compressed))
        for name, rows in after.items():
            other = before[name]
            if rows.shape != other.shape:
                raise CompressionError(
                    f"{name} reads {len(other)} rows in the dense model, and {len(rows)} in the compressed one; "
                    "expected as many; compress without upstream"
                )
            if name not in sums:
                sums[name] = CrossSums.zeros(rows.shape[1])
            products = (tf.matmul(rows, x, transpose_a=True) for x in (rows, other))
            totals = (tf.reduce_sum(x, 0) for x in (rows, other))
            own, cross, total, dense_total = map(to_numpy, (*products, *totals))
            sums[name].add_sums(own, total, cross, dense_total, len(rows))
    return sums


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
