"""Weight decay on operators: of the matrix, whatever the gauge of its cores."""

from collections.abc import Sequence
from math import prod
from typing import TypeVar

from mponet.contraction.ops import ForwardOps

A = TypeVar("A")


def norm_gradients(cores: Sequence[A], shapes: Sequence[tuple[int, ...]], ops: ForwardOps[A]) -> list[A]:
    """The gradient of ``||W||_F^2 / 2`` with respect to each core of ``W``.

    It is the core between the Gram matrices of the cores left and right of it.  Cores of equal
    ``W`` in different gauges are pulled the same way: with ``X`` and its inverse put into a bond,
    the gradients change by the transposes.  The matrix is never formed.

    Args:
        cores: of a chain, ``(left, input, output, right)``, arrays of any library.
        shapes: of the cores.
        ops: what the library offers.
    """
    lefts = _grams(cores, shapes, ops)
    order = (3, 1, 2, 0)
    mirrored = [ops.transpose(core, order) for core in reversed(cores)]
    rights = _grams(mirrored, [tuple(shape[axis] for axis in order) for shape in reversed(shapes)], ops)[::-1]
    gradients = []
    for core, shape, left, right in zip(cores, shapes, lefts, rights, strict=True):
        value = core
        if left is not None:
            value = ops.matmul(left, ops.reshape(value, (shape[0], prod(shape[1:]))))
        if right is not None:
            value = ops.matmul(ops.reshape(value, (prod(shape[:3]), shape[3])), right)
        gradients.append(ops.reshape(value, tuple(shape)))
    return gradients


def _grams(cores: Sequence[A], shapes: Sequence[tuple[int, ...]], ops: ForwardOps[A]) -> list[A | None]:
    """For each core the Gram matrix of all cores left of it, ``(D, D)``; None at the first."""
    grams: list[A | None] = [None]
    for core, shape in zip(cores[:-1], shapes[:-1], strict=True):
        rows, gram = (prod(shape[:3]), shape[3]), grams[-1]
        matrix = ops.reshape(core, rows)
        product = matrix if gram is None else ops.matmul(gram, ops.reshape(core, (shape[0], prod(shape[1:]))))
        grams.append(ops.matmul(ops.transpose(matrix, (1, 0)), ops.reshape(product, rows)))
    return grams
