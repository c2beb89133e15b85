"""How neighbouring cores of a chain are merged into groups.

Which products, in which order, in which layout.

Merged cores are ``(D_left, I, J, D_right)`` like a single core.  Each product of two of them is
``(D_left I1 J1) x (I2 J2 D_right)``: one exchange of ``J1`` and ``I2`` puts it in order, and the
last product of a group goes straight into the layout of its step, so that no large matrix is copied
twice.
"""

from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate
from math import prod
from operator import mul
from typing import Literal

from mponet.contraction.program import Axes, Unfolding, WeightProduct
from mponet.operators.shape import MPOShape

Side = Literal["left", "right", "last", "left turned", "last turned"]
#: Axes of merged cores ``(left, input, output, right)`` in the weight of each side: what the step
#: leaves, what it consumes.
LAYOUTS: Mapping[Side, tuple[Axes, Axes]] = {
    "left": ((2, 3), (0, 1)),  # (J D_right) x (D_left I)
    "right": ((0, 2), (1, 3)),  # (D_left J) x (I D_right)
    "last": ((2,), (0, 1, 3)),  # J x (D_left I D_right)
    # the bond last, as in the state that they read: turning a state then moves rows of a bond
    "left turned": ((2, 3), (1, 0)),  # (J D_right) x (I D_left)
    "last turned": ((2,), (1, 0, 3)),  # J x (I D_left D_right)
}
#: The sides of a plan that transposes its states.
TURNED: Mapping[Side, Side] = {"left": "left turned", "last": "last turned"}
#: Axes of ``(left, input, output, right)`` among those of a product, ``(left, i1, j1, i2, j2,
#: right)``.
PARTS = ((0,), (1, 3), (2, 4), (5,))
IN_ORDER = (0, 1, 2, 3)


@lru_cache(maxsize=256)
def merge_splits(shape: MPOShape) -> Mapping[tuple[int, int], int]:
    """The cheapest order to merge neighbouring cores.

    For every span of two or more sites, ``(first, end)``, the shortest first, the site before which
    the last product joins two parts; of equal ones the leftmost.
    """
    sites, bonds = shape.sites, shape.bond_dims
    sizes = [1, *accumulate((i * j for i, j in zip(shape.input_dims, shape.output_dims, strict=True)), mul)]
    costs = [[0] * (sites + 1) for _ in range(sites + 1)]  # multiplications, [first][end]
    found = {}
    for length in range(2, sites + 1):
        for first in range(sites - length + 1):
            end = first + length
            outer, own = bonds[first] * (sizes[end] // sizes[first]) * bonds[end], costs[first]
            costs[first][end], found[first, end] = min(
                (own[split] + costs[split][end] + outer * bonds[split], split) for split in range(first + 1, end)
            )
    return found


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
    sizes = group_shape(shape, *span)
    if span[1] - span[0] == 1:
        return span[0], unfold_core(sizes, side, plain)
    return _merge(shape, *span, *_weight(sizes, side, plain), products, final=True), None


@lru_cache(maxsize=4096)
def unfold_core(sizes: tuple[int, int, int, int], side: Side, plain: bool) -> Unfolding:
    """How a single core of these sizes becomes the weight of a step; see `lay_out`."""
    return Unfolding.of(sizes, *_weight(sizes, side, plain))


def _weight(sizes: tuple[int, int, int, int], side: Side, plain: bool) -> tuple[Axes, tuple[int, int]]:
    """Axes of merged cores in the order of a step's weight, and its shape."""
    rows, inner = LAYOUTS[side]
    m, k = (prod(sizes[axis] for axis in axes) for axes in (rows, inner))
    return ((*inner, *rows), (k, m)) if plain else ((*rows, *inner), (m, k))


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
    split = merge_splits(shape)[first, end]
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
