"""The candidates of a shape with their predicted times and memory, all at once.

The plans of a chain are built of few different steps: which sites are left, and which of them the
step takes.  The cost of every step is computed once, as an array, and the cost of a plan is a sum
of lookups.  That is the enumeration of `mponet.contraction.search.candidates`, in the same order,
in milliseconds for any number of sites.  Sweeps of more groups than it enumerates are searched by
dynamic programming.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mponet.contraction.kernels import fusable
from mponet.contraction.plan import Plan
from mponet.contraction.program import BasePlan
from mponet.contraction.step_scores import Question, StepScores, step_scores
from mponet.contraction.sweeps import SIDES, Floats, Integers, Sweeps, fastest, step_table, sweep_of, sweeps_of
from mponet.operators.shape import MPOShape


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


def score_each(plans: Sequence[BasePlan], question: Question) -> Scores:
    """The scores of some plans, one by one."""
    seconds, sizes = ([one(plan) for plan in plans] for one in (question.seconds, question.workspace))
    return Scores(np.array(seconds, float), np.array(sizes, float), plans.__getitem__)


def score_chain(shape: MPOShape, tiles: Sequence[int | None], counts: Sequence[int], question: Question) -> Scores:
    """The scores of sweeps of a chain.

    Those of all sweeps with the given numbers of groups; where there may be more groups, also those
    of the fastest sweeps of all.

    Args:
        shape: the chain.
        tiles: rows at a time.
        counts: numbers of groups.
        question: what they are for.
    """
    kinds = [step_scores(shape, tiles, question, transposed=False)]
    if question.machine.transpose_bandwidth:
        kinds.append(step_scores(shape, tiles, question, transposed=True))
    blocks = []
    for count in counts:
        sweeps = sweeps_of(shape.sites, count)
        # (cuts, orders, tiles, transposed or not) is the order of
        # `mponet.contraction.search.candidates`
        scored = np.full((2, len(sweeps.bounds), len(sweeps.orders), len(tiles), len(kinds)), np.inf)
        scored[..., 0] = kinds[0].plans(sweeps.steps, question)
        if len(kinds) == 2 and count > 1:  # only a sweep from the left may be transposed: the last order
            scored[:, :, -1:, :, 1] = kinds[1].plans(sweeps.steps[:, -1:], question)
        if question.machine.kernel_flops:
            _score_kernels(shape, sweeps, scored, question)
        blocks.append((sweeps, scored[0], scored[1]))
    if max(counts) < shape.sites:
        blocks += _fastest(shape.sites, max(counts), kinds, question)
    ends = np.cumsum([0, *(times.size for _, times, _ in blocks)])
    every = np.concatenate([times.ravel() for _, times, _ in blocks])
    numbers = np.flatnonzero(np.isfinite(every))

    def plan(number: int) -> Plan:
        place = int(numbers[number])
        block = int(np.searchsorted(ends, place, "right")) - 1
        sweeps, times, _ = blocks[block]
        cut, order, tile, kind = np.unravel_index(place - ends[block], times.shape)
        return Plan(shape, _groups(sweeps.bounds[cut]), sweeps.orders[order], tiles[tile], transposed=bool(kind))

    return Scores(every[numbers], np.concatenate([sizes.ravel() for _, _, sizes in blocks])[numbers], plan)


def _fastest(
    sites: int, count: int, kinds: Sequence[StepScores], question: Question
) -> list[tuple[Sweeps, Floats, Floats]]:
    """The fastest sweeps for each tile that have more than ``count`` groups, with every tile."""
    seconds = [one.seconds for one in kinds]
    if len(kinds) == 2:  # a transposed sweep goes from the left
        from_right = step_table(sites).steps[:, 4] == SIDES.index("right")
        seconds[1] = np.where(from_right[:, None], np.inf, seconds[1])
    found = []
    for kind, times in enumerate(seconds):
        first = np.where(kinds[kind].broadcast, question.penalty, 1.0)
        for steps in dict.fromkeys(fastest(sites, times, first)):
            if len(steps) > count:
                sweeps = sweep_of(sites, steps)
                scored = np.full((2, 1, 1, times.shape[1], len(kinds)), np.inf)
                scored[..., kind] = kinds[kind].plans(sweeps.steps, question)
                found.append((sweeps, scored[0], scored[1]))
    return found


def _score_kernels(shape: MPOShape, sweeps: Sweeps, scored: Floats, question: Question) -> None:
    """Overwrite the scores of plans that one kernel runs: whole batches from the right."""
    for cut, bounds in enumerate(sweeps.bounds):
        plan = Plan(shape, _groups(bounds), sweeps.orders[0])
        if fusable(plan):
            scored[:, cut, 0, 0, 0] = question.seconds(plan), question.workspace(plan)


def _groups(bounds: Integers) -> tuple[int, ...]:
    return tuple(np.diff(bounds).tolist())
