"""The candidates of a shape with their predicted times and memory, all at once.

The plans of a chain are built of few different steps: which sites are left, and which of them the
step takes.  The cost of every step is computed once, as an array, and the cost of a plan is a sum
of lookups.  That is the enumeration of `mponet.contraction.search.candidates`, in the same order,
in milliseconds for any number of sites.  Sweeps of more groups than it enumerates are searched by
dynamic programming.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.contraction.kernels import fusable
from mponet.contraction.plan import Plan
from mponet.contraction.program import BasePlan
from mponet.contraction.step_scores import Question, StepScores, step_scores
from mponet.contraction.sweeps import SIDES, Floats, Integers, Sweeps, fastest, step_table, sweep_of, sweeps_of
from mponet.operators.shape import MPOShape

#: Kinds of sweeps: whether the states are transposed, and whether they are saved.
KINDS = ((False, False), (True, False), (False, True), (True, True))


@dataclass(frozen=True, slots=True)
class Scores:
    """Candidates with what decides between them.

    Attributes:
        seconds: predicted times.
        workspace: elements that each keeps beside inputs, outputs and their gradients.
        saves: whether each saves states.
        plan: the candidate of a number.
    """

    seconds: Floats
    workspace: Floats
    saves: NDArray[np.bool_]
    plan: Callable[[int], Any]


def score_each(plans: Sequence[BasePlan], question: Question) -> Scores:
    """The scores of some plans, one by one."""
    seconds, sizes = ([one(plan) for plan in plans] for one in (question.seconds, question.workspace))
    saves = np.array([plan.saves_states for plan in plans], bool)
    return Scores(np.array(seconds, float), np.array(sizes, float), saves, plans.__getitem__)


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
    kinds = _kinds(shape, tiles, question)
    blocks = []
    for count in counts:
        sweeps = sweeps_of(shape.sites, count)
        # (cuts, orders, tiles, kinds) is the order of `mponet.contraction.search.candidates`
        scored = np.full((2, len(sweeps.bounds), len(sweeps.orders), len(tiles), len(KINDS)), np.inf)
        for kind, one in kinds.items():
            transposed, saving = KINDS[kind]
            if not allows(question, count, transposed=transposed, saving=saving):
                continue
            orders = slice(-1, None) if transposed else slice(None)  # the last one is that from the left
            times = one.plans(sweeps.steps[:, orders], question)
            scored[:, :, orders, : one.seconds.shape[1], kind] = times
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
        transposed, saving = KINDS[kind]
        return Plan(shape, _groups(sweeps.bounds[cut]), sweeps.orders[order], tiles[tile], transposed, saving)

    sizes = np.concatenate([sizes.ravel() for _, _, sizes in blocks])
    saves = np.array([saving for _, saving in KINDS])[numbers % len(KINDS)]  # the kind is the last axis
    return Scores(every[numbers], sizes[numbers], saves, plan)


def allows(question: Question, count: int, *, transposed: bool, saving: bool) -> bool:
    """Whether sweeps of so many groups are of a kind.

    Training alone saves anything.  To save the one matrix of a plan that rebuilds it is to merge
    the cores once, on any machine.
    """
    machine = question.machine
    if transposed and not (machine.transpose_bandwidth and count > 1):
        return False
    return not saving or (question.purpose == "training" and (count == 1 or machine.saved_moves > 0))


def _kinds(shape: MPOShape, tiles: Sequence[int | None], question: Question) -> dict[int, StepScores]:
    """The scores of steps by the kind of plan, as in `KINDS`; plans that save have no tiles."""
    return {
        kind: step_scores(shape, (None,) if saving else tiles, question, transposed=transposed, saving=saving)
        for kind, (transposed, saving) in enumerate(KINDS)
        if any(allows(question, count, transposed=transposed, saving=saving) for count in (1, 2))
    }


def _fastest(
    sites: int, count: int, kinds: Mapping[int, StepScores], question: Question
) -> list[tuple[Sweeps, Floats, Floats]]:
    """The fastest sweeps for each tile that have more than ``count`` groups, with every tile."""
    from_right = step_table(sites).steps[:, 4] == SIDES.index("right")
    found = []
    for kind, one in kinds.items():
        transposed, saving = KINDS[kind]
        if not allows(question, count + 1, transposed=transposed, saving=saving):
            continue
        times = np.where(from_right[:, None], np.inf, one.seconds) if transposed else one.seconds
        first = np.where(one.broadcast, question.penalty, 1.0)
        for steps in dict.fromkeys(fastest(sites, times, first)):
            if len(steps) > count:
                sweeps = sweep_of(sites, steps)
                scored = np.full((2, 1, 1, times.shape[1], len(KINDS)), np.inf)
                scored[..., kind] = one.plans(sweeps.steps, question)
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
