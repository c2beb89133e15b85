"""Inputs of layers in two networks at once: the dense one, and the one that is being compressed."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from mponet.compress.upstream import CrossSums
from mponet.errors import CompressionError
from mponet_jax.compression.modules import rows_of
from mponet_jax.compression.streaming import Watch, named_modules
from mponet_jax.ops.arrays import Array


def cross_stream(
    dense: nnx.Module, compressed: nnx.Module, names: Sequence[str], data: Iterable[Any]
) -> dict[str, CrossSums]:
    """Run both networks on data, in eval mode, and sum over the inputs of some linear layers.

    Args:
        dense: the network as it was.
        compressed: the same with some of its modules replaced.
        names: of linear layers that both have.
        data: batches of the networks' own inputs.

    Raises:
        CompressionError: a layer reads another number of rows in the two networks.
    """
    sums: dict[str, CrossSums] = {}
    watches = [_watch(model, names) for model in (dense, compressed)]
    for batch in data:
        before, after = (_rows(watch, batch) for watch in watches)
        for name, rows in after.items():
            other = before[name]
            if rows.shape != other.shape:
                raise CompressionError(
                    f"{name} reads {len(other)} rows in the dense network, and {len(rows)} in the compressed one; "
                    "expected as many; compress without upstream"
                )
            if name not in sums:
                sums[name] = CrossSums.zeros(rows.shape[1])
            with jax.enable_x64(True):
                own, total, cross, before_total = (np.asarray(value) for value in _products(rows, other))
            sums[name].add_sums(own, total, cross, before_total, len(rows))
    return sums


def _watch(model: nnx.Module, names: Sequence[str]) -> Watch:
    modules = dict(named_modules(model))
    return Watch(model, {name: modules[name] for name in names}, share=False)


def _rows(watch: Watch, batch: Any) -> dict[str, Array]:
    """The rows that each layer reads in one batch; of a layer that is called twice, all."""
    found = watch.inputs(batch)
    return {
        name: jnp.concatenate([rows_of(watch.modules[name], array) for array in calls]) for name, calls in found.items()
    }


@jax.jit
def _products(rows: Array, other: Array) -> tuple[Array, ...]:
    after, before = rows.astype(jnp.float64), other.astype(jnp.float64)
    highest = lax.Precision.HIGHEST
    products = (jnp.matmul(after.T, matrix, precision=highest) for matrix in (after, before))
    own, cross = products
    return own, after.sum(0), cross, before.sum(0)
