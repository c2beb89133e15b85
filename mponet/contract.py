"""Runs a plan, and its backward, on any array library: reshape, transpose, matmul - nothing else.

Forward saves nothing but its inputs; backward runs the sweep again, tile by tile.  Memory then is that of a dense
layer, where automatic differentiation through a broadcast product would keep ``(batch, M, K)`` arrays.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Generic, Protocol, TypeVar

from mponet.plan import Plan, Side, Step

A = TypeVar("A")
#: Blocks of rows to (what has those rows, what is summed over all rows).
Body = Callable[..., tuple[tuple[A, ...], tuple[A, ...]]]


class Ops(Protocol[A]):
    """What an array library has to offer."""

    def reshape(self, array: A, shape: tuple[int, ...]) -> A:
        """The array with another shape, row-major; one size may be -1."""

    def transpose(self, array: A, axes: tuple[int, ...]) -> A:
        """The array with its axes in another order."""

    def matmul(self, a: A, b: A) -> A:
        """``(m, k) @ (k, n)``, or ``(m, k) @ (p, k, n) -> (p, m, n)``."""

    def rows(self, array: A) -> int:
        """Length of the first axis; -1 while it is not known."""

    def tiled(self, body: Body[A], arrays: tuple[A, ...], tile: int) -> tuple[tuple[A, ...], tuple[A, ...]]:
        """``body`` over blocks of ``tile`` rows, the last may be shorter: row results joined, sums added up."""


def forward(plan: Plan, cores: Sequence[A], inputs: A, ops: Ops[A]) -> A:
    """``inputs @ W``.

    Args:
        plan: how.
        cores: the cores, ``(D_{k-1}, I_k, J_k, D_k)`` each, of the dtype of ``inputs``.
        inputs: ``(batch, in_features)``; the caller has checked the width.
        ops: the array library.

    Returns:
        ``(batch, out_features)``.
    """
    weights = _weights(plan, cores, _groups(plan, cores, ops), ops)

    def body(block: A) -> tuple[tuple[A, ...], tuple[A, ...]]:
        return (_sweep(plan, weights, block, ops)[-1],), ()

    return _over_rows(plan, body, (inputs,), ops)[0][0]


def backward(
    plan: Plan, cores: Sequence[A], inputs: A, gradient: A, ops: Ops[A], *, wrt_inputs: bool = True
) -> tuple[A | None, tuple[A, ...]]:
    """Gradients of ``sum(gradient * forward(...))`` with respect to the inputs and to each core.

    Args:
        plan: how; need not be the plan of the forward pass.
        cores: as in `forward`.
        inputs: as in `forward`.
        gradient: ``(batch, out_features)``.
        ops: the array library.
        wrt_inputs: whether the inputs' gradient is wanted (that of a network's first layer is not); None stands for it
            if not.
    """
    # one group whose inputs need no gradient is one product with the inputs: no weight is needed at all
    halves = _groups(plan, cores, ops)
    weights = _weights(plan, cores, halves, ops) if wrt_inputs or len(plan.steps) > 1 else []

    def body(block: A, slope: A) -> tuple[tuple[A, ...], tuple[A, ...]]:
        rows = ops.rows(block)
        states = _sweep(plan, weights, block, ops, last=False)
        slopes: list[A] = []
        for k in reversed(range(len(states))):
            step = plan.steps[k]
            slope = ops.reshape(slope, _state_shape(step, rows, step.rows))
            slopes.insert(0, _weight_slope(step, rows, states[k], slope, ops))
            if wrt_inputs or k > 0:
                slope = _pull(step, weights[k], slope, ops)
        return ((ops.reshape(slope, (rows, plan.shape.in_features)),) if wrt_inputs else ()), tuple(slopes)

    input_slopes, weight_slopes = _over_rows(plan, body, (inputs, gradient), ops)
    return (input_slopes[0] if wrt_inputs else None), _core_slopes(plan, halves, weight_slopes, ops)


def _over_rows(plan: Plan, body: Body[A], arrays: tuple[A, ...], ops: Ops[A]) -> tuple[tuple[A, ...], tuple[A, ...]]:
    if plan.tile is None or 0 <= ops.rows(arrays[0]) <= plan.tile:
        return body(*arrays)
    return ops.tiled(body, arrays, plan.tile)


def _sweep(plan: Plan, weights: Sequence[A], block: A, ops: Ops[A], *, last: bool = True) -> list[A]:
    """The states before each step, and with ``last`` the result ``(batch, out_features)`` behind them."""
    rows = ops.rows(block)
    states = []
    state = block
    for k, step in enumerate(plan.steps):
        state = ops.reshape(state, _state_shape(step, rows, step.inner))
        states.append(state)
        if step.side == "closing" and not last:
            return states
        weight = weights[k]
        state = ops.matmul(state, ops.transpose(weight, (1, 0))) if step.suffix == 1 else ops.matmul(weight, state)
    return [*states, ops.reshape(state, (rows, plan.shape.out_features))]


def _state_shape(step: Step, rows: int, size: int) -> tuple[int, ...]:
    """Shape of a step's state (``size`` = inner) or result (``size`` = rows) for a batch of ``rows``."""
    prefix = _times(rows, step.prefix)
    return (prefix, size) if step.suffix == 1 else (prefix, size, step.suffix)


