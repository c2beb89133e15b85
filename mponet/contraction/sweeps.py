"""Every sweep of a number of sites as arrays: which steps it is made of, whatever the sizes are."""

from functools import lru_cache
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mponet.contraction.merging import Side

Integers = NDArray[np.intp]
SIDES: tuple[Side, ...] = ("left", "right", "last")


class StepTable(NamedTuple):
    """Where the steps of a number of sites are listed.

    Attributes:
        steps: ``(sites left from, sites left to, first of the group, its end, side)`` of each step;
            the side is a place in `SIDES`.
        left: number of the step that takes the sites from ``l`` to ``m`` of those from ``l`` to
            ``r``, ``[l, r, m]``.
        right: number of the step that takes those from ``m`` to ``r``, ``[l, r, m]``.
        last: number of the step that takes all of them, ``[l, r]``.
    """

    steps: Integers
    left: Integers
    right: Integers
    last: Integers


class Sweeps(NamedTuple):
    """All sweeps of a number of sites in a number of groups.

    Attributes:
        bounds: where the groups begin and end, ``(cuts, groups + 1)``.
        orders: of the groups.
        steps: numbers of the steps in the `StepTable`, ``(cuts, orders, groups)``.
    """

    bounds: Integers
    orders: tuple[tuple[int, ...], ...]
    steps: Integers


@lru_cache(maxsize=32)
def step_table(sites: int) -> StepTable:
    """The steps of any sweep of so many sites."""
    steps: list[tuple[int, int, int, int, int]] = []
    left, right = (np.zeros((sites + 1,) * 3, np.intp) for _ in range(2))
    last = np.zeros((sites + 1,) * 2, np.intp)
    for l, r in combinations(range(sites + 1), 2):  # noqa: E741 - as in the formulas
        for m in range(l + 1, r):
            left[l, r, m], right[l, r, m] = len(steps), len(steps) + 1
            steps += (l, r, l, m, 0), (l, r, m, r, 1)
        last[l, r] = len(steps)
        steps.append((l, r, l, r, 2))
    return StepTable(np.array(steps), left, right, last)


@lru_cache(maxsize=128)
def sweeps_of(sites: int, count: int) -> Sweeps:
    """Every sweep of so many sites in ``count`` groups."""
    table = step_table(sites)
    found = list(combinations(range(1, sites), count - 1))
    cuts = np.array(found, np.intp).reshape(len(found), count - 1)
    ends = np.full((len(cuts), 1), sites)
    bounds = np.concatenate([np.zeros_like(ends), cuts, ends], 1)
    orders, steps = [], []
    for sides in product((False, True), repeat=count - 1):
        left, right = 0, count - 1
        order, numbers = [], []
        for take_left in sides:
            l, r = bounds[:, left], bounds[:, right + 1]  # noqa: E741 - as in the formulas
            if take_left:
                numbers.append(table.left[l, r, bounds[:, left + 1]])
                order.append(left)
                left += 1
            else:
                numbers.append(table.right[l, r, bounds[:, right]])
                order.append(right)
                right -= 1
        numbers.append(table.last[bounds[:, left], bounds[:, left + 1]])
        orders.append((*order, left))
        steps.append(np.stack(numbers, -1))
    return Sweeps(bounds, tuple(orders), np.stack(steps, 1))
