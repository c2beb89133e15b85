"""How neighbouring cores of a chain are merged into groups.

Which products, in which order, in which layout.

Merged cores are ``(D_left, I, J, D_right)`` like a single core.  Each product of two of them is
``(D_left I1 J1) x (I2 J2 D_right)``: one exchange of ``J1`` and ``I2`` puts it in order, and the
last product of a group goes straight into the layout of its step, so that no large matrix is copied
twice.
"""

from collections.abc import Mapping
from functools import lru_cache
from math import prod
from typing import Literal, NamedTuple

from mponet.contraction.program import Axes, Unfolding, WeightProduct
from mponet.operators.shape import MPOShape

Side = Literal["left", "right", "last"]
#: Axes of merged cores ``(left, input, output, right)`` in the weight of each side: what the step
#: leaves, what it consumes.
LAYOUTS: Mapping[Side, tuple[Axes, Axes]] = {
    "left": ((2, 3), (0, 1)),  # (J D_right) x (D_left I)
    "right": ((0, 2), (1, 3)),  # (D_left J) x (I D_right)
    "last": ((2,), (0, 1, 3)),  # J x (D_left I D_right)
}
#: Axes of ``(left, input, output, right)`` among those of a product, ``(left, i1, j1, i2, j2,
#: right)``.
PARTS = ((0,), (1, 3), (2, 4), (5,))
IN_ORDER = (0, 1, 2, 3)


class MergeOrder(NamedTuple):
    """How neighbouring cores become one.

    Attributes:
        multiplications: of all the products.
        split: site before which the last product joins two parts.
    """

    multiplications: int
    split: int


@lru_cache(maxsize=4096)
def merge_order(shape: MPOShape, first: int, end: int) -> MergeOrder:
    """The cheapest order to merge the cores from ``first`` to before ``end``.

    One core needs no product.
    """
    if end - first == 1:
        return MergeOrder(0, first)
    left, inputs, outputs, right = group_shape(shape, first, end)
    outer = left * inputs * outputs * right
    return min(
        MergeOrder(
            merge_order(shape, first, split).multiplications
            + merge_order(shape, split, end).multiplications
            + outer * shape.bond_dims[split],
            split,
        )
        for split in range(first + 1, end)
    )


def group_shape(shape: MPOShape, first: int, end: int) -> tuple[int, int, int, int]:
    """``(D_left, I, J, D_right)`` of the cores from ``first`` to before ``end``, merged."""
    inputs, outputs = prod(shape.input_dims[first:end]), prod(shape.output_dims[first:end])
    return shape.bond_dims[first], inputs, outputs, shape.bond_dims[end]


def lay_out(
    shape: MPOShape, span: tuple[int, int], side: Side, plain: bool, products: list[WeightProduct]
) -> tuple[int, Unfolding | None]:
    """The weight of a group: its number, and how it is unfolded.

    Appends the products that it takes.

    Args:
        shape: of the operator.
        span: ``(first, end)`` of the sites of the group.
        side: of its step.
        plain: whether the step is a plain matrix product: then the weight is ``(inner, rows)``,
            else ``(rows, inner)``.
        products: those of the groups before.
    """
    rows, inner = LAYOUTS[side]
    sizes = group_shape(shape, *span)
    shapes = [prod(sizes[axis] for axis in axes) for axes in (rows, inner)]
    axes, weight = ((*inner, *rows), shapes[::-1]) if plain else ((*rows, *inner), shapes)
    if span[1] - span[0] == 1:
        return span[0], Unfolding.of(sizes, axes, tuple(weight))
    return _merge(shape, *span, axes, (weight[0], weight[1]), products, final=True), None


def _merge(
    shape: MPOShape,
    first: int,
    end: int,
    axes: Axes,
    matrix: tuple[int, int],
    products: list[WeightProduct],
    *,
    final: bool = False,
) -> int:
    """Append the products that merge the cores of a span into a ``matrix`` in the order ``axes``.

    Its number.
    """
    if end - first == 1:
        return first
    split = merge_order(shape, first, end).split
    left, right, bond = group_shape(shape, first, split), group_shape(shape, split, end), shape.bond_dims[split]
    outer, other = prod(left[:3]), prod(right[1:])
    numbers = (
        _merge(shape, first, split, IN_ORDER, (outer, bond), products),
        _merge(shape, split, end, IN_ORDER, (bond, other), products),
    )
    unfoldings = (
        Unfolding(left, None, (outer, bond)) if split - first == 1 else None,
        Unfolding(right, None, (bond, other)) if end - split == 1 else None,
    )
    order = tuple(part for axis in axes for part in PARTS[axis])
    result = Unfolding.of((*left[:3], *right[1:]), order, matrix)
    products.append(WeightProduct(*numbers, *unfoldings, (outer, bond, other), result, final))
    return shape.sites + len(products) - 1