def _times(rows: int, factor: int) -> int:
    """``rows * factor``, staying -1 while the batch is not known; explicit sizes keep empty batches legal."""
    return rows * factor if rows >= 0 else -1


def _pull(step: Step, weight: A, slope: A, ops: Ops[A]) -> A:
    """The gradient of a step's state from that of its result."""
    return ops.matmul(slope, weight) if step.suffix == 1 else ops.matmul(ops.transpose(weight, (1, 0)), slope)


def _weight_slope(step: Step, rows: int, state: A, slope: A, ops: Ops[A]) -> A:
    """The gradient of a step's weight, ``(rows, inner)``, summed over everything else by one product."""
    if step.suffix == 1:
        return ops.matmul(ops.transpose(slope, (1, 0)), state)
    length = _times(rows, step.prefix * step.suffix)
    across = ops.reshape(ops.transpose(slope, (1, 0, 2)), (step.rows, length))
    down = ops.reshape(ops.transpose(state, (0, 2, 1)), (length, step.inner))
    return ops.matmul(across, down)


@dataclass(frozen=True, slots=True)
class _Chain(Generic[A]):
    """Neighbouring cores as one: the products that made it form a tree.

    Attributes:
        core: ``(D_first, i1 j1 .. ik jk, D_end)``, in whatever shape its last product left it.
        halves: the two chains that it is the product of; none for a single core.
    """

    core: A
    halves: "tuple[_Chain[A], ...]" = ()


#: Axes of a merged core ``(left, input, output, right)`` in the order of each side's weight matrix: its rows first.
LAYOUTS: dict[Side, tuple[int, int, int, int]] = {
    "left": (2, 3, 0, 1),  # (J D_right) x (D_left I)
    "right": (0, 2, 1, 3),  # (D_left J) x (I D_right)
    "closing": (2, 0, 1, 3),  # J x (D_left I D_right)
}


def _weights(plan: Plan, cores: Sequence[A], halves: Mapping[int, tuple[_Chain[A], ...]], ops: Ops[A]) -> list[A]:
    """Each step's weight matrix ``(rows, inner)``: cores merged into groups, axes ordered for the step's side."""
    weights = []
    for step in plan.steps:
        sizes, axes = _layout(plan, step)
        first, end = plan.spans[step.group]
        pair = halves[step.group]
        chain = _joined(plan, plan.splits[first, end], pair, ops) if pair else cores[first]
        weights.append(ops.reshape(ops.transpose(ops.reshape(chain, sizes), axes), (step.rows, step.inner)))
    return weights


