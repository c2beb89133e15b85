"""What a layer may cost and what it then loses: options, and the lower convex hull over them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mponet.compress.structures import Layout

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One layout at several bonds.

    Attributes:
        layout: the factors.
        bonds: inner bonds of each option, ``(options, sites - 1)``.
        weights: number of weights of each option.
        multiplications: multiplications for one example.
        errors: relative *squared* error of the outputs.
        losses: the same with outputs weighted by the loss's gradient; equal without weights.
    """

    layout: Layout
    bonds: NDArray[np.int64]
    weights: Array
    multiplications: Array
    errors: Array
    losses: Array


@dataclass(frozen=True, slots=True)
class Option:
    """One operator that a layer may become; without a layout, the layer as it is.

    Attributes:
        layout: factors; None leaves the layer dense.
        bonds: inner bonds.
        weights: number of weights.
        multiplications: for one example.
        error: relative squared error of the outputs.
        loss: the same with weighted outputs.
    """

    layout: Layout | None
    bonds: tuple[int, ...]
    weights: int
    multiplications: int
    error: float
    loss: float


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """Everything that a layer may become.

    Attributes:
        dense: the layer as it is, with error 0.
        curves: the layouts at their bonds.
    """

    dense: Option
    curves: tuple[Curve, ...]

    def costs(self, budget: str) -> Array:
        """What every option costs of a budget, the dense one first."""
        name = "multiplications" if budget == "multiplications" else "weights"
        return np.concatenate([[getattr(self.dense, name)], *(getattr(curve, name) for curve in self.curves)])

    @property
    def errors(self) -> Array:
        """Relative squared errors of every option, the dense one first."""
        return np.concatenate([[0.0], *(curve.errors for curve in self.curves)])

    @property
    def losses(self) -> Array:
        """Relative squared errors with weighted outputs, the dense one first."""
        return np.concatenate([[0.0], *(curve.losses for curve in self.curves)])

    def at_least(self, index: int) -> set[int]:
        """The options of the same layout with as many multiplications as one, or more."""
        start = 1
        for curve in self.curves:
            if index < start + len(curve.weights):
                many = curve.multiplications >= curve.multiplications[index - start]
                return {start + int(k) for k in np.flatnonzero(many)}
            start += len(curve.weights)
        raise IndexError(index)

    def option(self, index: int) -> Option:
        """The option at an index of `costs` and `errors`."""
        if index == 0:
            return self.dense
        index -= 1
        for curve in self.curves:
            if index < len(curve.weights):
                return Option(
                    curve.layout,
                    tuple(int(bond) for bond in curve.bonds[index]),
                    int(curve.weights[index]),
                    int(curve.multiplications[index]),
                    float(curve.errors[index]),
                    float(curve.losses[index]),
                )
            index -= len(curve.weights)
        raise IndexError(index)


def lower_hull(costs: Array, errors: Array) -> list[int]:
    """Indices of the points on the lower convex hull, in ascending order of cost.

    The last point is the cheapest of those with the smallest error.

    Examples:
        >>> import numpy as np
        >>> lower_hull(np.array([4.0, 1.0, 2.0, 3.0]), np.array([0.0, 3.0, 1.0, 0.9]))
        [1, 2, 0]
    """
    order = np.lexsort((errors, costs))
    hull: list[int] = []
    for k in map(int, order):
        if hull and errors[k] >= errors[hull[-1]]:
            continue
        while len(hull) >= 2 and _above(costs, errors, hull[-2], hull[-1], k):
            hull.pop()
        hull.append(k)
    return hull


def frontier(costs: Array, errors: Array) -> list[int]:
    """Indices of the points that no other is both cheaper and better than, from the cheapest on."""
    best: list[int] = []
    for k in map(int, np.lexsort((errors, costs))):
        if not best or errors[k] < errors[best[-1]]:
            best.append(k)
    return best


def _above(costs: Array, errors: Array, first: int, middle: int, last: int) -> bool:
    """Whether the middle point is not below the line between the others."""
    rise = (errors[last] - errors[first]) * (costs[middle] - costs[first])
    return bool((errors[middle] - errors[first]) * (costs[last] - costs[first]) >= rise)


def within(options: Sequence[int], costs: Array, low: float, high: float) -> list[int]:
    """The options whose cost lies in a range."""
    return [k for k in options if low <= costs[k] <= high]
