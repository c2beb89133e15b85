"""Runs a plan, and its backward, on any array library.

Reshape, transpose, products and sums, nothing else.

Backward computes the states again, tile by tile, so that nothing but the inputs is saved. By a plan
that saves states it takes those of the forward pass.  Either needs less memory than automatic
differentiation, which would keep ``(batch, M, K)`` arrays for a broadcast product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Self

from mponet.contraction.ops import A, ForwardOps, Ops
from mponet.contraction.program import BasePlan, Program
from mponet.contraction.rows import backward_rows, forward_rows, over_rows
from mponet.contraction.weights import merged, tensor_gradients, weights


@dataclass(frozen=True, slots=True)
class Saved(Generic[A]):
    """What a forward pass saves for the backward pass, beside its inputs and the tensors.

    Attributes:
        products: products of the tensors, in the order of the program; none are taken again.
        weights: of the steps.
        states: of the steps, but for the first where that is the inputs; none are computed again.
    """

    products: tuple[A, ...]
    weights: tuple[A, ...]
    states: tuple[A, ...] = ()

    @classmethod
    def of(cls, plan: BasePlan, arrays: Sequence[A]) -> Self:
        """What `arrays` gave for a plan; of a plan that saves no states the weights alone."""
        first = len(plan.program.products) if plan.saves_states else 0
        second = first + len(plan.steps)
        return cls(tuple(arrays[:first]), tuple(arrays[first:second]), tuple(arrays[second:]))

    @property
    def arrays(self) -> tuple[A, ...]:
        """All of it."""
        return self.products + self.weights + self.states


def forward(plan: BasePlan, tensors: Sequence[A], inputs: A, ops: ForwardOps[A], bias: A | None = None) -> A:
    """``inputs @ W + bias``.

    Args:
        plan: how.
        tensors: cores ``(D_{k-1}, I_k, J_k, D_k)``, or those of the nodes, of the dtype of
            ``inputs``.
        inputs: ``(batch, in_features)``; the caller has checked the width.
        ops: the array library.
        bias: ``(out_features,)``, of the dtype of ``inputs``; None for none.

    Returns:
        ``(batch, out_features)``.

    >>> import numpy as np
    >>> from mponet.contraction.plan import Plan
    >>> from mponet.operators.shape import MPOShape
    >>> from mponet_numpy.ops.arrays import OPS
    >>> plan = Plan(MPOShape.from_factors((2, 2), (2, 3), 2), (1, 1), (1, 0))
    >>> forward(plan, [np.ones((1, 2, 2, 2)), np.ones((2, 2, 3, 1))], np.ones((1, 4)), OPS)
    array([[8., 8., 8., 8., 8., 8.]])
    """
    return sweep(plan, weights_of(plan, tensors, ops), inputs, ops, bias)


def forward_saving(
    plan: BasePlan, tensors: Sequence[A], inputs: A, ops: ForwardOps[A], bias: A | None = None
) -> tuple[A, Saved[A] | None]:
    """`forward`, and what the plan saves for `backward`; None where it saves nothing."""
    if not plan.saves_states:
        return forward(plan, tensors, inputs, ops, bias), None
    program: Program = plan.program
    found = merged(program, tensors, ops)
    merged_weights = tuple(weights(program, found, ops))
    outputs, states = _swept(plan, merged_weights, inputs, ops, bias, saving=True)
    products = (found[number] for number in range(len(tensors), len(found)))
    return outputs, Saved(tuple(products), merged_weights, states)


def weights_of(plan: BasePlan, tensors: Sequence[A], ops: ForwardOps[A]) -> list[A]:
    """The weights of the plan's steps: all that `sweep` needs of the tensors."""
    return weights(plan.program, merged(plan.program, tensors, ops), ops)


def dense_matrix(plan: BasePlan, tensors: Sequence[A], ops: ForwardOps[A]) -> A:
    """``W``, ``(in_features, out_features)``, by a plan that rebuilds it."""
    program: Program = plan.program
    (matrix,) = weights_of(plan, tensors, ops)
    inputs, outputs = program.in_features, program.out_features
    if program.output_order is not None:
        matrix = ops.reshape(program.output_order.apply(matrix, inputs, ops), (inputs, outputs))
    if program.input_order is not None:
        matrix = ops.transpose(matrix, (1, 0))
        matrix = ops.reshape(program.input_order.undo(matrix, outputs, ops), (outputs, inputs))
        matrix = ops.transpose(matrix, (1, 0))
    return matrix


