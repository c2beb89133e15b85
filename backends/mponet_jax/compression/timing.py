"""Times of modules and of the operators that replace them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mponet.compress.timing import median_ratio
from mponet_jax.compression.describing import weight_of
from mponet_jax.ops.arrays import Array


def speed_ratio(module: nnx.Module, operator: nnx.Module, inputs: Array) -> float:
    """Time of a module's compiled forward pass over that of its operator.

    Args:
        module: the dense module.
        operator: what replaces it.
        inputs: for both.
    """
    return median_ratio(_compiled(module, inputs), _compiled(operator, inputs))


def sample_inputs(module: Any, shape: tuple[int, ...] | None, rows: int | None) -> Array | None:
    """Inputs for a module: of a shape, or so many rows of a matrix; None if neither says enough.

    Args:
        module: the module.
        shape: of its inputs; None if they were not seen.
        rows: rows of a linear layer, or row numbers of an embedding; None takes the shape.
    """
    if rows is not None and isinstance(module, nnx.Linear | nnx.Embed):
        shape = (rows,) if isinstance(module, nnx.Embed) else (rows, module.in_features)
    if shape is None or 0 in shape:
        return None
    generator = np.random.default_rng(0)
    if isinstance(module, nnx.Embed):
        return jnp.asarray(generator.integers(0, module.num_embeddings, shape))
    return jnp.asarray(generator.normal(size=shape), weight_of(module).dtype)


def _compiled(module: nnx.Module, inputs: Array) -> Callable[[], None]:
    structure, state = nnx.split(module)
    run = jax.jit(lambda state, inputs: nnx.merge(structure, state)(inputs))

    def call() -> None:
        jax.block_until_ready(run(state, inputs))

    return call
