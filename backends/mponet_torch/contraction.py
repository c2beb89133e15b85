"""``inputs @ W + b`` as one differentiable operation: the core's plan forward, the core's plan backward."""

from collections.abc import Sequence
from typing import Any

import torch

from mponet import contract
from mponet.choice import Plans
from mponet_torch.arrays import Array, is_mapped, ops_for


def apply_mpo(plans: Plans, inputs: Array, cores: Sequence[Array], bias: Array | None = None) -> Array:
    """``inputs @ W + bias``.

    Args:
        plans: how, forward and backward.
        inputs: ``(batch, in_features)``, the dtype of the cores.
        cores: ``(D_{k-1}, I_k, J_k, D_k)`` each.
        bias: ``(out_features,)``, the dtype of the cores; None for none.

    Returns:
        ``(batch, out_features)``.
    """
    arrays = (inputs, bias, *cores)
    if torch.compiler.is_compiling() or any(map(is_mapped, arrays)):
        return _Mapped.apply(plans, *arrays)  # type: ignore[no-any-return, no-untyped-call]
    if torch.is_grad_enabled() and any(array is not None and array.requires_grad for array in arrays):
        return _Recorded.apply(plans, *arrays)  # type: ignore[no-any-return, no-untyped-call]
    with torch.no_grad():  # nothing to differentiate: an operation of autograd costs more than a small layer
        return contract.forward(plans.forward, cores, inputs, ops_for(*arrays), bias)


class _Recorded(torch.autograd.Function):
    """Saves the inputs and the cores, nothing between."""

    @staticmethod
    def forward(ctx: Any, plans: Plans, inputs: Array, bias: Array | None, *cores: Array) -> Array:
        ctx.plans, ctx.biased = plans, bias is not None
        ctx.save_for_backward(inputs, *cores)
        return contract.forward(plans.forward, cores, inputs, ops_for(inputs, *cores), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Array) -> tuple[Array | None, ...]:
        inputs, *cores = ctx.saved_tensors
        wrt_inputs = bool(ctx.needs_input_grad[1])
        slope, slopes = contract.backward(
            ctx.plans.backward, cores, inputs, gradient, ops_for(inputs, gradient, *cores), wrt_inputs=wrt_inputs
        )
        return None, slope if wrt_inputs else None, gradient.sum(0) if ctx.biased else None, *slopes


class _Mapped(_Recorded):
    """The same for `torch.func` and `torch.compile`, which want the saving apart from the computing.

    Autograd binds such a function's arguments by their names at every call, which takes as long as a small layer.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(plans: Plans, inputs: Array, bias: Array | None, *cores: Array) -> Array:  # type: ignore[override]
        return contract.forward(plans.forward, cores, inputs, ops_for(inputs, *cores), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Array) -> None:
        plans, rows, bias, *cores = inputs
        ctx.plans, ctx.biased = plans, bias is not None
        ctx.save_for_backward(rows, *cores)
