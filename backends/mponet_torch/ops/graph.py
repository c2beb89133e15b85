"""``inputs @ W + b`` for any network as one differentiable operation: the core's pairwise plan, both ways."""

from collections.abc import Sequence
from typing import Any

import torch

from mponet.contraction import graph_execute
from mponet.contraction.graph_plan import GraphPlan
from mponet_torch.ops.arrays import IN_PLACE, Array, is_mapped, ops_for


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
    arrays = (inputs, bias, *tensors)
    if torch.compiler.is_compiling() or is_mapped(*arrays):
        return _FunctionalContraction.apply(plan, *arrays)  # type: ignore[no-any-return, no-untyped-call]
    return _AutogradContraction.apply(plan, *arrays)  # type: ignore[no-any-return, no-untyped-call]


class _AutogradContraction(torch.autograd.Function):
    """Saves the inputs and the nodes, nothing between."""

    @staticmethod
    def forward(ctx: Any, plan: GraphPlan, inputs: Array, bias: Array | None, *tensors: Array) -> Array:
        ctx.plan, ctx.biased = plan, bias is not None
        ctx.save_for_backward(inputs, *tensors)
        return graph_execute.forward(plan, tensors, inputs, IN_PLACE, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Array) -> tuple[Array | None, ...]:
        inputs, *tensors = ctx.saved_tensors
        wrt_inputs = bool(ctx.needs_input_grad[1])
        ops = ops_for(inputs, gradient, *tensors)
        slope, slopes = graph_execute.backward(ctx.plan, tensors, inputs, gradient, ops, wrt_inputs=wrt_inputs)
        return None, slope, gradient.sum(0) if ctx.biased else None, *slopes


class _FunctionalContraction(_AutogradContraction):
    """The same for `torch.func` and `torch.compile`, which want the saving apart from the computing."""

    generate_vmap_rule = True

    @staticmethod
    def forward(plan: GraphPlan, inputs: Array, bias: Array | None, *tensors: Array) -> Array:  # type: ignore[override]
        return graph_execute.forward(plan, tensors, inputs, ops_for(inputs, *tensors), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Array) -> None:
        plan, rows, bias, *tensors = inputs
        ctx.plan, ctx.biased = plan, bias is not None
        ctx.save_for_backward(rows, *tensors)
