"""The candidates of a shape with their predicted times and memory, all at once.

The plans of a chain are built of few different steps: which sites are left, and which of them the
step takes.  The cost of every step is computed once, as an array, and the cost of a plan is a sum
of lookups.  That is the enumeration of `mponet.contraction.search.candidates`, in the same order,
in milliseconds for any number of sites.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mponet.contraction.cost import (
    Gathering,
    Purpose,
    apart,
    copy_seconds,
    predict,
    product_seconds,
    step_products,
    workspace,
)
from mponet.contraction.kernels import fusable
from mponet.contraction.machine import Machine
from mponet.contraction.merging import group_shape, lay_out, merge_order
from mponet.contraction.plan import Plan
from mponet.contraction.program import BasePlan
from mponet.contraction.sweeps import SIDES, Integers, Sweeps, step_table, sweeps_of
from mponet.operators.shape import MPOShape

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Candidates with what decides between them.

    Attributes:
        seconds: predicted times.
        workspace: elements that each keeps beside inputs, outputs and their gradients.
        plan: the candidate of a number.
    """

    seconds: Floats
    workspace: Floats
    plan: Callable[[int], Any]


class _Steps(NamedTuple):
    """All steps that sweeps of a chain are made of.

    Sizes as in `mponet.contraction.program.Step`.
    """

    prefix: Floats
    rows: Floats
    inner: Floats
    suffix: Floats


@dataclass(frozen=True, slots=True)
class Question:
    """What the scores are for.

    Attributes:
        batch: rows.
        purpose: what is run.
        itemsize: bytes per number.
        machine: where.
        penalty: factor on the time of plans whose first step is a broadcast product.
    """

    batch: int
    purpose: Purpose
    itemsize: int
    machine: Machine
    penalty: float

    def seconds(self, plan: BasePlan) -> float:
        """Predicted time of one plan."""
        time = predict(plan, self.batch, purpose=self.purpose, itemsize=self.itemsize, machine=self.machine)
        return time * (self.penalty if plan.steps[0].suffix > 1 else 1.0)

    def workspace(self, plan: BasePlan) -> int:
        """Elements that one plan keeps."""
        return workspace(plan, self.batch, purpose=self.purpose, machine=self.machine)


def score_each(plans: Sequence[BasePlan], question: Question) -> Scores:
    """The scores of some plans, one by one."""
    seconds, sizes = ([one(plan) for plan in plans] for one in (question.seconds, question.workspace))
    return Scores(np.array(seconds, float), np.array(sizes, float), plans.__getitem__)


def score_chain(shape: MPOShape, tiles: Sequence[int | None], counts: Sequence[int], question: Question) -> Scores:
    """The scores of all sweeps of a chain.

    Args:
        shape: the chain.
        tiles: rows at a time.
        counts: numbers of groups.
        question: what they are for.
    """
    kinds = [_step_scores(shape, tiles, question, transposed=False)]
    if question.machine.transpose_bandwidth:
        kinds.append(_step_scores(shape, tiles, question, transposed=True))
    seconds, sizes = [], []
    for count in counts:
        sweeps = sweeps_of(shape.sites, count)
        # (cuts, orders, tiles, transposed or not) is the order of
        # `mponet.contraction.search.candidates`
        scored = np.full((2, len(sweeps.bounds), len(sweeps.orders), len(tiles), len(kinds)), np.inf)
        scored[..., 0] = kinds[0].plans(sweeps.steps, question)
        if len(kinds) == 2 and count > 1:  # only a sweep from the left may be transposed: the last order
            scored[:, :, -1:, :, 1] = kinds[1].plans(sweeps.steps[:, -1:], question)
        seconds.append(scored[0])
        sizes.append(scored[1])
        if question.machine.kernel_flops:
            _score_kernels(shape, sweeps, seconds[-1], sizes[-1], question)
    ends = np.cumsum([0, *(block.size for block in seconds)])
    every = np.concatenate([block.ravel() for block in seconds])
    numbers = np.flatnonzero(np.isfinite(every))

    def plan(number: int) -> Plan:
        place = int(numbers[number])
        block = int(np.searchsorted(ends, place, "right")) - 1
        sweeps = sweeps_of(shape.sites, counts[block])
        cut, order, tile, kind = np.unravel_index(place - ends[block], seconds[block].shape)
        return Plan(shape, _groups(sweeps.bounds[cut]), sweeps.orders[order], tiles[tile], transposed=bool(kind))

    return Scores(every[numbers], np.concatenate([block.ravel() for block in sizes])[numbers], plan)


