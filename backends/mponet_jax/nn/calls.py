"""What a linear layer is called with: all that `flax.nnx.Linear` takes, or one clear error."""

from math import prod
from typing import Any

import jax
import numpy as np

from mponet.contraction.planner import plans_for
from mponet.errors import InputError
from mponet.layers.checks import check_real, check_width
from mponet_jax.nn.frozen import padded
from mponet_jax.ops.arrays import Array
from mponet_jax.ops.contraction import apply
from mponet_jax.ops.planning import planner


def linear(layer: Any, inputs: Array) -> Array:
    """``inputs @ W + b`` of a layer, ``(..., in_features)`` to ``(..., out_features)``.

    Raises:
        ShapeError: the last dimension is not ``in_features``.
        InputError: the inputs are not an array, or complex.
    """
    inputs, bias, tensors = layer._promoted(inputs)
    check_width(layer.in_features, layer.shape, inputs.shape)
    leading = inputs.shape[:-1]
    rows = inputs.reshape(prod(leading), layer.in_features)
    if layer.frozen is not None:
        return layer.frozen.product(rows, bias, layer.padding).reshape(*leading, layer.out_features)  # type: ignore[no-any-return]
    batch = rows.shape[0] if isinstance(rows.shape[0], int) else None
    # not by the method: nnx.tabulate compiles the methods that a forward pass calls, and a plan is
    # not an array
    plans = plans_for(layer.shape, batch, rows.dtype.name, planner(), layer.memory)
    rows, bias = padded(rows, bias, layer.padding)
    outputs = apply(plans, rows, tensors, bias)
    return (outputs[:, : layer.out_features] if layer.padding[1] else outputs).reshape(*leading, layer.out_features)


def check_inputs(inputs: Any) -> None:
    """Refuse what is not an array of real numbers.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(inputs, jax.Array | np.ndarray):
        raise InputError(f"inputs are a {type(inputs).__name__}; expected a JAX or numpy array; use jnp.asarray")
    check_real(inputs.dtype.name, "inputs")
