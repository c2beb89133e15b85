"""The candidates of a shape with their predicted times and memory, all at once.

The plans of a chain are built of few different steps: which sites are left, and which of them the
step takes.  The cost of every step is computed once, as an array, and the cost of a plan is a sum
of lookups.  That is the enumeration of `mponet.contraction.search.candidates`, in the same order,
in milliseconds for any number of sites.  Sweeps of more groups than it enumerates are searched by
dynamic programming.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mponet.contraction.kernels import fusable
from mponet.contraction.plan import Plan
from mponet.contraction.program import BasePlan
from mponet.contraction.step_scores import Question, StepScores, step_scores
from mponet.contraction.sweeps import SIDES, Floats, Integers, Sweeps, fastest, step_table, sweep_of, sweeps_of
from mponet.operators.shape import MPOShape


class Kind(NamedTuple):
    """A kind of sweep.

    Attributes:
        transposed: whether the state is transposed before each product.
        saving: whether a training step saves the states.
    """

    transposed: bool
    saving: bool


KINDS = tuple(Kind(transposed, saving) for saving, transposed in product((False, True), repeat=2))


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


class _Block(NamedTuple):
    """Sweeps of one kind.

    Attributes:
        kind: their kind.
        sweeps: their steps.
        seconds: ``(cuts, orders, tiles)``.
        workspace: ``(cuts, orders, tiles)``.
    """

    kind: Kind
    sweeps: Sweeps
    seconds: Floats
    workspace: Floats


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
    # the order of `mponet.contraction.search.candidates`: counts, kinds, (cuts, orders, tiles)
    blocks = [
        _block(shape, kind, sweeps_of(shape.sites, count), one, question)
        for count in counts
        for kind, one in kinds.items()
        if allows(question, count, kind)
    ]
    if max(counts) < shape.sites:
        blocks += _fastest(shape.sites, max(counts), kinds, question)
    ends = np.cumsum([0, *(block.seconds.size for block in blocks)])

    def plan(number: int) -> Plan:
        place = int(np.searchsorted(ends, number, "right")) - 1
        kind, sweeps, times, _ = blocks[place]
        cut, order, tile = np.unravel_index(number - ends[place], times.shape)
        return Plan(shape, _groups(sweeps.bounds[cut]), sweeps.orders[order], tiles[tile], *kind)

    seconds, sizes = (np.concatenate([one.ravel() for one in every]) for every in list(zip(*blocks, strict=True))[2:])
    saves = np.repeat([block.kind.saving for block in blocks], np.diff(ends))
    return Scores(seconds, sizes, saves, plan)


def _block(shape: MPOShape, kind: Kind, sweeps: Sweeps, one: StepScores, question: Question) -> _Block:
    """The scores of sweeps of one kind."""
    if kind.transposed:  # from the left alone: the last of the orders
        sweeps = Sweeps(sweeps.bounds, sweeps.orders[-1:], sweeps.steps[:, -1:])
    block = _Block(kind, sweeps, *one.plans(sweeps.steps, question))
    if question.machine.kernel_flops and kind == KINDS[0]:
        _score_kernels(shape, block, question)
    return block


def allows(question: Question, count: int, kind: Kind) -> bool:
    """Whether sweeps of so many groups are of a kind.

    Training alone saves anything.  To save the one matrix of a plan that rebuilds it is to merge
    the cores once, on any machine.
    """
    machine = question.machine
    if kind.transposed and not (machine.transpose_bandwidth and count > 1):
        return False
    return not kind.saving or (question.purpose == "training" and (count == 1 or machine.saved_moves > 0))


def _kinds(shape: MPOShape, tiles: Sequence[int | None], question: Question) -> dict[Kind, StepScores]:
    """The scores of steps by the kind of plan; plans that save have no tiles."""
    return {
        kind: step_scores(shape, (None,) if kind.saving else tiles, question, **kind._asdict())
        for kind in KINDS
        if any(allows(question, count, kind) for count in (1, 2))
    }


def _fastest(sites: int, count: int, kinds: Mapping[Kind, StepScores], question: Question) -> list[_Block]:
    """The fastest sweeps for each tile that have more than ``count`` groups, with every tile."""
    from_right = step_table(sites).steps[:, 4] == SIDES.index("right")
    found = []
    for kind, one in kinds.items():
        if not allows(question, count + 1, kind):
            continue
        times = np.where(from_right[:, None], np.inf, one.seconds) if kind.transposed else one.seconds
        first = np.where(one.broadcast, question.penalty, 1.0)
        for steps in dict.fromkeys(fastest(sites, times, first)):
            if len(steps) > count:
                sweeps = sweep_of(sites, steps)
                found.append(_Block(kind, sweeps, *one.plans(sweeps.steps, question)))
    return found


def _score_kernels(shape: MPOShape, block: _Block, question: Question) -> None:
    """Overwrite the scores of plans that one kernel runs: whole batches from the right."""
    for cut, bounds in enumerate(block.sweeps.bounds):
        plan = Plan(shape, _groups(bounds), block.sweeps.orders[0])
        if fusable(plan):
            block.seconds[cut, 0, 0], block.workspace[cut, 0, 0] = question.seconds(plan), question.workspace(plan)


def _groups(bounds: Integers) -> tuple[int, ...]:
    return tuple(np.diff(bounds).tolist())
