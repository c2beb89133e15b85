"""``inputs @ W + b`` as one differentiable operation: the core's plan forward, the core's plan backward."""

from collections.abc import Sequence
from functools import partial

import jax

from mponet.contraction import execute
from mponet.contraction.planner import PlanSet
from mponet_jax.ops.arrays import OPS, Array

Cores = tuple[Array, ...]
Saved = tuple[Array, Cores, Array | None]


def apply_mpo(plans: PlanSet, inputs: Array, cores: Sequence[Array], bias: Array | None = None) -> Array:
    """``inputs @ W + bias``.

    Args:
        plans: how, forward and backward.
        inputs: ``(batch, in_features)``, the dtype of the cores.
        cores: ``(D_{k-1}, I_k, J_k, D_k)`` each.
        bias: ``(out_features,)``, the dtype of the cores; None for none.

    Returns:
        ``(batch, out_features)``.
    """
    return _apply(plans, inputs, tuple(cores), bias)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(plans: PlanSet, inputs: Array, cores: Cores, bias: Array | None) -> Array:
    return execute.forward(plans.forward, cores, inputs, OPS, bias)


def _forward(plans: PlanSet, inputs: Array, cores: Cores, bias: Array | None) -> tuple[Array, Saved]:
    """Saves the inputs and the cores, nothing between."""
    return execute.forward(plans.training, cores, inputs, OPS, bias), (inputs, cores, bias)


def _backward(plans: PlanSet, saved: Saved, gradient: Array) -> tuple[Array | None, Cores, Array | None]:
    inputs, cores, bias = saved
    # a gradient of the inputs that nobody uses is dropped by the compiler
    slope, slopes = execute.backward(plans.training, cores, inputs, gradient, OPS)
    return slope, slopes, None if bias is None else gradient.sum(0)


_apply.defvjp(_forward, _backward)
