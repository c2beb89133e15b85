"""Inputs of layers in two networks at once: the dense one, and the one that is being compressed."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from mponet.compress.upstream import CrossSums, cross_sums
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
    watches = [_watch(model, names) for model in (dense, compressed)]
    return cross_sums(([_rows(watch, batch) for watch in watches] for batch in data), _products)


def _watch(model: nnx.Module, names: Sequence[str]) -> Watch:
    modules = dict(named_modules(model))
    return Watch(model, {name: modules[name] for name in names}, share=False)


def _rows(watch: Watch, batch: Any) -> dict[str, Array]:
    """The rows that each layer reads in one batch; of a layer that is called twice, all."""
    found = watch.inputs(batch)
    return {
        name: jnp.concatenate([rows_of(watch.modules[name], array) for array in calls]) for name, calls in found.items()
    }


def _products(rows: Array, other: Array) -> tuple[Any, ...]:
    with jax.enable_x64(True):
        return tuple(np.asarray(value) for value in _traced_products(rows, other))


@jax.jit
def _traced_products(rows: Array, other: Array) -> tuple[Array, ...]:
    after, before = rows.astype(jnp.float64), other.astype(jnp.float64)
    own, cross = (jnp.matmul(after.T, matrix, precision=lax.Precision.HIGHEST) for matrix in (after, before))
    return own, after.sum(0), cross, before.sum(0)
