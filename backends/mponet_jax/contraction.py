"""``inputs @ W`` as one differentiable operation: the core's plan forward, the core's plan backward."""

from collections.abc import Sequence
from functools import partial

import jax

from mponet import contract
from mponet.plan import Plans
from mponet_jax.arrays import OPS, Array

Saved = tuple[Array, tuple[Array, ...]]


def apply_mpo(plans: Plans, inputs: Array, cores: Sequence[Array]) -> Array:
    """``inputs @ W``.

    Args:
        plans: how, forward and backward.
        inputs: ``(batch, in_features)``, the dtype of the cores.
        cores: ``(D_{k-1}, I_k, J_k, D_k)`` each.

    Returns:
        ``(batch, out_features)``.
    """
    return _apply(plans, inputs, tuple(cores))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(plans: Plans, inputs: Array, cores: tuple[Array, ...]) -> Array:
    return contract.forward(plans.forward, cores, inputs, OPS)


def _forward(plans: Plans, inputs: Array, cores: tuple[Array, ...]) -> tuple[Array, Saved]:
    """Saves the inputs and the cores, nothing between."""
    return _apply(plans, inputs, cores), (inputs, cores)


def _backward(plans: Plans, saved: Saved, gradient: Array) -> tuple[Array | None, tuple[Array, ...]]:
    inputs, cores = saved
    # a gradient of the inputs that nobody uses is dropped by the compiler
    return contract.backward(plans.backward, cores, inputs, gradient, OPS)


_apply.defvjp(_forward, _backward)
