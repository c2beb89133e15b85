"""Runs a plan, and its backward, on any array library: reshape, transpose, matmul - nothing else.

Forward saves nothing but its inputs; backward runs the sweep again, tile by tile.  Memory then is that of a dense
layer, where automatic differentiation through a broadcast product would keep ``(batch, M, K)`` arrays.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

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
    weights = _weights(plan, cores, ops)

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
    weights = _weights(plan, cores, ops) if wrt_inputs or len(plan.steps) > 1 else []

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
    return (input_slopes[0] if wrt_inputs else None), _core_slopes(plan, cores, weight_slopes, ops)


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


#: Axes of a merged core ``(left, input, output, right)`` in the order of each side's weight matrix: its rows first.
LAYOUTS: dict[Side, tuple[int, int, int, int]] = {
    "left": (2, 3, 0, 1),  # (J D_right) x (D_left I)
    "right": (0, 2, 1, 3),  # (D_left J) x (I D_right)
    "closing": (2, 0, 1, 3),  # J x (D_left I D_right)
}


def _weights(plan: Plan, cores: Sequence[A], ops: Ops[A]) -> list[A]:
    """Each step's weight matrix ``(rows, inner)``: cores merged into groups, axes ordered for the step's side."""
    weights = []
    for step in plan.steps:
        sizes, axes = _layout(plan, step)
        chain = _chains(plan, *plan.spans[step.group], cores, ops)[-1]
        weights.append(ops.reshape(ops.transpose(ops.reshape(chain, sizes), axes), (step.rows, step.inner)))
    return weights


def _layout(plan: Plan, step: Step) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes ``(left, i1, j1, i2, j2, .., right)`` of the chain of a step's group, and their order in the weight."""
    first, end = plan.spans[step.group]
    shapes = plan.shape.core_shapes[first:end]
    sizes = (shapes[0][0], *(size for shape in shapes for size in shape[1:3]), shapes[-1][3])
    last = len(sizes) - 1
    parts = ((0,), tuple(range(1, last, 2)), tuple(range(2, last, 2)), (last,))  # left, inputs, outputs, right
    return sizes, tuple(axis for part in LAYOUTS[step.side] for axis in parts[part])


def _chains(plan: Plan, first: int, end: int, cores: Sequence[A], ops: Ops[A]) -> list[A]:
    """Partial products ``(left i1 j1 .. ik jk, D_k)`` of neighbouring cores, the full one last."""
    shapes = plan.shape.core_shapes
    chains = [ops.reshape(cores[first], (-1, shapes[first][3]))]
    for k in range(first + 1, end):
        joined = ops.matmul(chains[-1], ops.reshape(cores[k], (shapes[k][0], -1)))
        chains.append(ops.reshape(joined, (-1, shapes[k][3])))
    return chains


def _core_slopes(plan: Plan, cores: Sequence[A], weight_slopes: Sequence[A], ops: Ops[A]) -> tuple[A, ...]:
    """Gradients of the cores from those of the weight matrices: `_weights` backwards."""
    slopes: dict[int, A] = {}
    for step, weight_slope in zip(plan.steps, weight_slopes, strict=True):
        sizes, axes = _layout(plan, step)
        ordered = ops.reshape(weight_slope, tuple(sizes[axis] for axis in axes))
        slopes.update(_split(plan, step.group, cores, ops.transpose(ordered, _inverse(axes)), ops))
    return tuple(slopes[k] for k in range(plan.shape.sites))


def _split(plan: Plan, group: int, cores: Sequence[A], slope: A, ops: Ops[A]) -> dict[int, A]:
    """Gradients of the cores of a group from that of their chain: `_chains` backwards."""
    (first, end), shapes = plan.spans[group], plan.shape.core_shapes
    chains = _chains(plan, first, end - 1, cores, ops) if end - first > 1 else []
    slopes = {}
    for k in range(end - 1, first, -1):
        left, i, j, right = shapes[k]
        slope = ops.reshape(slope, (-1, i * j * right))
        slopes[k] = ops.reshape(ops.matmul(ops.transpose(chains[k - 1 - first], (1, 0)), slope), shapes[k])
        slope = ops.matmul(slope, ops.transpose(ops.reshape(cores[k], (left, i * j * right)), (1, 0)))
    return {**slopes, first: ops.reshape(slope, shapes[first])}


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axes.index(k) for k in range(len(axes)))
