"""``inputs @ W + b`` for any network as one differentiable operation: the core's pairwise plan, both ways."""

from collections.abc import Sequence
from functools import partial

import jax

from mponet.contraction import graph_execute
from mponet.contraction.graph_plan import GraphPlan
from mponet_jax.ops.arrays import OPS, Array

Tensors = tuple[Array, ...]
Saved = tuple[Array, Tensors, Array | None]


def apply_network(plan: GraphPlan, inputs: Array, tensors: Sequence[Array], bias: Array | None = None) -> Array:
    """``inputs @ W + bias``.

    Args:
        plan: how, forward and backward.
        inputs: ``(batch, in_features)``, the dtype of the tensors.
        tensors: those of the nodes, in the order of ``plan.wiring``.
        bias: ``(out_features,)``, the dtype of the tensors; None for none.

    Returns:
        ``(batch, out_features)``.
    """
    return _apply(plan, inputs, tuple(tensors), bias)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(plan: GraphPlan, inputs: Array, tensors: Tensors, bias: Array | None) -> Array:
    return graph_execute.forward(plan, tensors, inputs, OPS, bias)


def _forward(plan: GraphPlan, inputs: Array, tensors: Tensors, bias: Array | None) -> tuple[Array, Saved]:
    """Saves the inputs and the nodes, nothing between."""
    return graph_execute.forward(plan, tensors, inputs, OPS, bias), (inputs, tensors, bias)


def _backward(plan: GraphPlan, saved: Saved, gradient: Array) -> tuple[Array | None, Tensors, Array | None]:
    inputs, tensors, bias = saved
    # a gradient of the inputs that nobody uses is dropped by the compiler
    slope, slopes = graph_execute.backward(plan, tensors, inputs, gradient, OPS)
    return slope, slopes, None if bias is None else gradient.sum(0)


_apply.defvjp(_forward, _backward)
