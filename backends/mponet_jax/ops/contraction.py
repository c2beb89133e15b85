"""``inputs @ W + b`` as one differentiable operation: the core's plan forward, the core's plan backward."""

from collections.abc import Sequence
from functools import partial

import jax

from mponet.contraction import execute
from mponet.contraction.planner import PlanSet
from mponet_jax.ops.arrays import OPS, Array

Tensors = tuple[Array, ...]
Saved = tuple[Array, Tensors, Array | None]


def apply(plans: PlanSet, inputs: Array, tensors: Sequence[Array], bias: Array | None = None) -> Array:
    """``inputs @ W + bias``, by the plan of a forward pass, or that of training where it is differentiated.

    Args:
        plans: how, forward and backward.
        inputs: ``(batch, in_features)``, the dtype of the tensors.
        tensors: cores ``(D_{k-1}, I_k, J_k, D_k)``, or those of the nodes of a network.
        bias: ``(out_features,)``, the dtype of the tensors; None for none.

    Returns:
        ``(batch, out_features)``.
    """
    return _apply(plans, inputs, tuple(tensors), bias)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(plans: PlanSet, inputs: Array, tensors: Tensors, bias: Array | None) -> Array:
    return execute.forward(plans.forward, tensors, inputs, OPS, bias)


def _forward(plans: PlanSet, inputs: Array, tensors: Tensors, bias: Array | None) -> tuple[Array, Saved]:
    """Saves the inputs and the tensors, nothing between."""
    return execute.forward(plans.training, tensors, inputs, OPS, bias), (inputs, tensors, bias)


def _backward(plans: PlanSet, saved: Saved, gradient: Array) -> tuple[Array | None, Tensors, Array | None]:
    inputs, tensors, bias = saved
    # a gradient of the inputs that is not used is dropped by the compiler
    by_inputs, by_tensors = execute.backward(plans.training, tensors, inputs, gradient, OPS)
    return by_inputs, by_tensors, None if bias is None else gradient.sum(0)


_apply.defvjp(_forward, _backward)
