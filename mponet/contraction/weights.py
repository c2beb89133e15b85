"""Tensors to the weights of a plan's steps, and the weights' gradients back to the tensors."""

from collections.abc import Mapping, Sequence

from mponet.contraction.ops import A, ForwardOps
from mponet.contraction.program import Program, Unfolding, WeightProduct


def merged(program: Program, tensors: Sequence[A], ops: ForwardOps[A], *, final: bool = True) -> dict[int, A]:
    """The tensors and every product of them by its number.

    Without ``final`` only what others are made of.
    """
    found = dict(enumerate(tensors))
    for number, product in enumerate(program.products, start=len(tensors)):
        if final or not product.final:
            a, b = _operands(product, found, ops)
            result = product.result
            if result.axes is None:
                found[number] = ops.reshape(ops.matmul(a, b), result.shape)
            else:
                found[number] = ops.matmul_permuted(a, b, result.sizes, result.axes, result.shape)
    return found


def weights(program: Program, found: Mapping[int, A], ops: ForwardOps[A]) -> list[A]:
    """Each step's weight, ``(rows, inner)``.

    It is ``(inner, rows)`` where nothing is carried along (a suffix of 1).
    """
    return [_unfolded(found[step.weight], step.unfolding, ops) for step in program.steps]


def tensor_gradients(
    program: Program, found: Mapping[int, A], weight_gradients: Sequence[A], ops: ForwardOps[A]
) -> tuple[A, ...]:
    """Gradients of the tensors from those of the weights: `merged` and `weights` backwards."""
    gradients = {
        step.weight: gradient if step.unfolding is None else step.unfolding.undo(gradient, ops)
        for step, gradient in zip(program.steps, weight_gradients, strict=True)
    }
    return merge_backward(program, found, gradients, ops)


def merge_backward(
    program: Program, found: Mapping[int, A], gradients: Mapping[int, A], ops: ForwardOps[A]
) -> tuple[A, ...]:
    """Gradients of the tensors from those of the products that are weights, by number.

    `merged` backwards.
    """
    known = dict(gradients)
    count = len(program.tensor_shapes)
    for number, product in reversed(list(enumerate(program.products, start=count))):
        a, b = _operands(product, found, ops)
        m, _, n = product.sizes
        gradient = ops.reshape(product.result.undo(known[number], ops), (m, n))
        for operand, unfolding, part in (
            (product.left, product.left_unfolding, ops.matmul(gradient, ops.transpose(b, (1, 0)))),
            (product.right, product.right_unfolding, ops.matmul(ops.transpose(a, (1, 0)), gradient)),
        ):
            known[operand] = part if unfolding is None else unfolding.undo(part, ops)
    return tuple(ops.reshape(known[k], shape) for k, shape in enumerate(program.tensor_shapes))


def _operands(product: WeightProduct, found: Mapping[int, A], ops: ForwardOps[A]) -> tuple[A, A]:
    """The two tensors as matrices with the contracted axes inside."""
    return (
        _unfolded(found[product.left], product.left_unfolding, ops),
        _unfolded(found[product.right], product.right_unfolding, ops),
    )


def _unfolded(tensor: A, unfolding: Unfolding | None, ops: ForwardOps[A]) -> A:
    return tensor if unfolding is None else unfolding.apply(tensor, ops)
