"""Runs a plan, and its backward, on any array library: reshape, transpose, products and sums - nothing else.

Forward saves nothing but its inputs; backward runs the sweep again, tile by tile.  Memory then is
that of a dense layer, where automatic differentiation through a broadcast product would keep
``(batch, M, K)`` arrays.
"""

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

from mponet.contraction import weights as merge
from mponet.contraction.ops import Body, Ops, Totals
from mponet.contraction.plan import Plan, Step

A = TypeVar("A")


def forward(plan: Plan, cores: Sequence[A], inputs: A, ops: Ops[A], bias: A | None = None) -> A:
    """``inputs @ W + bias``.

    Args:
        plan: how.
        cores: the cores, ``(D_{k-1}, I_k, J_k, D_k)`` each, of the dtype of ``inputs``.
        inputs: ``(batch, in_features)``; the caller has checked the width.
        ops: the array library.
        bias: ``(out_features,)``, of the dtype of ``inputs``; None for none.

    Returns:
        ``(batch, out_features)``.
    """
    return sweep(plan, weights_of(plan, cores, ops), inputs, ops, bias)


def weights_of(plan: Plan, cores: Sequence[A], ops: Ops[A]) -> list[A]:
    """The weights of the plan's steps, of which `sweep` makes use: all that a forward pass wants of the cores."""
    return merge.weights(plan, merge.chains(plan, cores, ops), ops)


def sweep(plan: Plan, weights: Sequence[A], inputs: A, ops: Ops[A], bias: A | None = None) -> A:
    """`forward` with the weights at hand."""
    if len(weights) == 1 and plan.tile is None:
        return ops.linear(inputs, weights[0], bias)
    body = partial(_ahead, plan, weights, ops, bias)
    return _over_rows(plan, body, (inputs,), (plan.shape.out_features,), ops)[0][0]


def backward(
    plan: Plan,
    cores: Sequence[A],
    inputs: A,
    gradient: A,
    ops: Ops[A],
    *,
    wrt_inputs: bool = True,
    weights: Sequence[A] | None = None,
) -> tuple[A | None, tuple[A, ...]]:
    """Gradients of ``sum(gradient * forward(...))`` with respect to the inputs and to each core.

    Args:
        plan: how; need not be the plan of the forward pass.
        cores: as in `forward`.
        inputs: as in `forward`.
        gradient: ``(batch, out_features)``.
        ops: the array library.
        wrt_inputs: whether the inputs' gradient is wanted (that of a network's first layer is not);
            None stands for it if not.
        weights: `weights_of` this plan and these cores, if they are still at hand.
    """
    # one group whose inputs need no gradient is one product with the inputs: no weight is needed at
    # all
    missing = weights is None and (wrt_inputs or len(plan.steps) > 1)
    chains = merge.chains(plan, cores, ops, final=missing)
    weights = merge.weights(plan, chains, ops) if missing else weights or []
    body = partial(_back, plan, weights, ops, wrt_inputs)
    widths = (plan.shape.in_features,) if wrt_inputs else ()
    input_slopes, totals = _over_rows(plan, body, (inputs, gradient), widths, ops)
    weight_slopes = [ops.finalize(total, inputs) for total in totals]
    return (input_slopes[0] if wrt_inputs else None), merge.core_gradients(plan, chains, weight_slopes, ops)


def _ahead(
    plan: Plan,
    weights: Sequence[A],
    ops: Ops[A],
    bias: A | None,
    blocks: tuple[A, ...],
    out: tuple[A | None, ...],
    totals: Totals[A] | None,
) -> tuple[tuple[A, ...], Totals[A]]:
    """The forward pass of a block of rows, a `mponet.contraction.ops.Body` once its first arguments are bound."""
    result = _sweep(plan, weights, blocks[0], ops, out[0])[-1]
    return (result if bias is None else ops.add(result, bias),), ()


