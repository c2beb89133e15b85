"""A plan's passes with nothing recorded: by a kernel where one serves, else by the core's products."""

from collections.abc import Sequence

from mponet import contract, merge
from mponet.plan import Plan
from mponet_torch import kernels
from mponet_torch.arrays import IN_PLACE, Array, Ops


def sweep(plan: Plan, weights: Sequence[Array], inputs: Array, bias: Array | None = None) -> Array:
    """`mponet.contract.sweep`."""
    if kernels.serves(plan, inputs):
        return kernels.forward(plan, weights, inputs, bias)
    return contract.sweep(plan, weights, inputs, IN_PLACE, bias)


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
    """`mponet.contract.backward`; a kernel takes no part where the gradient is to be differentiated, too."""
    if ops is not IN_PLACE or not kernels.serves(plan, inputs):
        return contract.backward(plan, cores, inputs, gradient, ops, wrt_inputs=wrt_inputs, weights=weights)
    chains = merge.chains(plan, cores, ops, final=weights is None)
    weights = weights or merge.weights(plan, chains, ops)
    slope, slopes = kernels.backward(plan, weights, inputs, gradient, wrt_inputs=wrt_inputs)
    return slope, merge.core_slopes(plan, chains, slopes, ops)
