"""``inputs @ W + b`` as one differentiable operation: the core's plan forward, the core's plan backward."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

import mponet_triton as kernels
from mponet.contraction import execute
from mponet.contraction import weights as merge
from mponet.contraction.kernels import uses_dense_gradient
from mponet.contraction.plan import Plan, rebuilt
from mponet.contraction.planner import PlanSet
from mponet_torch.ops.arrays import IN_PLACE, OPS, Array, Ops, is_mapped, ops_for


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
    arrays = (inputs, bias, *cores)
    if torch.compiler.is_compiling() or is_mapped(*arrays):
        return _FunctionalContraction.apply(plans, *arrays)  # type: ignore[no-any-return, no-untyped-call]
    if _recorded(*arrays):
        if _small_beside_activations(plans.training, inputs):
            return execute.forward(plans.training, cores, inputs, OPS, bias)
        return _AutogradContraction.apply(plans, *arrays)  # type: ignore[no-any-return, no-untyped-call]
    with torch.no_grad():  # nothing to differentiate: an operation of autograd costs more than a small layer
        return sweep(plans.forward, weights_of(plans.forward, cores), inputs, bias)


def wanted(*arrays: Array | None) -> bool:
    """Whether somebody differentiates or maps what is computed of these."""
    return _recorded(*arrays) or is_mapped(*arrays)


def _recorded(*arrays: Array | None) -> bool:
    return torch.is_grad_enabled() and any(array is not None and array.requires_grad for array in arrays)


def _small_beside_activations(plan: Plan, inputs: Array) -> bool:
    """Whether all that autograd keeps of a pass is small beside the activations: then it may record product by product.

    For a matrix rebuilt and one product it keeps what `_AutogradContraction` does, and its backward
    pass spends no time in Python.
    """
    return len(plan.steps) == 1 and plan.tile is None and _weigh_little(plan.shape.dense_parameters, inputs)


def _weigh_little(weights: int, inputs: Array) -> bool:
    return weights <= 4 * inputs.numel()


def weights_of(plan: Plan, cores: Sequence[Array]) -> list[Array]:
    """`mponet.contraction.execute.weights_of`, or what a kernel takes in their place."""
    chains = merge.chains(plan, cores, IN_PLACE)
    return kernels.factors(plan, chains) if kernels.supports(plan, cores[0]) else merge.weights(plan, chains, IN_PLACE)


def sweep(plan: Plan, weights: Sequence[Array], inputs: Array, bias: Array | None = None) -> Array:
    """`mponet.contraction.execute.sweep` with nothing recorded, by a kernel where one serves."""
    if kernels.supports(plan, inputs):
        return kernels.forward(plan, weights, inputs, bias)
    return execute.sweep(plan, weights, inputs, IN_PLACE, bias)


def back(
    plan: Plan,
    cores: Sequence[Array],
    inputs: Array,
    gradient: Array,
    ops: Ops,
    *,
    wrt_inputs: bool = True,
    weights: Sequence[Array] | None = None,
) -> tuple[Array | None, tuple[Array, ...]]:
    """`mponet.contraction.execute.backward`, by a kernel if one serves.

    No kernel runs if the gradient is differentiated again or mapped.
    """
    if not kernels.supports(plan, inputs):
        return execute.backward(plan, cores, inputs, gradient, ops, wrt_inputs=wrt_inputs, weights=weights)
    if ops is not IN_PLACE:
        return execute.backward(plan, cores, inputs, gradient, ops, wrt_inputs=wrt_inputs)
    factors = weights or weights_of(plan, cores)
    slope = kernels.input_gradient(plan, factors, gradient) if wrt_inputs else None
    if uses_dense_gradient(plan, inputs.shape[0]):
        return slope, execute.backward(rebuilt(plan.shape), cores, inputs, gradient, ops, wrt_inputs=False)[1]
    slopes = kernels.weight_gradients(plan, factors, inputs, gradient)
    chains = merge.chains(plan, cores, ops, final=False)
    laid_out = dict(kernels.to_weight_layout(plan, group, one) for group, one in enumerate(slopes))
    return slope, merge.spread(plan, chains, laid_out, ops)


def apply_weights(plan: Plan, inputs: Array, weights: Sequence[Array], bias: Array | None = None) -> Array:
    """`apply_mpo` by weights that were kept; nothing is differentiated."""
    with torch.no_grad():
        return sweep(plan, weights, inputs, bias)


@dataclass(frozen=True, slots=True)
class CachedWeights:
    """The weights of a plan, and what they were made of.

    Attributes:
        plan: the plan.
        cores: copies of the cores on a CPU, where comparing them costs next to nothing; elsewhere,
            where it would make the processor wait for the device, the cores themselves.
        versions: how often each core had been written to.
        weights: as `weights_of` gives them.
    """

    plan: Plan
    cores: tuple[Array, ...]
    versions: tuple[int, ...]
    weights: list[Array]

    @classmethod
    def of(cls, plan: Plan, cores: Sequence[Array]) -> "CachedWeights":
        """The weights of these cores."""
        with torch.no_grad():
            same = tuple(core.clone() if core.device.type == "cpu" else core.detach() for core in cores)
            # copies, because a weight of a single core may be a view of it
            weights = [weight.clone() for weight in weights_of(plan, cores)]
        return cls(plan, same, tuple(map(_version, cores)), weights)

    def serves(self, plan: Plan, cores: Sequence[Array]) -> bool:
        """Whether these are the weights of ``plan`` and ``cores``."""
        if (plan.groups, plan.order, plan.transposed) != (self.plan.groups, self.plan.order, self.plan.transposed):
            return False
        return all(map(_is_same, self.cores, self.versions, cores))


def _is_same(kept: Array, version: int, core: Array) -> bool:
    if kept.dtype != core.dtype or kept.device != core.device:
        return False
    if core.device.type == "cpu":
        return torch.equal(kept, core)
    return kept.data_ptr() == core.data_ptr() and version == _version(core)


def _version(array: Array) -> int:
    """How often an array was written to; arrays of `torch.inference_mode` do not count."""
    return 0 if array.is_inference() else array._version


class _AutogradContraction(torch.autograd.Function):
    """Saves the inputs and the cores, nothing between; and the weights, where they are of the size of activations."""

    @staticmethod
    def forward(ctx: Any, plans: PlanSet, inputs: Array, bias: Array | None, *cores: Array) -> Array:
        plan = plans.training
        weights = weights_of(plan, cores)
        saved = weights if _weigh_little(sum(weight.numel() for weight in weights), inputs) else []
        ctx.plan, ctx.biased = plan, bias is not None
        ctx.save_for_backward(inputs, *cores, *saved)
        return sweep(plan, weights, inputs, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Array) -> tuple[Array | None, ...]:
        inputs, *saved = ctx.saved_tensors
        sites = ctx.plan.shape.sites
        cores, weights = saved[:sites], saved[sites:]
        wrt_inputs = bool(ctx.needs_input_grad[1])
        slope, slopes = back(
            ctx.plan,
            cores,
            inputs,
            gradient,
            ops_for(inputs, gradient, *cores),
            wrt_inputs=wrt_inputs,
            weights=None if torch.is_grad_enabled() else weights or None,  # they have no history to differentiate
        )
        return None, slope if wrt_inputs else None, gradient.sum(0) if ctx.biased else None, *slopes


class _FunctionalContraction(_AutogradContraction):
    """The same for `torch.func` and `torch.compile`, which want the saving apart from the computing.

    Autograd binds such a function's arguments by their names at every call, which takes as long as
    a small layer.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(plans: PlanSet, inputs: Array, bias: Array | None, *cores: Array) -> Array:  # type: ignore[override]
        return execute.forward(plans.training, cores, inputs, ops_for(inputs, *cores), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Array) -> None:
        plans, rows, bias, *cores = inputs
        ctx.plan, ctx.biased = plans.training, bias is not None
        ctx.save_for_backward(rows, *cores)
