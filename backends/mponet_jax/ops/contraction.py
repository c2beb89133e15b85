"""``inputs @ W + b`` by a plan, differentiated by JAX itself.

The products are ordinary JAX operations, so every transformation works: forward and reverse mode,
`jax.vmap`, `jax.linear_transpose`, `jax.shard_map` and sharding by a mesh.  `jax.checkpoint` saves
only the inputs and the tensors between the passes, and the states are computed again; a plan that
saves states does without it.  XLA forms the weights' gradients as single products over batch and
carried axes, so no ``(batch, M, K)`` array is made.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from mponet.contraction import execute
from mponet.contraction.planner import PlanSet
from mponet.contraction.program import BasePlan
from mponet_jax.ops.arrays import OPS, Array, accumulator

Tensors = tuple[Array, ...]
Primals = tuple[Array, Tensors, Array | None]


def apply(plans: PlanSet, inputs: Array, tensors: Sequence[Array], bias: Array | None = None) -> Array:
    """Compute ``inputs @ W + bias``.

    The plan is that of a forward pass, or that of training where the result is differentiated.

    Args:
        plans: how, forward and backward.
        inputs: ``(batch, in_features)``, the dtype of the tensors.
        tensors: cores ``(D_{k-1}, I_k, J_k, D_k)``, or those of the nodes of a network.
        bias: ``(out_features,)``, the dtype of the tensors; None for none.

    Returns:
        ``(batch, out_features)``, sharded over the batch as the inputs are.
    """
    return over_batch(partial(_apply, plans), inputs, tuple(tensors), bias)


def over_batch(run: Callable[..., Array], inputs: Array, tensors: Tensors, bias: Array | None) -> Array:
    """``run(inputs, tensors, bias)``, its outputs sharded over the batch as the inputs are.

    Args:
        run: gives ``(batch, out_features)``.
        inputs: ``(batch, in_features)``.
        tensors: whatever ``run`` takes.
        bias: ``(out_features,)``; None for none.
    """
    mesh = jax.typeof(inputs).sharding.mesh
    if mesh.empty or AxisType.Explicit not in mesh.axis_types:
        return run(inputs, tensors, bias)
    # a mesh with explicit axes wants the sharding of every reshape: inside, XLA finds those itself
    batch = PartitionSpec(jax.typeof(inputs).sharding.spec[0], None)
    automatic: Any = jax.sharding.auto_axes(run, out_sharding=batch)
    return automatic(inputs, tensors, bias)  # type: ignore[no-any-return]


def differentiable(plan: BasePlan, inputs: Array, tensors: Tensors, bias: Array | None) -> Array:
    """A forward pass whose states are saved or computed again for its derivative, as the plan says.

    Weights and bias are widened before the batch is led through them, so that the gradients of
    16-bit numbers are summed in float32.
    """

    def run(inputs: Array, tensors: Tensors, bias: Array | None) -> Array:
        weights = [_wide(weight) for weight in execute.weights_of(plan, tensors, OPS)]
        return execute.sweep(plan, weights, inputs, OPS, None if bias is None else _wide(bias))

    result: Array = (run if plan.saves_states else jax.checkpoint(run))(inputs, tensors, bias)
    return result


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _apply(plans: PlanSet, inputs: Array, tensors: Tensors, bias: Array | None) -> Array:
    return execute.forward(plans.forward, tensors, inputs, OPS, bias)


@_apply.defjvp
def _differentiated(plans: PlanSet, primals: Primals, tangents: Primals) -> tuple[Array, Array]:
    """Differentiated, the plan of training is run.

    The rule only says so, the derivative is JAX's own.
    """
    outputs, change = jax.jvp(partial(differentiable, plans.training), primals, tangents)
    return outputs, change


def _wide(array: Array) -> Array:
    return array.astype(accumulator(array.dtype)) if jnp.dtype(array.dtype).itemsize < 4 else array