class _StepScores(NamedTuple):
    """What each step adds to the scores of a plan.

    Attributes:
        seconds: time, the merging of its group included, ``(steps, tiles)``.
        broadcast: whether it is a broadcast product.
        state: elements of its state for a row of the batch.
        weight: elements of its weight, 0 for a view.
        sums: elements of sums of gradients, for a row of the batch and once.
        rows: of a tile.
        first: number of the first step whose state is kept.
    """

    seconds: Floats
    broadcast: NDArray[np.bool_]
    state: Floats
    weight: Floats
    sums: tuple[Floats, Floats]
    rows: Floats
    first: int

    def plans(self, steps: Integers, question: Question) -> tuple[Floats, Floats]:
        """Times and elements kept, ``(cuts, orders, tiles)``, of plans of these steps."""
        penalty = np.where(self.broadcast[steps[..., 0]], question.penalty, 1.0)
        seconds = self.seconds[steps].sum(-2) * penalty[..., None]
        states = self.state[steps[..., self.first :]]
        once = self.weight[steps].sum(-1)
        if question.purpose == "training":
            each = states.sum(-1) + self.sums[0][steps].sum(-1)
            once = once + self.sums[1][steps].sum(-1)
        else:
            each = np.sort(states, -1)[..., -2:].sum(-1)
        return seconds, once[..., None] + each[..., None] * self.rows


def _step_scores(shape: MPOShape, tiles: Sequence[int | None], question: Question, *, transposed: bool) -> _StepScores:
    purpose, itemsize, machine = question.purpose, question.itemsize, question.machine
    table = step_table(shape.sites).steps
    steps = _sizes(shape)
    if transposed:
        steps = steps._replace(prefix=steps.prefix * steps.suffix, suffix=np.ones_like(steps.suffix))
    batch = max(question.batch, 1)
    rows = np.array([min(batch, tile or batch) for tile in tiles], float)
    loops = np.ceil(batch / rows)
    is_last = table[:, 4] == SIDES.index("last")
    joins = apart(steps.rows, steps.inner, steps.suffix)
    merging, weight = _merging(shape, steps.suffix == 1, question)
    seconds = np.repeat(merging[:, None], len(rows), 1)
    gatherings: tuple[tuple[Gathering, NDArray[np.bool_]], ...] = (
        ("plain", steps.suffix == 1),
        ("apart", joins),
        ("joined", ~joins & (steps.suffix > 1)),
    )
    for (gathering, mask), recomputed in product(gatherings, (True, False)):
        chosen = np.flatnonzero(mask & (is_last != recomputed))
        if len(chosen):
            some = _Steps(*(sizes[chosen, None] for sizes in steps))
            for sizes, times, moved in step_products(some, rows, purpose, gathering, recomputed=recomputed):
                once = machine.multiplying(sizes, times, itemsize) + machine.moving(moved * itemsize)
                seconds[chosen] += loops * (once + machine.call_overhead)
    if transposed:
        count = 3 if purpose == "training" else 1
        moved = 2 * rows * (steps.prefix * steps.inner)[:, None] * itemsize
        seconds += loops * count * moved / machine.transpose_bandwidth
    sums = steps.rows * steps.inner
    kept = np.array([min(question.batch, tile or question.batch) for tile in tiles], float)
    each, once = np.where(joins, sums * steps.prefix, 0.0), np.where(joins, 0.0, sums)
    state = steps.prefix * steps.inner * steps.suffix
    return _StepScores(seconds, steps.suffix > 1, state, weight, (each, once), kept, 0 if transposed else 1)