def _back(
    plan: Plan,
    weights: Sequence[A],
    ops: Ops[A],
    wrt_inputs: bool,
    blocks: tuple[A, ...],
    out: tuple[A | None, ...],
    totals: Totals[A] | None,
) -> tuple[tuple[A, ...], Totals[A]]:
    """The backward pass of a block, its sweep run again; a gradient takes the memory of what it is the gradient of."""
    block, slope = blocks
    rows = ops.batch_size(block)
    states = _sweep(plan, weights, block, ops, last=False)
    sums: list[A] = []
    for k in reversed(range(len(states))):
        step, state = plan.steps[k], states.pop()
        slope = ops.reshape(slope, _state_shape(step, rows, step.rows))
        sums.append(_gathered(step, None if totals is None else totals[k], state, slope, ops))
        if k > 0:
            slope = _unturned(step, rows, _pull(step, weights[k], slope, ops, state), ops)
        elif wrt_inputs:
            place = None if step.turn else out[0]
            room = None if place is None else ops.reshape(place, _state_shape(step, rows, step.inner))
            slope = _unturned(step, rows, _pull(step, weights[k], slope, ops, room), ops)
    return ((ops.reshape(slope, (rows, plan.shape.in_features)),) if wrt_inputs else ()), tuple(reversed(sums))


def _over_rows(
    plan: Plan, body: Body[A], arrays: tuple[A, ...], widths: Sequence[int], ops: Ops[A]
) -> tuple[tuple[A, ...], Totals[A]]:
    if plan.tile is None or 0 <= ops.batch_size(arrays[0]) <= plan.tile:
        return body(arrays, (None,) * len(widths), None)
    return ops.map_tiles(body, arrays, widths, plan.tile)


def _sweep(
    plan: Plan, weights: Sequence[A], block: A, ops: Ops[A], out: A | None = None, *, last: bool = True
) -> list[A]:
    """The states before each step, and with ``last`` the result ``(batch, out_features)`` behind them."""
    rows = ops.batch_size(block)
    states = []
    state = block
    for k, step in enumerate(plan.steps):
        state = ops.reshape(_turned(step, rows, state, ops), _state_shape(step, rows, step.inner))
        states.append(state)
        room = None
        if step.side == "last":
            if not last:
                return states
            room = None if out is None else ops.reshape(out, _state_shape(step, rows, step.rows))
        state = ops.matmul(state, weights[k], room) if step.suffix == 1 else ops.matmul(weights[k], state, room)
    return [*states, ops.reshape(state, (rows, plan.shape.out_features))]


def _state_shape(step: Step, rows: int, size: int) -> tuple[int, ...]:
    """Shape of a step's state (``size`` = inner) or result (``size`` = rows) for a batch of ``rows``."""
    prefix = rows * step.prefix if rows >= 0 else -1  # explicit sizes keep empty batches legal
    return (prefix, size) if step.suffix == 1 else (prefix, size, step.suffix)


def _turned(step: Step, rows: int, state: A, ops: Ops[A]) -> A:
    """What a step of a turned plan takes, ``(batch * .., J, rest, D, I)``; of others the state as it is."""
    if step.turn is None:
        return state
    return ops.transpose(ops.reshape(state, (_behind(step, rows), *step.turn)), (0, 3, 2, 4, 1))


def _unturned(step: Step, rows: int, slope: A, ops: Ops[A]) -> A:
    """The gradient of a state laid out as the state came: `_turned` backwards."""
    if step.turn is None:
        return slope
    i, rest, before, bond = step.turn
    return ops.transpose(ops.reshape(slope, (_behind(step, rows), before, rest, bond, i)), (0, 4, 2, 1, 3))


def _behind(step: Step, rows: int) -> int:
    """Length of the axis that a turn leaves in its place: rows, with the outputs done before the last step."""
    if step.turn is None or rows < 0:
        return -1
    _, rest, before, _ = step.turn
    return rows * step.prefix // (rest * before)


def _pull(step: Step, weight: A, slope: A, ops: Ops[A], out: A | None) -> A:
    """The gradient of a step's state from that of its result."""
    turned = ops.transpose(weight, (1, 0))
    return ops.matmul(slope, turned, out) if step.suffix == 1 else ops.matmul(turned, slope, out)


def _gathered(step: Step, total: A | None, state: A, slope: A, ops: Ops[A]) -> A:
    """The sum of a step's weight gradient with that of a block added."""
    return (
        ops.accumulate_gradient(total, state, slope)
        if step.suffix == 1
        else ops.accumulate_gradient(total, slope, state)
    )
