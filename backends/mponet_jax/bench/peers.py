"""What `mponet bench` compares our layer with.

Other ways to apply the same operator, written here or by others.

Packages are imported when a layer of theirs is made.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from mponet.bench.implementation import (
    Implementation,
    Numbers,
    bare,
    einsum_expression,
    equation,
    low_rank,
    paper_matrices,
)
from mponet.operators.mpo import MPO
from mponet_jax.ops.arrays import Array


class LowRank(nnx.Sequential):
    """Two dense layers with as many parameters as the operator: another map, for orientation."""

    @classmethod
    def of(cls, mpo: MPO, bias: Numbers) -> "LowRank":
        """At the rank of `low_rank`."""
        shape, rank, rngs = mpo.shape, low_rank(mpo.shape), nnx.Rngs(0)
        narrow = nnx.Linear(shape.in_features, rank, use_bias=False, rngs=rngs)
        return cls(narrow, nnx.Linear(rank, shape.out_features, rngs=rngs))


class Sweep(nnx.Module):
    """The authors' own way.

    From the first core to the last, the rest of the input after it, one transposition per core.
    """

    def __init__(self, mpo: MPO, bias: Numbers) -> None:
        self.output_dims = mpo.shape.output_dims
        self.matrices = nnx.List([_parameter(matrix) for matrix in paper_matrices(mpo)])
        self.bias = _parameter(bias)

    def __call__(self, inputs: Array) -> Array:
        """``inputs @ W + b``."""
        state = inputs.T
        for parameter, output in zip(self.matrices, self.output_dims, strict=True):
            matrix = parameter[...]
            state = matrix @ state.reshape(matrix.shape[1], -1)
            state = state.reshape(output, -1).T
        return state.reshape(inputs.shape[0], -1) + self.bias[...]


class Einsum(nnx.Module):
    """One Einstein sum along the best path that ``opt_einsum`` or ``cotengra`` finds.

    The path of ``opt_einsum`` comes through `jnp.einsum`.
    """

    def __init__(self, mpo: MPO, bias: Numbers, package: str) -> None:
        self.dims = mpo.shape.input_dims
        self.cores = nnx.List([_parameter(core) for core in bare(mpo)])
        self.bias = _parameter(bias)
        if package == "opt_einsum":
            sum_of = partial(jnp.einsum, equation(mpo.shape.sites), optimize="optimal")
            self.expression: Callable[[int], Callable[..., Any]] = lambda batch: sum_of
        else:
            self.expression = cache(lambda batch: einsum_expression(mpo.shape, batch, package))

    def __call__(self, inputs: Array) -> Array:
        """``inputs @ W + b``."""
        batch = inputs.shape[0]
        cores = [core[...] for core in self.cores]
        outputs: Array = self.expression(batch)(inputs.reshape(batch, *self.dims), *cores)
        return outputs.reshape(batch, -1) + self.bias[...]


def _parameter(values: Numbers) -> nnx.Param[Array]:
    return nnx.Param(jnp.asarray(values, jnp.float32))


PEERS = (
    Implementation("low rank", "other", LowRank.of),
    Implementation("paper's sweep", "peer", Sweep),
    Implementation("opt_einsum", "peer", partial(Einsum, package="opt_einsum"), ("opt-einsum",)),
    Implementation("cotengra", "peer", partial(Einsum, package="cotengra"), ("cotengra", "autoray")),
)
