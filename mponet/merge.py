"""Neighbouring cores merged into groups, laid out as the weight matrices of a plan's steps, and the gradients back.

A chain of cores merged is ``(D_left, I, J, D_right)`` like a single core.  Each product of two chains is
``(D_left I1 J1) x (I2 J2 D_right)``: one exchange of ``J1`` and ``I2`` puts it in order, and the last product of a
group goes straight into the layout of its step, so that no large matrix is copied twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Generic, TypeVar

from mponet.ops import Ops
from mponet.plan import Plan, Side, Step

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Chain(Generic[A]):
    """Neighbouring cores as one.

    Attributes:
        first: the first site, from 0.
        end: the site behind the last.
        halves: the two chains that it is the product of; none for a single core.
        core: ``(D_left, I, J, D_right)``; None for a group, whose product takes the layout of its step at once.
    """

    first: int
    end: int
    halves: "tuple[Chain[A], ...]"
    core: A | None


def groups(plan: Plan, cores: Sequence[A], ops: Ops[A]) -> tuple[Chain[A], ...]:
    """Each group merged but for its last product, which the backward pass of a single group may not need."""
    return tuple(_chain(plan, first, end, cores, ops, whole=False) for first, end in plan.spans)


def weights(plan: Plan, chains: Sequence[Chain[A]], ops: Ops[A]) -> list[A]:
    """Each step's weight: ``(inner, rows)`` where nothing is carried along (a suffix of 1), else ``(rows, inner)``."""
    found = []
    for step in plan.steps:
        chain, sizes = chains[step.group], (step.rows, step.inner)
        axes = _layout(step, merged=bool(chain.halves))
        product = _product(plan, chain, ops) if chain.halves else chain.core
        ordered = ops.transpose(product, axes)  # type: ignore[arg-type]
        found.append(ops.reshape(ordered, sizes[::-1] if step.suffix == 1 else sizes))
    return found


def core_slopes(plan: Plan, chains: Sequence[Chain[A]], weight_slopes: Sequence[A], ops: Ops[A]) -> tuple[A, ...]:
    """Gradients of the cores from those of the weights: `groups` and `weights` backwards."""
    slopes: dict[int, A] = {}
    for step, weight_slope in zip(plan.steps, weight_slopes, strict=True):
        chain = chains[step.group]
        axes = _layout(step, merged=bool(chain.halves))
        sizes = _sizes(plan, chain)
        ordered = ops.reshape(weight_slope, tuple(sizes[axis] for axis in axes))
        slopes.update(_split(plan, chain, ops.transpose(ordered, _inverse(axes)), ops))
    return tuple(slopes[k] for k in range(plan.shape.sites))


#: Axes of a chain ``(left, input, output, right)`` in the weight of each side: first what the product leaves (rows).
LAYOUTS: Mapping[Side, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "left": ((2, 3), (0, 1)),  # (J D_right) x (D_left I)
    "right": ((0, 2), (1, 3)),  # (D_left J) x (I D_right)
    "closing": ((2,), (0, 1, 3)),  # J x (D_left I D_right)
}
#: Axes of ``(left, input, output, right)`` among those of a product of two chains, ``(left, i1, j1, i2, j2, right)``.
PARTS = ((0,), (1, 3), (2, 4), (5,))
#: The exchange that turns a product into a chain, and itself back.
EXCHANGE = (0, 1, 3, 2, 4, 5)


def _layout(step: Step, *, merged: bool) -> tuple[int, ...]:
    """Axes of a group in the order of its step's weight; those of its last product if it is ``merged``."""
    rows, inner = LAYOUTS[step.side]
    axes = (*inner, *rows) if step.suffix == 1 else (*rows, *inner)
    return tuple(part for axis in axes for part in PARTS[axis]) if merged else axes


def _chain(plan: Plan, first: int, end: int, cores: Sequence[A], ops: Ops[A], *, whole: bool = True) -> Chain[A]:
    """The chain of the cores from ``first`` to before ``end``, in the cheapest order."""
    if end - first == 1:
        return Chain(first, end, (), cores[first])
    split = plan.splits[first, end]
    halves = _chain(plan, first, split, cores, ops), _chain(plan, split, end, cores, ops)
    chain = Chain(first, end, halves, None)
    if not whole:
        return chain
    ordered = ops.transpose(_product(plan, chain, ops), EXCHANGE)
    return Chain(first, end, halves, ops.reshape(ordered, _shape(plan, first, end)))


def _product(plan: Plan, chain: Chain[A], ops: Ops[A]) -> A:
    """The product of a chain's halves, ``(left, i1, j1, i2, j2, right)``."""
    return ops.reshape(ops.matmul(*_facing(plan, chain, ops)), _sizes(plan, chain))


def _facing(plan: Plan, chain: Chain[A], ops: Ops[A]) -> tuple[A, A]:
    """The halves as the matrices whose product merges them over the bond between."""
    left, right = chain.halves
    bond = plan.shape.bond_dims[left.end]
    ours, theirs = _shape(plan, left.first, left.end), _shape(plan, right.first, right.end)
    return (
        ops.reshape(left.core, (prod(ours[:3]), bond)),  # type: ignore[arg-type]
        ops.reshape(right.core, (bond, prod(theirs[1:]))),  # type: ignore[arg-type]
    )


def _split(plan: Plan, chain: Chain[A], slope: A, ops: Ops[A]) -> dict[int, A]:
    """Gradients of the cores of a chain from that of its product (of its core, where it is a single one)."""
    if not chain.halves:
        return {chain.first: ops.reshape(slope, plan.shape.core_shapes[chain.first])}
    a, b = _facing(plan, chain, ops)
    left, right = chain.halves
    outer = _shape(plan, left.first, left.end)[:3], _shape(plan, right.first, right.end)[1:]
    slope = ops.reshape(slope, (prod(outer[0]), prod(outer[1])))
    ours = ops.matmul(slope, ops.transpose(b, (1, 0)))
    theirs = ops.matmul(ops.transpose(a, (1, 0)), slope)
    return {**_apart(plan, left, ours, ops), **_apart(plan, right, theirs, ops)}


def _apart(plan: Plan, half: Chain[A], slope: A, ops: Ops[A]) -> dict[int, A]:
    """`_split` for a half, whose gradient is that of its core ``(left, i, j, right)``."""
    if half.halves:
        left, i1, j1, i2, j2, right = _sizes(plan, half)
        slope = ops.transpose(ops.reshape(slope, (left, i1, i2, j1, j2, right)), EXCHANGE)
    return _split(plan, half, slope, ops)


def _shape(plan: Plan, first: int, end: int) -> tuple[int, int, int, int]:
    """``(D_left, I, J, D_right)`` of the cores from ``first`` to before ``end``."""
    shape = plan.shape
    inputs, outputs = prod(shape.input_dims[first:end]), prod(shape.output_dims[first:end])
    return shape.bond_dims[first], inputs, outputs, shape.bond_dims[end]


def _sizes(plan: Plan, chain: Chain[A]) -> tuple[int, ...]:
    """Sizes of a chain's product ``(left, i1, j1, i2, j2, right)``; of the core of a single one."""
    if not chain.halves:
        return plan.shape.core_shapes[chain.first]
    left, right = (_shape(plan, half.first, half.end) for half in chain.halves)
    return (*left[:3], *right[1:])


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axes.index(k) for k in range(len(axes)))
