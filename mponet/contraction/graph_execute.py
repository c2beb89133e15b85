"""Runs a pairwise plan, and its backward, on any array library: as `mponet.contraction.execute` does for a chain.

Forward saves nothing but its inputs; backward leads the batch through the weights again, tile by
tile.
"""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import TypeVar

from mponet.contraction.graph_plan import GraphPlan
from mponet.contraction.graph_steps import Axes, BatchStep, Unfolding, inverse
from mponet.contraction.ops import Body, Ops, Totals

A = TypeVar("A")


def forward(plan: GraphPlan, tensors: Sequence[A], inputs: A, ops: Ops[A], bias: A | None = None) -> A:
    """``inputs @ W + bias``.

    Args:
        plan: how.
        tensors: the nodes', in the order of the wiring, of the dtype of ``inputs``.
        inputs: ``(batch, in_features)``; the caller has checked the width.
        ops: the array library.
        bias: ``(out_features,)``, of the dtype of ``inputs``; None for none.

    Returns:
        ``(batch, out_features)``.
    """
    wiring = plan.wiring
    weights = _weights(plan, _products(plan, tensors, ops), ops)
    rows = _turned(inputs, wiring.input_dims, plan.entry, ops)
    if bias is not None and plan.exit is not None:
        ordered = ops.transpose(ops.reshape(bias, wiring.output_dims), inverse(plan.exit))
        bias = ops.reshape(ordered, (wiring.out_features,))
    body = partial(_ahead, plan, weights, ops, bias)
    result = _over_rows(plan, body, (rows,), (wiring.out_features,), ops)[0][0]
    return _turned(result, plan.out_sizes, plan.exit, ops)


def backward(
    plan: GraphPlan, tensors: Sequence[A], inputs: A, gradient: A, ops: Ops[A], *, wrt_inputs: bool = True
) -> tuple[A | None, tuple[A, ...]]:
    """Gradients of ``sum(gradient * forward(...))`` with respect to the inputs and to each node.

    Args:
        plan: how; need not be the plan of the forward pass.
        tensors: as in `forward`.
        inputs: as in `forward`.
        gradient: ``(batch, out_features)``.
        ops: the array library.
        wrt_inputs: whether the inputs' gradient is wanted; None stands for it if not.
    """
    wiring = plan.wiring
    products = _products(plan, tensors, ops)
    # transposed as a whole, because a block is written to its place by a product and by nothing
    # else
    rows = _turned(inputs, wiring.input_dims, plan.entry, ops)
    slope = _turned(gradient, wiring.output_dims, None if plan.exit is None else inverse(plan.exit), ops)
    body = partial(_back, plan, _weights(plan, products, ops), ops, wrt_inputs)
    widths = (wiring.in_features,) if wrt_inputs else ()
    results, totals = _over_rows(plan, body, (rows, slope), widths, ops)
    slopes = _node_slopes(plan, products, [ops.finalize(total, inputs) for total in totals], ops)
    if not wrt_inputs:
        return None, slopes
    if plan.entry is None:
        return results[0], slopes
    sizes = tuple(wiring.input_dims[axis] for axis in plan.entry)
    return _turned(results[0], sizes, inverse(plan.entry), ops), slopes


def _products(plan: GraphPlan, tensors: Sequence[A], ops: Ops[A]) -> list[A]:
    """The nodes and every product of weights, by number."""
    found = list(tensors)
    for pair in plan.pairs:
        a, b = _matrix(found[pair.left], pair.left_facing, ops), _matrix(found[pair.right], pair.right_facing, ops)
        found.append(ops.reshape(ops.matmul(a, b), pair.shape))
    return found


def _weights(plan: GraphPlan, products: Sequence[A], ops: Ops[A]) -> list[A]:
    return [_matrix(products[step.weight], step.facing, ops) for step in plan.passages]


def _node_slopes(plan: GraphPlan, products: Sequence[A], weight_slopes: Sequence[A], ops: Ops[A]) -> tuple[A, ...]:
    """Gradients of the nodes from those of the weights: `_products` and `_weights` backwards."""
    slopes = {
        step.weight: _tensor(slope, step.facing, ops) for step, slope in zip(plan.passages, weight_slopes, strict=True)
    }
    nodes = len(plan.wiring.names)
    for number in reversed(range(len(plan.pairs))):
        pair = plan.pairs[number]
        a = _matrix(products[pair.left], pair.left_facing, ops)
        b = _matrix(products[pair.right], pair.right_facing, ops)
        slope = ops.reshape(slopes[nodes + number], (pair.left_facing.shape[0], pair.right_facing.shape[1]))
        slopes[pair.left] = _tensor(ops.matmul(slope, ops.transpose(b, (1, 0))), pair.left_facing, ops)
        slopes[pair.right] = _tensor(ops.matmul(ops.transpose(a, (1, 0)), slope), pair.right_facing, ops)
    return tuple(ops.reshape(slopes[k], sizes) for k, sizes in enumerate(plan.wiring.sizes))


