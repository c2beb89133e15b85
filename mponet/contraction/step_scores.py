"""What every step of a chain adds to the time and the memory of a plan, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mponet.contraction.cost import (
    MERGES,
    MERGES_SAVING,
    Gathering,
    Merges,
    Purpose,
    apart,
    count_transpositions,
    is_apart,
    layout_seconds,
    predict,
    product_seconds,
    step_products,
    workspace,
)
from mponet.contraction.machine import Machine
from mponet.contraction.merging import TURNED, merge_splits, unfold_core
from mponet.contraction.program import BasePlan
from mponet.contraction.sweeps import SIDES, Floats, Integers, step_table
from mponet.operators.shape import MPOShape

#: Forms of weights: of broadcast products, of plain ones, and of plain ones with states that are
#: transposed; each with whether the product is plain.
FORMS = (False, True, True)
TURNED_FORM = 2


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


class _Steps(NamedTuple):
    """All steps that sweeps of a chain are made of.

    Sizes as in `mponet.contraction.program.Step`.
    """

    prefix: Floats
    rows: Floats
    inner: Floats
    suffix: Floats


class StepScores(NamedTuple):
    """What each step adds to the scores of a plan.

    Attributes:
        seconds: time, the merging of its group included, ``(steps, tiles)``.
        broadcast: whether it is a broadcast product.
        state: elements of its state for a row of the batch.
        weight: elements of its weight, 0 for a view.
        sums: elements of sums of gradients, for a row of the batch, once, and of the weights.
        rows: of a tile.
        first: number of the first step whose state is kept.
        saving: whether the states are saved for the backward pass.
    """

    seconds: Floats
    broadcast: NDArray[np.bool_]
    state: Floats
    weight: Floats
    sums: tuple[Floats, Floats, Floats]
    rows: Floats
    first: int
    saving: bool

    def plans(self, steps: Integers, question: Question) -> tuple[Floats, Floats]:
        """Times and elements kept, ``(cuts, orders, tiles)``, of plans of these steps."""
        penalty = np.where(self.broadcast[steps[..., 0]], question.penalty, 1.0)
        seconds = _sum_over(self.seconds, steps)
        seconds *= penalty[..., None]
        once = _sum_over(self.weight, steps)
        states = steps[..., self.first :]
        if self.saving:
            each = self._saved(steps)
            once = once + _sum_over(self.sums[2], steps)
        elif question.purpose == "training":
            each = _sum_over(self.state, states) + _sum_over(self.sums[0], steps)
            once = once + _sum_over(self.sums[1], steps)
        else:
            each = np.sort(self.state[states], -1)[..., -2:].sum(-1)
        kept = each[..., None] * self.rows
        kept += once[..., None]
        return seconds, kept

    def _saved(self, steps: Integers) -> Floats:
        """Elements for a row of the batch, as in `mponet.contraction.cost.workspace`."""
        states = self.state[steps]
        states[..., : self.first] = 0.0
        later = np.concatenate([states[..., 1:], np.zeros_like(states[..., :1])], -1)
        beside: Floats = (later + np.maximum(states, self.sums[0][steps])).max(-1)
        total: Floats = states.sum(-1) + beside
        return total


def _sum_over(values: Floats, steps: Integers) -> Floats:
    """The values of the steps, added up over the last axis of ``steps``."""
    if not steps.shape[-1]:
        return np.zeros(steps.shape[:-1] + values.shape[1:])
    total = values.take(steps[..., 0], 0)
    more = np.empty_like(total)  # the same memory for all: the system gives large arrays page by page
    for place in range(1, steps.shape[-1]):
        total += values.take(steps[..., place], 0, out=more, mode="clip")
    return total


def step_scores(
    shape: MPOShape, tiles: Sequence[int | None], question: Question, *, transposed: bool, saving: bool = False
) -> StepScores:
    """What every step of the `step_table` adds.

    Args:
        shape: the chain.
        tiles: rows at a time.
        question: what the scores are for.
        transposed: whether the state is transposed before each product.
        saving: whether a training step saves the states; only without tiles.
    """
    purpose, itemsize, machine = question.purpose, question.itemsize, question.machine
    table = step_table(shape.sites).steps
    steps = _sizes(shape, transposed=transposed)
    batch = max(question.batch, 1)
    rows = np.array([min(batch, tile or batch) for tile in tiles], float)
    loops = np.ceil(batch / rows)
    joins = apart(steps, machine)
    forms = np.full(len(table), TURNED_FORM) if transposed else (steps.suffix == 1).astype(np.intp)
    merging, weight = _merging(shape, forms, question, MERGES_SAVING if saving else MERGES[purpose])
    seconds = np.repeat(merging[:, None], len(rows), 1)
    for gathering, recomputed, chosen, some in _kinds(shape, machine.apart_limit, transposed=transposed, saving=saving):
        for sizes, times, moved in step_products(some, rows, purpose, gathering, recomputed=recomputed):
            once = machine.multiplying(sizes, times, itemsize) + machine.moving(moved * itemsize)
            seconds[chosen] += loops * (once + machine.call_overhead)
    state = steps.prefix * steps.inner * steps.suffix
    if transposed:
        moved = 2 * rows * (steps.prefix * steps.inner)[:, None] * itemsize
        seconds += loops * count_transpositions(purpose, saving) * moved / machine.transpose_bandwidth
    if saving:
        is_made = (table[:, 1] - table[:, 0] < shape.sites) | transposed  # the first state may be the inputs
        seconds += machine.saved_moves * machine.moving((is_made * state)[:, None] * rows * itemsize)
    sums = steps.rows * steps.inner
    kept = np.array([min(question.batch, tile or question.batch) for tile in tiles], float)
    each, once = np.where(joins, sums * steps.prefix, 0.0), np.where(joins, 0.0, sums)
    first = 0 if transposed else 1
    return StepScores(seconds, steps.suffix > 1, state, weight, (each, once, sums), kept, first, saving)


@lru_cache(maxsize=128)
def _kinds(
    shape: MPOShape, limit: float, *, transposed: bool, saving: bool
) -> list[tuple[Gathering, bool, Integers, _Steps]]:
    """The steps that run alike: how, whether again for gradients, which, and their sizes."""
    steps = _sizes(shape, transposed=transposed)
    joins = is_apart(steps.rows, steps.inner, steps.suffix, limit)
    is_again = (step_table(shape.sites).steps[:, 4] != SIDES.index("last")) & (not saving)
    gatherings: tuple[tuple[Gathering, NDArray[np.bool_]], ...] = (
        ("plain", steps.suffix == 1),
        ("apart", joins),
        ("joined", ~joins & (steps.suffix > 1)),
    )
    found = []
    for (gathering, mask), recomputed in product(gatherings, (True, False)):
        chosen = np.flatnonzero(mask & (is_again == recomputed))
        if len(chosen):
            found.append((gathering, recomputed, chosen, _Steps(*(sizes[chosen, None] for sizes in steps))))
    return found


@lru_cache(maxsize=128)
def _sizes(shape: MPOShape, *, transposed: bool = False) -> _Steps:
    """Sizes of every step; as in `mponet.contraction.plan.Plan.program`.

    With ``transposed``, each product reads the state with the legs that it sums over last.
    """
    if transposed:
        plain = _sizes(shape)
        return plain._replace(prefix=plain.prefix * plain.suffix, suffix=np.ones_like(plain.suffix))
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


def _merging(shape: MPOShape, forms: Integers, question: Question, merges: Merges) -> tuple[Floats, Floats]:
    """Of every step, by the form of its weight.

    Seconds to merge its group and lay it out, and elements of its weight, 0 for a view.
    """
    options = merges, question.itemsize, question.machine
    spans = _spans(shape)
    seconds = np.zeros((shape.sites + 1,) * 2)
    if spans.splits:
        own = product_seconds(spans.products, *options)
        for (first, end, split), time in zip(spans.splits, own.tolist(), strict=True):  # the shortest first
            seconds[first, end] = seconds[first, split] + seconds[split, end] + time
    _, _, first, end, side = step_table(shape.sites).steps.T
    is_copy = spans.copied[first, side, forms]
    is_view = (end - first == 1) & ~is_copy
    weight = spans.elements[first, end]
    copies = np.where(is_copy & (end - first == 1), layout_seconds(weight, *options), 0.0)
    return seconds[first, end] + copies, np.where(is_view, 0.0, weight)


class _Spans(NamedTuple):
    """Neighbouring cores merged.

    Attributes:
        elements: of the cores from ``first`` to ``end``, ``[first, end]``.
        splits: ``(first, end, split)`` of their last products, the shortest first.
        products: sizes ``(m, k, n)`` of those products, an array of each.
        copied: whether the weight of a step with a single core is a copy, ``[site, side, form]``.
    """

    elements: Floats
    splits: list[tuple[int, int, int]]
    products: tuple[Floats, Floats, Floats]
    copied: NDArray[np.bool_]


@lru_cache(maxsize=64)
def _spans(shape: MPOShape) -> _Spans:
    sites = range(shape.sites)
    bonds = np.array(shape.bond_dims, float)
    upto = np.cumprod([1.0, *(i * j for i, j in zip(shape.input_dims, shape.output_dims, strict=True))])
    elements = np.triu(bonds[:, None] * upto / upto[:, None] * bonds, 1)
    found = merge_splits(shape)
    first, end = np.array(list(found), np.intp).reshape(-1, 2).T
    split = np.array(list(found.values()), np.intp)
    products = elements[first, split] / bonds[split], bonds[split], elements[split, end] / bonds[split]
    splits = [(*span, between) for span, between in found.items()]
    copied = np.zeros((shape.sites, len(SIDES), len(FORMS)), np.bool_)
    for site, side, (form, plain) in product(sites, SIDES, enumerate(FORMS)):
        which = TURNED.get(side, side) if form == TURNED_FORM else side
        unfolding = unfold_core(shape.core_shapes[site], which, plain)
        copied[site, SIDES.index(side), form] = unfolding.axes is not None
    return _Spans(elements, splits, products, copied)
