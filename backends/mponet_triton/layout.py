"""What the kernels take of a plan's groups, and what their gradients are gradients of.

The core of a group is ``(D_l, I, J, D_r)``: a core of the operator, or a product of neighbours,
which `mponet.contraction.weights.merged` has laid out as the weight of a step.  Kernels take it
bond by bond, as a *factor*.
"""

from collections.abc import Mapping

from torch import Tensor

from mponet.contraction.plan import Plan


def factors(plan: Plan, chains: Mapping[int, Tensor]) -> list[Tensor]:
    """The factors of a plan's groups, laid out for the kernels.

    The first group has ``(D_1, J_1, I_1)``, the last ``(D, J_n, I_n)``.  Of three groups, the
    second has ``(D_1, D_2, J_2, I_2)``.

    Args:
        plan: one that `mponet.contraction.kernels.fusable` names.
        chains: as `mponet.contraction.weights.merged` gives them.
    """
    first, *middle, last = (_core(plan, group, chains) for group in range(len(plan.groups)))
    return [
        first[0].permute(2, 1, 0).contiguous(),  # bond by bond, or a program would read every D-th number
        *(core.permute(0, 3, 2, 1).contiguous() for core in middle),
        last[..., 0].mT,
    ]


def to_weight_layout(plan: Plan, group: int, gradient: Tensor) -> tuple[int, Tensor]:
    """The number of a group's chain, and the chain's gradient.

    The gradient comes as ``(D_l, I, J, D_r)`` and is laid out as the chain is.
    """
    chain = _chain(plan, group)
    if chain < plan.shape.sites:
        return chain, gradient
    left, inputs, outputs, right = plan.group_shapes[group]
    if group == len(plan.groups) - 1:  # of the first step, which carries nothing along: ``(inner, rows)``
        return chain, gradient.permute(1, 3, 0, 2).reshape(inputs * right, left * outputs)
    return chain, gradient.permute(0, 2, 1, 3).reshape(left * outputs, inputs * right)


def _core(plan: Plan, group: int, chains: Mapping[int, Tensor]) -> Tensor:
    """``(D_l, I, J, D_r)`` of a group, a view."""
    chain = _chain(plan, group)
    if chain < plan.shape.sites:
        return chains[chain]
    left, inputs, outputs, right = plan.group_shapes[group]
    if group == len(plan.groups) - 1:
        return chains[chain].view(inputs, right, left, outputs).permute(2, 0, 3, 1)
    return chains[chain].view(left, outputs, inputs, right).permute(0, 2, 1, 3)


def _chain(plan: Plan, group: int) -> int:
    """The steps go from the last group to the first."""
    return plan.steps[len(plan.groups) - 1 - group].weight