def _groups(plan: Plan, cores: Sequence[A], ops: Ops[A]) -> dict[int, tuple[_Chain[A], ...]]:
    """Each group merged but for its last product, which the backward pass of a single group may not need."""
    return {group: _halves(plan, *span, cores, ops) for group, span in enumerate(plan.spans)}


def _layout(plan: Plan, step: Step) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes ``(left, i1, j1, i2, j2, .., right)`` of the chain of a step's group, and their order in the weight."""
    first, end = plan.spans[step.group]
    shapes = plan.shape.core_shapes[first:end]
    sizes = (shapes[0][0], *(size for shape in shapes for size in shape[1:3]), shapes[-1][3])
    last = len(sizes) - 1
    parts = ((0,), tuple(range(1, last, 2)), tuple(range(2, last, 2)), (last,))  # left, inputs, outputs, right
    return sizes, tuple(axis for part in LAYOUTS[step.side] for axis in parts[part])


def _chain(plan: Plan, first: int, end: int, cores: Sequence[A], ops: Ops[A]) -> _Chain[A]:
    """The chain of the cores from ``first`` to before ``end``, in the cheapest order."""
    halves = _halves(plan, first, end, cores, ops)
    if not halves:
        return _Chain(cores[first])
    return _Chain(_joined(plan, plan.splits[first, end], halves, ops), halves)


def _halves(plan: Plan, first: int, end: int, cores: Sequence[A], ops: Ops[A]) -> tuple[_Chain[A], ...]:
    """The two chains that a chain is the product of; none for a single core."""
    if end - first == 1:
        return ()
    split = plan.splits[first, end]
    return _chain(plan, first, split, cores, ops), _chain(plan, split, end, cores, ops)


def _joined(plan: Plan, split: int, halves: tuple[_Chain[A], ...], ops: Ops[A]) -> A:
    return ops.matmul(*_facing(plan, split, halves, ops))


def _facing(plan: Plan, split: int, halves: tuple[_Chain[A], ...], ops: Ops[A]) -> tuple[A, A]:
    """Two chains as the matrices whose product merges them over the bond at ``split``."""
    bond, (left, right) = plan.shape.bond_dims[split], halves
    return ops.reshape(left.core, (-1, bond)), ops.reshape(right.core, (bond, -1))


def _core_slopes(
    plan: Plan, halves: Mapping[int, tuple[_Chain[A], ...]], weight_slopes: Sequence[A], ops: Ops[A]
) -> tuple[A, ...]:
    """Gradients of the cores from those of the weight matrices: `_weights` backwards."""
    slopes: dict[int, A] = {}
    for step, weight_slope in zip(plan.steps, weight_slopes, strict=True):
        sizes, axes = _layout(plan, step)
        ordered = ops.reshape(weight_slope, tuple(sizes[axis] for axis in axes))
        span = plan.spans[step.group]
        slopes.update(_split(plan, *span, halves[step.group], ops.transpose(ordered, _inverse(axes)), ops))
    return tuple(slopes[k] for k in range(plan.shape.sites))


def _split(plan: Plan, first: int, end: int, halves: tuple[_Chain[A], ...], slope: A, ops: Ops[A]) -> dict[int, A]:
    """Gradients of the cores of a chain from that of the chain: `_chain` backwards."""
    if end - first == 1:
        return {first: ops.reshape(slope, plan.shape.core_shapes[first])}
    split = plan.splits[first, end]
    a, b = _facing(plan, split, halves, ops)
    rows = prod(plan.shape.site_sizes[first:split]) * plan.shape.bond_dims[first]
    slope = ops.reshape(slope, (rows, -1))
    ours, theirs = ops.matmul(slope, ops.transpose(b, (1, 0))), ops.matmul(ops.transpose(a, (1, 0)), slope)
    left, right = (half.halves for half in halves)
    return {**_split(plan, first, split, left, ours, ops), **_split(plan, split, end, right, theirs, ops)}


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axes.index(k) for k in range(len(axes)))