def _sizes(shape: MPOShape) -> _Steps:
    """Sizes of every step; as in `mponet.contraction.plan.Plan.program`."""
    left, right, first, end, side = step_table(shape.sites).steps.T
    inputs, outputs = (np.cumprod([1.0, *dims]) for dims in (shape.input_dims, shape.output_dims))
    bonds = np.array(shape.bond_dims, float)
    done_left, done_right = outputs[left], outputs[-1] / outputs[right]
    i, j, d_left, d_right = inputs[end] / inputs[first], outputs[end] / outputs[first], bonds[first], bonds[end]
    rest, before = inputs[right] / inputs[end], inputs[first] / inputs[left]
    last, of_left = side == SIDES.index("last"), side == SIDES.index("left")
    return _Steps(
        np.where(last | of_left, done_left, done_left * bonds[left] * before),
        np.where(last, j, np.where(of_left, j * d_right, d_left * j)),
        np.where(last, d_left * i * d_right, np.where(of_left, d_left * i, i * d_right)),
        np.where(of_left, rest * bonds[right] * done_right, done_right),
    )


def _merging(shape: MPOShape, plain: NDArray[np.bool_], question: Question) -> tuple[Floats, Floats]:
    """Of every step.

    Seconds to merge its group and lay it out, and elements of its weight, 0 for a view.
    """
    options = question.purpose, question.itemsize, question.machine
    sizes, splits, products = _spans(shape)
    spans = {(site, site + 1): 0.0 for site in range(shape.sites)}
    if len(splits):
        own = product_seconds((products[0], products[1], products[2]), *options)
        for (first, end, split), seconds in zip(splits, own.tolist(), strict=True):  # the shortest first
            spans[first, end] = spans[first, split] + spans[split, end] + seconds
    singles: dict[tuple[int, int, bool], tuple[float, int]] = {}
    for site, side, is_plain in product(range(shape.sites), range(len(SIDES)), (False, True)):
        _, unfolding = lay_out(shape, (site, site + 1), SIDES[side], is_plain, [])
        is_view = unfolding is not None and unfolding.axes is None
        seconds = copy_seconds(unfolding, *options)
        singles[site, side, is_plain] = seconds, 0 if is_view else prod(sizes[site, site + 1])
    found = [
        singles[first, side, is_plain] if end - first == 1 else (spans[first, end], prod(sizes[first, end]))
        for (_, _, first, end, side), is_plain in zip(
            step_table(shape.sites).steps.tolist(), plain.tolist(), strict=True
        )
    ]
    seconds, weight = np.array(found, float).T
    return seconds, weight


def _score_kernels(shape: MPOShape, sweeps: Sweeps, seconds: Floats, sizes: Floats, question: Question) -> None:
    """Overwrite the scores of plans that one kernel runs: whole batches from the right."""
    for cut, bounds in enumerate(sweeps.bounds):
        plan = Plan(shape, _groups(bounds), sweeps.orders[0])
        if fusable(plan):
            seconds[cut, 0, 0, 0], sizes[cut, 0, 0, 0] = question.seconds(plan), question.workspace(plan)


def _groups(bounds: Integers) -> tuple[int, ...]:
    return tuple(np.diff(bounds).tolist())


@lru_cache(maxsize=16)
def _spans(
    shape: MPOShape,
) -> tuple[dict[tuple[int, int], tuple[int, int, int, int]], list[tuple[int, int, int]], Floats]:
    """Sizes of neighbouring cores merged; ``(first, end, split)`` of their last products.

    The products' sizes.
    """
    sizes = {span: group_shape(shape, *span) for span in combinations(range(shape.sites + 1), 2)}
    splits, products = [], []
    for first, end in sorted(sizes, key=lambda span: span[1] - span[0])[shape.sites :]:
        split = merge_order(shape, first, end).split
        left, right = sizes[first, split], sizes[split, end]
        splits.append((first, end, split))
        products.append((prod(left[:3]), left[3], prod(right[1:])))
    return sizes, splits, np.array(products, float).T
