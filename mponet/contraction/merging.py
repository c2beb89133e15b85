"""How neighbouring cores are merged into groups, and groups laid out as weights: which products, in which order.

A chain of cores merged is ``(D_left, I, J, D_right)`` like a single core.  Each product of two
chains is ``(D_left I1 J1) x (I2 J2 D_right)``: one exchange of ``J1`` and ``I2`` puts it in order,
and the last product of a group goes straight into the layout of its step, so that no large matrix
is copied twice.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Literal, NamedTuple

from mponet.operators.shape import MPOShape

Side = Literal["left", "right", "last"]
#: Axes of a chain ``(left, input, output, right)`` in the weight of each side: what the step
#: leaves, what it consumes.
LAYOUTS: Mapping[Side, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "left": ((2, 3), (0, 1)),  # (J D_right) x (D_left I)
    "right": ((0, 2), (1, 3)),  # (D_left J) x (I D_right)
    "last": ((2,), (0, 1, 3)),  # J x (D_left I D_right)
}
#: Axes of ``(left, input, output, right)`` among those of a product of two chains, ``(left, i1, j1,
#: i2, j2, right)``.
PARTS = ((0,), (1, 3), (2, 4), (5,))
CHAIN = (0, 1, 2, 3)


class CoreProduct(NamedTuple):
    """One product of two chains.

    Attributes:
        left: number of the left chain: the cores are 0 to n - 1, the product of each merge the next
            number.
        right: number of the right chain.
        facing: shapes of the two as matrices, the bond between them inside.
        sizes: ``(left, i1, j1, i2, j2, right)`` of the product.
        axes: the order that they are brought into; None where that moves nothing but axes of length
            1.
        inverse: the order that undoes it.
        shape: what the result is needed as: a matrix of the next product, or a weight.
        final: whether it is a weight, which no other product is made of.
    """

    left: int
    right: int
    facing: tuple[tuple[int, int], tuple[int, int]]
    sizes: tuple[int, ...]
    axes: tuple[int, ...] | None
    inverse: tuple[int, ...]
    shape: tuple[int, int]
    final: bool

    @property
    def ordered(self) -> tuple[int, ...]:
        """The sizes in their new order."""
        return self.sizes if self.axes is None else tuple(self.sizes[axis] for axis in self.axes)


class Layout(NamedTuple):
    """Where a step finds its weight.

    Attributes:
        chain: number of the chain.
        axes: order of the axes of a single core; None for a merged chain, which is a weight
            already.
        inverse: the order that undoes it.
        shape: of the weight.
    """

    chain: int
    axes: tuple[int, ...] | None
    inverse: tuple[int, ...]
    shape: tuple[int, int]


class MergePlan(NamedTuple):
    """All products of a plan's cores, each behind those it is made of, and where the steps find their weights.

    Attributes:
        merges: the products.
        layouts: one for each step.
    """

    merges: tuple[CoreProduct, ...]
    layouts: tuple[Layout, ...]


class MergeOrder(NamedTuple):
    """How neighbouring cores become one.

    Attributes:
        multiplications: of all the products.
        split: site before which the last product joins two chains.
    """

    multiplications: int
    split: int


@lru_cache(maxsize=4096)
def merging(shape: MPOShape, first: int, end: int) -> MergeOrder:
    """The cheapest order to merge the cores from ``first`` to before ``end``; one core needs no product."""
    if end - first == 1:
        return MergeOrder(0, first)
    outer = shape.bond_dims[first] * prod(shape.site_sizes[first:end]) * shape.bond_dims[end]
    return min(
        MergeOrder(
            merging(shape, first, split).multiplications
            + merging(shape, split, end).multiplications
            + outer * shape.bond_dims[split],
            split,
        )
        for split in range(first + 1, end)
    )


def grouping(shape: MPOShape, spans: Sequence[tuple[int, int]], steps: Sequence[tuple[int, Side, bool]]) -> MergePlan:
    """How the cores of ``shape`` become weights.

    Args:
        shape: of the operator.
        spans: ``(first, end)`` of the sites of each group.
        steps: group and side of each step, and whether it is a plain matrix product.  A weight is
            ``(rows, inner)``, and ``(inner, rows)`` where it is multiplied from the right.
    """
    merges: list[CoreProduct] = []
    layouts = []
    for group, side, plain in steps:
        first, end = spans[group]
        rows, inner = LAYOUTS[side]
        axes = (*inner, *rows) if plain else (*rows, *inner)
        chain = _chain(shape, first, end)
        sizes = prod(chain[axis] for axis in rows), prod(chain[axis] for axis in inner)
        weight = sizes[::-1] if plain else sizes
        number = _merge(shape, first, end, axes, weight, merges, final=True)
        single = end - first == 1
        layouts.append(Layout(number, axes if single else None, _inverse(axes), weight))
    return MergePlan(tuple(merges), tuple(layouts))


def _merge(
    shape: MPOShape,
    first: int,
    end: int,
    axes: tuple[int, ...],
    matrix: tuple[int, int],
    merges: list[CoreProduct],
    *,
    final: bool = False,
) -> int:
    """Append the products that make one chain, as a ``matrix`` in the order ``axes``; its number."""
    if end - first == 1:
        return first
    split = merging(shape, first, end).split
    left, right, bond = _chain(shape, first, split), _chain(shape, split, end), shape.bond_dims[split]
    facing = (prod(left[:3]), bond), (bond, prod(right[1:]))
    numbers = _merge(shape, first, split, CHAIN, facing[0], merges), _merge(shape, split, end, CHAIN, facing[1], merges)
    order = tuple(part for axis in axes for part in PARTS[axis])
    sizes = (*left[:3], *right[1:])
    moved = None if _stays(sizes, order) else order
    merges.append(CoreProduct(*numbers, facing, sizes, moved, _inverse(order), matrix, final))
    return shape.sites + len(merges) - 1


def _chain(shape: MPOShape, first: int, end: int) -> tuple[int, int, int, int]:
    """``(D_left, I, J, D_right)`` of the cores from ``first`` to before ``end``."""
    inputs, outputs = prod(shape.input_dims[first:end]), prod(shape.output_dims[first:end])
    return shape.bond_dims[first], inputs, outputs, shape.bond_dims[end]


def _stays(sizes: Sequence[int], axes: Sequence[int]) -> bool:
    """Whether an order moves nothing but axes of length 1, so that the numbers stay where they are."""
    moved = [axis for axis in axes if sizes[axis] > 1]
    return moved == sorted(moved)


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axes.index(k) for k in range(len(axes)))
