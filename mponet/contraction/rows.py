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
    saving: bool,
    blocks: tuple[A, ...],
    out: tuple[A | None, ...],
    totals: Totals[A] | None,
) -> tuple[tuple[A, ...], Totals[A]]:
    """The forward pass of a block, and with ``saving`` all states that are not the inputs.

    A `mponet.contraction.ops.Body` once its first arguments are bound.
    """
    rows, last = ops.batch_size(blocks[0]), program.steps[-1]
    states = _states(program.steps, weights, blocks[0], ops)
    place = None if out[0] is None else ops.reshape(out[0], _state_shape(last, rows, last.rows))
    result = ops.reshape(_product(last, weights[-1], states[-1], ops, place), (rows, program.out_features))
    made = states if program.steps[0].transposition is not None else states[1:]  # the first may be the inputs
    return (result if bias is None else ops.add(result, bias), *(made if saving else ())), ()


def backward_rows(
    program: Program,
    weights: Sequence[A],
    saved: Sequence[A],
    ops: Ops[A],
    wrt_inputs: bool,
    tiled: bool,
    blocks: tuple[A, ...],
    out: tuple[A | None, ...],
    totals: Totals[A] | None,
) -> tuple[tuple[A, ...], Totals[A]]:
    """The backward pass of a block; states that are not ``saved`` are computed again.

    The gradient of a state takes the state's memory, unless the state is saved.
    """
    block, gradient = blocks
    rows = ops.batch_size(block)
    missing = program.steps[: len(program.steps) - len(saved)]
    states = [*_states(missing, weights, block, ops), *saved]
    sums: list[A] = []
    for k in reversed(range(len(states))):
        step, state = program.steps[k], states.pop()
        gradient = ops.reshape(gradient, _state_shape(step, rows, step.rows))
        a, b = (state, gradient) if step.suffix == 1 else (gradient, state)
        total = ops.accumulate_gradient(None if totals is None else totals[k], a, b)
        # a sum that is complete takes less memory than one that goes on
        sums.append(total if tiled else ops.finalize(total, block))
        if k == 0 and not wrt_inputs:
            break
        place = ops.spare(state, k % 2) if saved and k > 0 else state
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


def _states(steps: Sequence[Step], weights: Sequence[A], block: A, ops: ForwardOps[A]) -> list[A]:
    """What each of the first steps multiplies its weight with."""
    rows, state = ops.batch_size(block), block
    states: list[A] = []
    for k, step in enumerate(steps):
        if k > 0:
            state = _product(steps[k - 1], weights[k - 1], state, ops)
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
