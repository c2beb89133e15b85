"""The axes of cores that others made.

Their order, missing boundary axes, and how a wrong order is noticed.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise, permutations

import numpy as np
from numpy.typing import ArrayLike

from mponet.errors import ShapeError
from mponet.operators.arrays import Array, as_float64

#: The order of the axes of a core, everywhere in mponet.
AXES = ("left", "input", "output", "right")
#: Relative distance up to which a matrix counts as the one that was given, in whatever precision.
SAME_MATRIX = 0.01


def arranged(cores: Sequence[ArrayLike], axes: str | Sequence[str]) -> list[Array]:
    """The cores with the axes ``(left, input, output, right)``.

    Args:
        cores: one array per site.  The first may lack the axis ``left``, the last ``right``.
        axes: the names of the axes in the order in which the cores have them.

    Raises:
        ShapeError: ``axes`` does not name the four axes, or a core has not as many.
        InputError: a core holds complex or non-finite numbers.
    """
    order = _order(axes)
    arrays = [as_float64(core, f"core {k}") for k, core in enumerate(cores, start=1)]
    if not arrays:
        raise ShapeError("there are no cores; expected at least one")
    return [_arranged(core, order, k == 0, k == len(arrays) - 1, k + 1) for k, core in enumerate(arrays)]


def check_open(cores: Sequence[Array], given: Sequence[ArrayLike]) -> None:
    """Refuse cores that are not an open chain, and say which order of axes would make them one.

    Args:
        cores: with the axes ``(left, input, output, right)``.
        given: the same as they were given, for the message.

    Raises:
        ShapeError: neighbouring bonds differ, or a boundary bond is not 1.
    """
    shapes = [core.shape for core in cores]
    if any(0 in shape for shape in shapes):
        raise ShapeError(f"cores have the shapes {shapes}; expected no axis of size 0")
    if is_open(shapes):
        return
    if is_ring(shapes):
        raise ShapeError(
            f"cores have the shapes {shapes}, first and last joined by a bond of {shapes[0][0]}: a ring; expected 1 at "
            "both ends; mponet.operators.topology.from_ring makes the network, which NetworkLinear takes"
        )
    fitting = list(fitting_orders([np.shape(core) for core in given]))
    hint = f"with axes={' or axes='.join(map(repr, fitting))} they fit" if fitting else "no order of axes fits"
    raise ShapeError(
        f"cores have the shapes {shapes} as (left, input, output, right); expected equal neighbouring bonds and 1 at "
        f"both ends; {hint}"
    )


def check_same(found: Array, matrix: ArrayLike) -> None:
    """Refuse cores whose product is another matrix than the one that was given.

    Args:
        found: the product of the cores, ``(in_features, out_features)``.
        matrix: what it should be.

    Raises:
        ShapeError: it is another, beyond the rounding of half precision.
    """
    expected = as_float64(matrix, "matrix")
    if _same(found, expected):
        return
    hint = "check the order of axes and of sites"
    if _same(found.T, expected):
        hint = "it is the transposed one; exchange 'input' and 'output' in axes"
    distance = f"by {np.linalg.norm(found - expected):.3g}" if found.shape == expected.shape else f"{found.shape}"
    raise ShapeError(
        f"the cores give another matrix than the given one of shape {expected.shape}: {distance}; expected the same; "
        f"{hint}"
    )


def is_open(shapes: Sequence[Sequence[int]]) -> bool:
    """Whether cores of these shapes are a chain with bonds of 1 at both ends."""
    return shapes[0][0] == shapes[-1][3] == 1 and _joined(shapes)


def is_ring(shapes: Sequence[Sequence[int]]) -> bool:
    """Whether cores of these shapes are a chain whose two ends have one bond."""
    return shapes[0][0] == shapes[-1][3] and _joined(shapes)


def fitting_orders(shapes: Sequence[Sequence[int]]) -> Iterator[str]:
    """The orders of axes that make arrays of these shapes an open chain.

    In each order ``input`` comes before ``output``.

    Input and output may be exchanged in all of them: no size can tell these apart.
    """
    if any(len(shape) != 4 for shape in shapes):
        return
    for order in permutations(AXES):
        if order.index("input") < order.index("output"):
            places = [order.index(name) for name in AXES]
            if is_open([[shape[place] for place in places] for shape in shapes]):
                yield " ".join(order)


def _order(axes: str | Sequence[str]) -> tuple[str, ...]:
    names = tuple(axes.split() if isinstance(axes, str) else axes)
    if sorted(names) != sorted(AXES):
        raise ShapeError(f"axes is {axes!r}; expected the names 'left', 'input', 'output' and 'right' in some order")
    return names


def _arranged(core: Array, order: tuple[str, ...], first: bool, last: bool, site: int) -> Array:
    ends = {name for name, there in (("left", first), ("right", last)) if there}
    if core.ndim == 4 - len(ends) and ends:
        order = tuple(name for name in order if name not in ends)
    elif core.ndim != 4:
        raise ShapeError(
            f"core {site} has the shape {core.shape}; expected the axes {order}; only the first core may lack 'left' "
            "and the last 'right'"
        )
    arrays = core.transpose([order.index(name) for name in AXES if name in order])
    sizes = dict(zip(order, core.shape, strict=True))
    return arrays.reshape([sizes.get(name, 1) for name in AXES])


def _joined(shapes: Sequence[Sequence[int]]) -> bool:
    return all(left[3] == right[0] for left, right in pairwise(shapes))


def _same(found: Array, expected: Array) -> bool:
    if found.shape != expected.shape:
        return False
    scale = max(float(np.abs(found).max(initial=0.0)), float(np.abs(expected).max(initial=0.0))) or 1.0
    distance = np.linalg.norm(found / scale - expected / scale)
    return bool(distance <= SAME_MATRIX * np.linalg.norm(expected / scale))
