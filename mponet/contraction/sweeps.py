"""Every sweep of a number of sites as arrays: which steps it is made of, whatever the sizes are."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mponet.contraction.merging import Side

Integers = NDArray[np.intp]
Floats = NDArray[np.float64]
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
    lefts, rights = np.triu_indices(sites + 1, 1)
    inner = rights - lefts - 1  # sites at which an interval is split
    ends = np.cumsum(2 * inner + 1)  # of each interval two steps for every split, then the last one
    pair = np.repeat(np.arange(len(lefts)), inner)
    offset = np.arange(len(pair)) - np.repeat(np.cumsum(inner) - inner, inner)
    l, r = lefts[pair], rights[pair]  # noqa: E741 - as in the formulas
    m, number = l + 1 + offset, (ends - 2 * inner - 1)[pair] + 2 * offset
    steps = np.empty((int(ends[-1]), 5), np.intp)
    steps[number] = np.stack([l, r, l, m, np.full_like(l, 0)], 1)
    steps[number + 1] = np.stack([l, r, m, r, np.full_like(l, 1)], 1)
    steps[ends - 1] = np.stack([lefts, rights, lefts, rights, np.full_like(lefts, 2)], 1)
    left, right = (np.zeros((sites + 1,) * 3, np.intp) for _ in range(2))
    last = np.zeros((sites + 1,) * 2, np.intp)
    left[l, r, m], right[l, r, m], last[lefts, rights] = number, number + 1, ends - 1
    return StepTable(steps, left, right, last)


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


class Splits(NamedTuple):
    """What may be done first with intervals of one length, as in `fastest`.

    Attributes:
        intervals: the intervals, ``left * (sites + 1) + right`` of each.
        steps: number of the first step of each way, ``(intervals, ways)``.
        rest: the interval that it leaves, ``(intervals, ways)``; an empty one after the last step.
    """

    intervals: Integers
    steps: Integers
    rest: Integers


@lru_cache(maxsize=32)
def splits(sites: int) -> tuple[Splits, ...]:
    """The ways to begin a sweep of an interval of sites, by the length of the interval from 1."""
    table, width, found = step_table(sites), sites + 1, []
    for length in range(1, sites + 1):
        left = np.arange(sites - length + 1)[:, None]
        right, middle = left + length, left + np.arange(1, length)[None]
        steps = table.last[left, right], table.left[left, right, middle], table.right[left, right, middle]
        rest = left * width + left, middle * width + right, left * width + middle
        found.append(Splits((left * width + right)[:, 0], np.concatenate(steps, 1), np.concatenate(rest, 1)))
    return tuple(found)


def fastest(sites: int, seconds: Floats, first: Floats) -> list[tuple[int, ...]]:
    """The steps of the fastest sweep for each column of ``seconds``, by dynamic programming.

    What is done with an interval of sites does not depend on what was done before, so that the
    fastest way through it is a step and the fastest way through the rest.

    Args:
        sites: how many there are.
        seconds: of every step of the `step_table`, ``(steps, columns)``.
        first: factor on the time of the whole sweep for its first step, ``(steps,)``.
    """
    width, columns = sites + 1, np.arange(seconds.shape[1])
    best = np.zeros((width * width, len(columns)))
    step, rest = (np.zeros(best.shape, np.intp) for _ in range(2))
    for one in splits(sites):
        times = seconds[one.steps] + best[one.rest]
        if one is splits(sites)[-1]:
            times *= first[one.steps][..., None]
        ways = times.argmin(1)
        rows = np.arange(len(ways))[:, None]
        best[one.intervals] = times[rows, ways, columns]
        step[one.intervals], rest[one.intervals] = one.steps[rows, ways], one.rest[rows, ways]
    found = []
    for nexts, lefts in zip(step.T.tolist(), rest.T.tolist(), strict=True):
        interval, numbers = sites, []  # the interval from 0 to the end
        while interval % (width + 1):  # not empty
            numbers.append(nexts[interval])
            interval = lefts[interval]
        found.append(tuple(numbers))
    return found


def sweep_of(sites: int, steps: Sequence[int]) -> Sweeps:
    """The one sweep of these steps."""
    spans = [(first, end) for _, _, first, end, _ in step_table(sites).steps[list(steps)].tolist()]
    places = sorted(spans)
    bounds = np.array([[*(first for first, _ in places), sites]])
    return Sweeps(bounds, (tuple(places.index(span) for span in spans),), np.array([[steps]]))
