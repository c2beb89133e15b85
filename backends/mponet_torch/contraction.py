"""``inputs @ W`` as one differentiable operation: the core's plan forward, the core's plan backward."""

from collections.abc import Sequence
from typing import Any

import torch

from mponet import contract
from mponet.plan import Plans
from mponet_torch.arrays import OPS, Array


def apply_mpo(plans: Plans, inputs: Array, cores: Sequence[Array]) -> Array:
    """``inputs @ W``.

    Args:
        plans: how, forward and backward.
        inputs: ``(batch, in_features)``, the dtype of the cores.
        cores: ``(D_{k-1}, I_k, J_k, D_k)`` each.

    Returns:
        ``(batch, out_features)``.
    """
    return _Apply.apply(plans, inputs, *cores)  # type: ignore[no-any-return, no-untyped-call]


class _Apply(torch.autograd.Function):
    """Saves the inputs and the cores, nothing between."""

    generate_vmap_rule = True

    @staticmethod
    def forward(plans: Plans, inputs: Array, *cores: Array) -> Array:
        return contract.forward(plans.forward, cores, inputs, OPS)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Array) -> None:
        plans, *arrays = inputs
        ctx.plans = plans
        ctx.save_for_backward(*arrays)

    @staticmethod
    def backward(ctx: Any, gradient: Array) -> tuple[Array | None, ...]:
        inputs, *cores = ctx.saved_tensors
        wrt_inputs = bool(ctx.needs_input_grad[1])
        slope, slopes = contract.backward(ctx.plans.backward, cores, inputs, gradient, OPS, wrt_inputs=wrt_inputs)
        return None, slope if wrt_inputs else None, *slopes
