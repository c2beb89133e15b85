"""``inputs @ W + b`` as one differentiable operation.

The core's plan forward, the core's plan backward.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

import mponet_triton as kernels
from mponet.contraction import execute
from mponet.contraction.execute import Saved
from mponet.contraction.kernels import uses_dense_gradient
from mponet.contraction.plan import rebuilt
from mponet.contraction.planner import PlanSet
from mponet.contraction.program import BasePlan
from mponet.contraction.weights import merge_backward, merged
from mponet.contraction.weights import weights as step_weights
from mponet_torch.ops.arrays import IN_PLACE, OPS, Array, Ops, is_functionalized, is_mapped, ops_for
from mponet_torch.ops.kept import WeightCache


def apply(
    plans: PlanSet,
    inputs: Array,
    tensors: Sequence[Array],
    bias: Array | None = None,
    cache: WeightCache | None = None,
) -> Array:
    """``inputs @ W + bias``, the way that suits who asks.

    Args:
        plans: how, forward and backward.
        inputs: ``(batch, in_features)``, the dtype of the tensors.
        tensors: cores ``(D_{k-1}, I_k, J_k, D_k)``, or those of the nodes of a network.
        bias: ``(out_features,)``, the dtype of the tensors; None for none.
        cache: weights kept from earlier calls; None in training, where they change at every step.

    Returns:
        ``(batch, out_features)``.
    """
    arrays = (inputs, bias, *tensors)
    recorded = torch.is_grad_enabled() and any(array is not None and array.requires_grad for array in arrays)
    if torch.compiler.is_compiling():
        # under `torch.func`, compilers have no rules for the derivatives of an autograd function
        if recorded and torch._C._functorch.peek_interpreter_stack() is None:
            return _recorded(plans, inputs, bias, *tensors)
        # an autograd function in a graph that records nothing breaks the graph of an exported model
        return execute.forward(plans.forward, tensors, inputs, OPS, bias)
    if forward_ad._current_level >= 0 or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        # tangents (jvp, jacfwd, hessian) travel through torch's own products, ours have no rule for
        # them; and `torch.jit.trace` records products, but no autograd function
        return execute.forward(plans.training, tensors, inputs, OPS, bias)
    if is_mapped(*arrays):
        if is_functionalized():
            return execute.forward(plans.training, tensors, inputs, OPS, bias)
        # vmap and grad of torch.func want the saving of tensors apart from the computing
        return _FunctionalContraction.apply(plans, *arrays)  # type: ignore[no-any-return, no-untyped-call]
    if recorded:
        return _recorded(plans, inputs, bias, *tensors)
    with torch.no_grad():  # no gradient is asked for: an autograd function costs more than a small layer
        # where nothing is merged, to compare the tensors with those of the last call would take
        # longer than to use them
        if cache is not None and not plans.forward.program.merges_nothing and cache.keeps(tensors):
            weights = cache.weights(plans.inference, tensors, weights_of)
            return sweep(plans.inference, weights, inputs, bias)
        return sweep(plans.forward, weights_of(plans.forward, tensors), inputs, bias)


def _recorded(plans: PlanSet, inputs: Array, bias: Array | None, *tensors: Array) -> Array:
    """`apply` where autograd records the pass, eagerly or compiled."""
    if records_as_much(plans.training):  # and needs no Python in backward
        return execute.forward(plans.training, tensors, inputs, OPS, bias)
    return _AutogradContraction.apply(plans, inputs, bias, *tensors)  # type: ignore[no-any-return, no-untyped-call]


def records_as_much(plan: BasePlan) -> bool:
    """Whether autograd saves of a pass what the plan says: one product with a matrix, and that."""
    return len(plan.steps) == 1 and plan.saves_states


def weights_of(plan: BasePlan, tensors: Sequence[Array]) -> list[Array]:
    """`mponet.contraction.execute.weights_of`, or what a kernel takes in their place."""
    found = merged(plan.program, tensors, IN_PLACE)
    if kernels.supports(plan, tensors[0]):
        return kernels.factors(plan, found)
    return step_weights(plan.program, found, IN_PLACE)


def sweep(plan: BasePlan, weights: Sequence[Array], inputs: Array, bias: Array | None = None) -> Array:
    """`mponet.contraction.execute.sweep` without recording.

    A kernel runs it where one supports the plan.
    """
    if kernels.supports(plan, inputs):
        return kernels.forward(plan, weights, inputs, bias)
    return execute.sweep(plan, weights, inputs, IN_PLACE, bias)


def forward_saving(
    plan: BasePlan, tensors: Sequence[Array], inputs: Array, bias: Array | None = None
) -> tuple[Array, Saved[Array] | None]:
    """`mponet.contraction.execute.forward_saving` without recording.

    Of a plan that saves no states it saves the weights where they are small beside the activations;
    not in compiled code, where their size is not known.
    """
    compiled = torch.compiler.is_compiling()
    if plan.saves_states or compiled:
        return execute.forward_saving(plan, tensors, inputs, OPS if compiled else IN_PLACE, bias)
    weights = weights_of(plan, tensors)
    saved = Saved((), tuple(weights)) if sum(map(torch.numel, weights)) <= 4 * inputs.numel() else None
    return sweep(plan, weights, inputs, bias), saved


def backward(
    plan: BasePlan,
    tensors: Sequence[Array],
    inputs: Array,
    gradient: Array,
    ops: Ops,
    *,
    wrt_inputs: bool = True,
    saved: Saved[Array] | None = None,
) -> tuple[Array | None, tuple[Array, ...]]:
    """`mponet.contraction.execute.backward`, by a kernel where one supports the plan.

    No kernel runs if the gradient is differentiated again or mapped.
    """
    if not kernels.supports(plan, inputs):
        return execute.backward(plan, tensors, inputs, gradient, ops, wrt_inputs=wrt_inputs, saved=saved)
    if ops is not IN_PLACE:
        return execute.backward(plan, tensors, inputs, gradient, ops, wrt_inputs=wrt_inputs)
    factors = weights_of(plan, tensors) if saved is None else saved.weights
    by_inputs = kernels.input_gradient(plan, factors, gradient) if wrt_inputs else None
    if uses_dense_gradient(plan, inputs.shape[0]):
        whole = rebuilt(plan.shape)
        return by_inputs, execute.backward(whole, tensors, inputs, gradient, ops, wrt_inputs=False)[1]
    by_groups = kernels.weight_gradients(plan, factors, inputs, gradient)
    laid_out = dict(kernels.to_weight_layout(plan, group, one) for group, one in enumerate(by_groups))
    found = merged(plan.program, tensors, ops, final=False)
    return by_inputs, merge_backward(plan.program, found, laid_out, ops)


class _AutogradContraction(torch.autograd.Function):
    """Saves the inputs and the tensors, and what `forward_saving` does."""

    @staticmethod
    def forward(ctx: Any, plans: PlanSet, inputs: Array, bias: Array | None, *tensors: Array) -> Array:
        plan = plans.training
        ctx.plan, ctx.biased = plan, bias is not None
        outputs, saved = forward_saving(plan, tensors, inputs, bias)
        ctx.save_for_backward(inputs, *tensors, *(() if saved is None else saved.arrays))
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Array) -> tuple[Array | None, ...]:
        inputs, *arrays = ctx.saved_tensors
        count = len(ctx.plan.program.tensor_shapes)
        tensors, saved = arrays[:count], None
        if len(arrays) > count and not torch.is_grad_enabled():  # they have no history to differentiate
            saved = Saved.of(ctx.plan, arrays[count:])
        wrt_inputs = bool(ctx.needs_input_grad[1])
        by_inputs, by_tensors = backward(
            ctx.plan,
            tensors,
            inputs,
            gradient,
            ops_for(inputs, gradient, *tensors),
            wrt_inputs=wrt_inputs,
            saved=saved,
        )
        return None, by_inputs, gradient.sum(0) if ctx.biased else None, *by_tensors


class _FunctionalContraction(_AutogradContraction):
    """The same for `torch.func`, which saves apart from the computation.

    States are not saved: they would have no history for derivatives of the gradient.

    Autograd binds such a function's arguments by their names at every call, which takes as long as
    a small layer.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(plans: PlanSet, inputs: Array, bias: Array | None, *tensors: Array) -> Array:  # type: ignore[override]
        return execute.forward(plans.training, tensors, inputs, ops_for(inputs, *tensors), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Array) -> None:
        plans, rows, bias, *tensors = inputs
        ctx.plan, ctx.biased = plans.training, bias is not None
        ctx.save_for_backward(rows, *tensors)