def _matrix(tensor: A, facing: Unfolding, ops: Ops[A]) -> A:
    return ops.reshape(tensor if facing.axes is None else ops.transpose(tensor, facing.axes), facing.shape)


def _tensor(matrix: A, facing: Unfolding, ops: Ops[A]) -> A:
    ordered = ops.reshape(matrix, facing.sizes)
    return ordered if facing.inverse is None else ops.transpose(ordered, facing.inverse)


def _ahead(
    plan: GraphPlan,
    weights: Sequence[A],
    ops: Ops[A],
    bias: A | None,
    blocks: tuple[A, ...],
    out: tuple[A | None, ...],
    totals: Totals[A] | None,
) -> tuple[tuple[A, ...], Totals[A]]:
    """The forward pass of a block of rows, a `mponet.contraction.ops.Body` once its first arguments are bound."""
    rows, last = ops.batch_size(blocks[0]), plan.passages[-1]
    state = _states(plan, weights, blocks[0], ops)[-1]
    room = None if out[0] is None else ops.reshape(out[0], _shape(last, rows, last.rows))
    result = ops.reshape(_led(last, weights[-1], state, ops, room), (rows, plan.wiring.out_features))
    return (result if bias is None else ops.add(result, bias),), ()


def _back(
    plan: GraphPlan,
    weights: Sequence[A],
    ops: Ops[A],
    wrt_inputs: bool,
    blocks: tuple[A, ...],
    out: tuple[A | None, ...],
    totals: Totals[A] | None,
) -> tuple[tuple[A, ...], Totals[A]]:
    """The backward pass of a block, the batch led through again; a gradient takes the memory of what it belongs to."""
    block, slope = blocks
    rows = ops.batch_size(block)
    states = _states(plan, weights, block, ops)
    sums: list[A] = []
    for k in reversed(range(len(states))):
        step, state = plan.passages[k], states.pop()
        slope = ops.reshape(slope, _shape(step, rows, step.rows))
        total = None if totals is None else totals[k]
        one, other = (state, slope) if step.suffix == 1 else (slope, state)
        sums.append(ops.accumulate_gradient(total, one, other))
        if k > 0:
            slope = _pulled(step, weights[k], slope, ops, state)
            if step.turn is not None:
                slope = _turned(slope, step.transposed_sizes, inverse(step.turn), ops, rows)
        elif wrt_inputs:
            room = None if out[0] is None else ops.reshape(out[0], _shape(step, rows, step.inner))
            slope = _pulled(step, weights[k], slope, ops, room)
    return ((ops.reshape(slope, (rows, plan.wiring.in_features)),) if wrt_inputs else ()), tuple(reversed(sums))


def _states(plan: GraphPlan, weights: Sequence[A], block: A, ops: Ops[A]) -> list[A]:
    """What each step multiplies its weight with."""
    rows, states, state = ops.batch_size(block), [], block
    for k, step in enumerate(plan.passages):
        if k > 0:
            state = _led(plan.passages[k - 1], weights[k - 1], state, ops)
        if step.turn is not None:
            state = _turned(state, step.sizes, step.turn, ops, rows)
        state = ops.reshape(state, _shape(step, rows, step.inner))
        states.append(state)
    return states


def _over_rows(
    plan: GraphPlan, body: Body[A], arrays: tuple[A, ...], widths: Sequence[int], ops: Ops[A]
) -> tuple[tuple[A, ...], Totals[A]]:
    if plan.tile is None or 0 <= ops.batch_size(arrays[0]) <= plan.tile:
        return body(arrays, (None,) * len(widths), None)
    return ops.map_tiles(body, arrays, widths, plan.tile)


def _turned(array: A, sizes: Axes, axes: Axes | None, ops: Ops[A], rows: int | None = None) -> A:
    """``(batch, prod(sizes))`` in whatever shape, the axes behind the batch in another order."""
    if axes is None:
        return array
    rows = ops.batch_size(array) if rows is None else rows
    ordered = ops.transpose(ops.reshape(array, (rows, *sizes)), (0, *(axis + 1 for axis in axes)))
    return ops.reshape(ordered, (rows, prod(sizes)))


def _shape(step: BatchStep, rows: int, size: int) -> tuple[int, ...]:
    """Shape of a step's state (``size`` = inner) or result (``size`` = rows) for a batch of ``rows``."""
    prefix = rows * step.prefix if rows >= 0 else -1  # explicit sizes keep empty batches legal
    return (prefix, size) if step.suffix == 1 else (prefix, size, step.suffix)


def _led(step: BatchStep, weight: A, state: A, ops: Ops[A], out: A | None = None) -> A:
    return ops.matmul(state, weight, out) if step.suffix == 1 else ops.matmul(weight, state, out)


def _pulled(step: BatchStep, weight: A, slope: A, ops: Ops[A], out: A | None) -> A:
    """The gradient of a step's state from that of its result."""
    turned = ops.transpose(weight, (1, 0))
    return ops.matmul(slope, turned, out) if step.suffix == 1 else ops.matmul(turned, slope, out)