def sweep(plan: BasePlan, weights: Sequence[A], inputs: A, ops: ForwardOps[A], bias: A | None = None) -> A:
    """`forward` with given weights."""
    return _swept(plan, weights, inputs, ops, bias, saving=False)[0]


def _swept(
    plan: BasePlan, weights: Sequence[A], inputs: A, ops: ForwardOps[A], bias: A | None, *, saving: bool
) -> tuple[A, tuple[A, ...]]:
    """The outputs, and with ``saving`` the states."""
    program: Program = plan.program
    if plan.tile is None and _is_dense(program):
        return ops.linear(inputs, weights[0], bias), ()
    order = program.output_order
    if bias is not None and order is not None:
        bias = ops.reshape(order.undo(bias, 1, ops), (program.out_features,))
    if program.input_order is not None:
        inputs = _flat(program.input_order.apply(inputs, ops.batch_size(inputs), ops), inputs, program.in_features, ops)
    body = partial(forward_rows, program, weights, ops, bias, saving)
    (result, *states), _ = over_rows(plan.tile, body, (inputs,), (program.out_features,), ops)
    if order is not None:
        result = _flat(order.apply(result, ops.batch_size(inputs), ops), inputs, program.out_features, ops)
    return result, tuple(states)


def backward(
    plan: BasePlan,
    tensors: Sequence[A],
    inputs: A,
    gradient: A,
    ops: Ops[A],
    *,
    wrt_inputs: bool = True,
    saved: Saved[A] | None = None,
) -> tuple[A | None, tuple[A, ...]]:
    """Gradients of ``sum(gradient * forward(...))`` with respect to the inputs and to each tensor.

    Args:
        plan: how; where nothing is saved, it need not be the plan of the forward pass.
        tensors: as in `forward`.
        inputs: as in `forward`.
        gradient: ``(batch, out_features)``.
        ops: the array library.
        wrt_inputs: whether to compute the inputs' gradient (the first layer of a network has no use
            for it); it is None if not.
        saved: what the forward pass saved, if it did.
    """
    program: Program = plan.program
    # one step whose inputs need no gradient is one product with the inputs, and takes no weight
    missing = saved is None and (wrt_inputs or len(program.steps) > 1)
    if saved is not None and saved.products:
        found = dict(enumerate((*tensors, *saved.products)))
    else:
        found = merged(program, tensors, ops, final=missing)
    if saved is None:
        saved = Saved((), tuple(weights(program, found, ops)) if missing else ())
    batch = ops.batch_size(inputs)
    # inputs and outputs are transposed as a whole: a block is written to its place by a product
    # alone
    rows = inputs
    if program.input_order is not None:
        rows = _flat(program.input_order.apply(inputs, batch, ops), inputs, program.in_features, ops)
    if program.output_order is not None:
        gradient = _flat(program.output_order.undo(gradient, batch, ops), gradient, program.out_features, ops)
    tiled = plan.tile is not None
    body = partial(backward_rows, program, saved.weights, saved.states, ops, wrt_inputs, tiled)
    widths = (program.in_features,) if wrt_inputs else ()
    results, totals = over_rows(plan.tile, body, (rows, gradient), widths, ops)
    sums = [ops.finalize(total, inputs) for total in totals] if tiled else list(totals)
    by_tensors = tensor_gradients(program, found, sums, ops)
    if not wrt_inputs:
        return None, by_tensors
    if program.input_order is None:
        return results[0], by_tensors
    by_inputs = program.input_order.undo(results[0], batch, ops)
    return _flat(by_inputs, inputs, program.in_features, ops), by_tensors


def _is_dense(program: Program) -> bool:
    """Whether one plain matrix product is all that is left for the batch."""
    step = program.steps[0]
    return len(program.steps) == 1 and step.prefix == step.suffix == 1 and not program.orders and not step.transposition


def _flat(array: A, like: A, features: int, ops: ForwardOps[A]) -> A:
    """``(batch, features)`` again, with as many rows as ``like``."""
    return ops.reshape(array, (ops.batch_size(like), features))
