"""What `mponet bench inference` times in this framework."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from mponet.bench.implementation import DENSE, OURS, Numbers
from mponet.bench.inference import FROZEN, InferenceRow
from mponet.bench.layers import problem
from mponet.bench.rows import Row
from mponet_jax.bench.peers import LowRank
from mponet_jax.freezing import freeze
from mponet_jax.nn.convolution import MPOConv
from mponet_jax.nn.embedding import MPOEmbed
from mponet_jax.nn.linear import MPOLinear
from mponet_jax.ops.arrays import Array, to_numpy

MODES = ("jit",)


def layers(row: InferenceRow) -> Mapping[str, Any]:
    """The implementations by name, and under ``kept`` what the frozen layer keeps."""
    ours, others = _layer(row)
    frozen, report = freeze(ours)
    (kept,) = report.layers.values()
    words = {"plan": kept.kept, "bytes": kept.nbytes, "dense bytes": kept.matrix_nbytes}
    return {DENSE: ours.to_dense(), OURS: ours, FROZEN: frozen, **others, "kept": words}


def call(native: nnx.Module, inputs: Numbers, mode: str) -> Callable[[], Array]:
    """A forward pass under `jax.jit`, its weights arguments, ready to run."""
    rows = jax.numpy.asarray(inputs)
    graph, state = nnx.split(native)
    leaves, structure = jax.tree.flatten(state)

    def apply(leaves: list[Array], rows: Array) -> Array:
        with jax.default_matmul_precision("highest"):  # a GPU rounds the factors to TF32 unless told not to
            result: Array = nnx.merge(graph, jax.tree.unflatten(structure, leaves))(rows)
            return result

    compiled = jax.jit(apply)
    return lambda: jax.block_until_ready(compiled(leaves, rows))


def outputs(result: Array) -> Numbers:
    """The result of a call as a numpy array."""
    return to_numpy(result)


def _layer(row: InferenceRow) -> tuple[Any, dict[str, nnx.Module]]:
    """Our layer, and what is timed besides."""
    shape, rngs = row.shape, nnx.Rngs(0)
    if row.kind == "convolution":
        return MPOConv(shape.in_features, shape.out_features, (3, 3), row.bond, rngs=rngs), {}
    if row.kind == "embedding":
        dims: dict[str, Any] = {"input_dims": shape.input_dims, "output_dims": shape.output_dims}
        return MPOEmbed(shape.in_features, shape.out_features, row.bond, rngs=rngs, **dims), {}
    mpo, bias, _, _ = problem(Row(row.name, shape, 1))
    return MPOLinear.from_mpo(mpo, bias), {"low rank": LowRank.of(mpo, bias)}
