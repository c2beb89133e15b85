"""Run the steps of a program on blocks of rows of the batch, forward and backward."""

from collections.abc import Sequence

from mponet.contraction.ops import A, Body, ForwardOps, Ops, Totals
from mponet.contraction.program import Program, Step


def over_rows(
    tile: int | None, body: Body[A], arrays: tuple[A, ...], widths: Sequence[int], ops: ForwardOps[A]
) -> tuple[tuple[A, ...], Totals[A]]:
    """``body`` over all rows at once, or over blocks of ``tile`` rows where there are more."""
    if tile is None or 0 <= ops.batch_size(arrays[0]) <= tile:
        return body(arrays, (None,) * len(widths), None)
    return ops.map_tiles(body, arrays, widths, tile)


def forward_rows(
    program: Program,
    weights: Sequence[A],
    ops: ForwardOps[A],
    bias: A | None,
    blocks: tuple[A, ...],
    out: tuple[A | None, ...],
    totals: Totals[A] | None,
) -> tuple[tuple[A, ...], Totals[A]]:
    """The forward pass of a block.

    A `mponet.contraction.ops.Body` once its first arguments are bound.
    """
    rows, last = ops.batch_size(blocks[0]), program.steps[-1]
    state = _states(program, weights, blocks[0], ops)[-1]
    place = None if out[0] is None else ops.reshape(out[0], _state_shape(last, rows, last.rows))
    result = ops.reshape(_product(last, weights[-1], state, ops, place), (rows, program.out_features))
    return (result if bias is None else ops.add(result, bias),), ()


def backward_rows(
    program: Program,
    weights: Sequence[A],
    ops: Ops[A],
    wrt_inputs: bool,
    blocks: tuple[A, ...],
    out: tuple[A | None, ...],
    totals: Totals[A] | None,
) -> tuple[tuple[A, ...], Totals[A]]:
    """The backward pass of a block, its states computed again.

    The gradient of a state takes the state's memory.
    """
    block, gradient = blocks
    rows = ops.batch_size(block)
    states = _states(program, weights, block, ops)
    sums: list[A] = []
    for k in reversed(range(len(states))):
        step, state = program.steps[k], states.pop()
        gradient = ops.reshape(gradient, _state_shape(step, rows, step.rows))
        a, b = (state, gradient) if step.suffix == 1 else (gradient, state)
        sums.append(ops.accumulate_gradient(None if totals is None else totals[k], a, b))
        if k == 0 and not wrt_inputs:
            break
        place: A | None = state
        if k == 0:  # the first state is the caller's array; its gradient goes straight to the result
            direct = out[0] is not None and step.transposition is None
            place = ops.reshape(out[0], _state_shape(step, rows, step.inner)) if direct else None  # type: ignore[arg-type]
        gradient = _pull_back(step, weights[k], gradient, ops, place)
        if step.transposition is not None:
            gradient = step.transposition.undo(gradient, rows, ops)
    return (
        ((ops.reshape(gradient, (rows, program.in_features)),) if wrt_inputs else ()),
        tuple(reversed(sums)),
    )


def _states(program: Program, weights: Sequence[A], block: A, ops: ForwardOps[A]) -> list[A]:
    """What each step multiplies its weight with."""
    rows, state = ops.batch_size(block), block
    states: list[A] = []
    for k, step in enumerate(program.steps):
        if k > 0:
            state = _product(program.steps[k - 1], weights[k - 1], state, ops)
        if step.transposition is not None:
            state = step.transposition.apply(state, rows, ops)
        state = ops.reshape(state, _state_shape(step, rows, step.inner))
        states.append(state)
    return states


def _state_shape(step: Step, rows: int, size: int) -> tuple[int, ...]:
    """Shape of a step's state (``size`` = inner) or result (``size`` = rows).

    ``rows`` is the size of the batch.
    """
    prefix = rows * step.prefix if rows >= 0 else -1  # explicit sizes keep empty batches legal
    return (prefix, size) if step.suffix == 1 else (prefix, size, step.suffix)


def _product(step: Step, weight: A, state: A, ops: ForwardOps[A], out: A | None = None) -> A:
    return ops.matmul(state, weight, out) if step.suffix == 1 else ops.matmul(weight, state, out)


def _pull_back(step: Step, weight: A, gradient: A, ops: Ops[A], out: A | None) -> A:
    """The gradient of a step's state from that of its result."""
    transposed = ops.transpose(weight, (1, 0))
    return ops.matmul(gradient, transposed, out) if step.suffix == 1 else ops.matmul(transposed, gradient, out)
