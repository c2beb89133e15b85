"""Which plan to take: the candidates for a shape, and the choice among them by the cost model.

Everything but the candidates is the same for a chain and for any other network.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations, pairwise, product
from math import inf
from typing import overload

import numpy as np

from mponet.contraction.cost import Purpose, dense, workspace
from mponet.contraction.graph_plan import GraphPlan
from mponet.contraction.graph_search import graph_candidates
from mponet.contraction.machine import DEFAULT_COSTS, Machine
from mponet.contraction.plan import Plan
from mponet.contraction.program import DEFAULT_BATCH, BasePlan
from mponet.contraction.scores import KINDS, Kind, Scores, allows, score_chain, score_each
from mponet.contraction.step_scores import Question
from mponet.operators.shape import MPOShape
from mponet.operators.topology import NetworkShape

Shape = MPOShape | NetworkShape
AnyPlan = Plan | GraphPlan

#: All sweeps of up to so many groups are candidates, and all of a chain with one site more.  There
#: are too many of more groups, about 3^sites: only the fastest of those is searched for.
MAX_GROUPS = 4
TILES = (2, 4, 8, 16, 32, 64, 128, 512, 2048)
#: A broadcast product as the first step is a little slower than as the last, which the model does
#: not tell apart.
LEFT_SWEEP_PENALTY = 1.03
#: Bytes of a dense weight up to which a sweep may take the memory of that and its gradient,
#: whatever else there is.
SMALL_MATRIX_BYTES = 1 << 22
#: Part of the time in less memory up to which a training step takes more, as far as a dense layer
#: and the last cache go: states are saved, or tiles are larger.
WORTH = 0.8
#: Factor on the time of a plan over the memory limit; no time of a plan within is this much longer.
_OVER = 1e60


def candidates(
    shape: Shape, batch: int | None = None, *, transposed: bool = False, saving: bool = False
) -> Iterator[AnyPlan]:
    """Every plan worth considering, with tiles below ``batch`` (None: no tiles).

    For a chain those are all groupings and orders of up to `MAX_GROUPS` groups; with ``transposed``
    also the plans that transpose the state before each product, with ``saving`` those that save
    states for a backward pass.  `ranked` adds the fastest sweeps of more groups.  For another
    network see `mponet.contraction.graph_search`.
    """
    tiles = _tiles(batch)
    if isinstance(shape, NetworkShape):
        for plan in graph_candidates(shape, batch, tiles):
            yield plan
            if saving and plan.tile is None:
                yield plan.saving()
        return
    for count in _group_counts(shape):
        for kind in KINDS:
            if ((transposed and count > 1) or not kind.transposed) and (saving or not kind.saving):
                yield from _sweeps(shape, count, tiles[:1] if kind.saving else tiles, kind)


def _sweeps(shape: MPOShape, count: int, tiles: tuple[int | None, ...], kind: Kind) -> Iterator[Plan]:
    """Every sweep of a chain in ``count`` groups that is of a kind."""
    orders = [tuple(range(count))] if kind.transposed else _orders(count)
    for cuts in combinations(range(1, shape.sites), count - 1):
        groups = tuple(b - a for a, b in pairwise((0, *cuts, shape.sites)))
        yield from (Plan(shape, groups, order, tile, *kind) for order, tile in product(orders, tiles))


@overload
def choose(
    shape: MPOShape, batch: int | None, *, purpose: Purpose = ..., itemsize: int = ..., machine: Machine = ...
) -> Plan: ...
@overload
def choose(
    shape: NetworkShape, batch: int | None, *, purpose: Purpose = ..., itemsize: int = ..., machine: Machine = ...
) -> GraphPlan: ...
@overload
def choose(
    shape: Shape, batch: int | None, *, purpose: Purpose = ..., itemsize: int = ..., machine: Machine = ...
) -> AnyPlan: ...
def choose(
    shape: Shape,
    batch: int | None,
    *,
    purpose: Purpose = "forward",
    itemsize: int = 4,
    machine: Machine = DEFAULT_COSTS,
) -> AnyPlan:
    """The fastest predicted plan within the memory limit; the first candidate wins a tie.

    Args:
        shape: the layer.
        batch: rows of the batch; None when it is not known while tracing, then `DEFAULT_BATCH` is
            assumed and no tiles are used.
        purpose: what is run.
        itemsize: bytes per number.
        machine: where it is run.

    >>> from mponet.operators.shape import MPOShape
    >>> print(choose(MPOShape.from_factors((64, 64), (64, 64), 4), 512, purpose="training"))
    sweep cores 2 > 1, tiles of 16
    """
    return _chosen(shape, batch, purpose, itemsize, machine)


@lru_cache(maxsize=4096)
def _chosen(shape: Shape, batch: int | None, purpose: Purpose, itemsize: int, machine: Machine) -> AnyPlan:
    return ranked(shape, batch, purpose=purpose, itemsize=itemsize, machine=machine, top=1)[0]


def ranked(
    shape: Shape,
    batch: int | None,
    *,
    purpose: Purpose = "forward",
    itemsize: int = 4,
    machine: Machine = DEFAULT_COSTS,
    memory: int | None = None,
    top: int | None = None,
) -> list[AnyPlan]:
    """The candidates, best first.

    Those within the memory limit by predicted time, then the others: by it, or, where the limit is
    given, by what they take.

    Args:
        shape: as in `choose`.
        batch: as in `choose`.
        purpose: as in `choose`.
        itemsize: as in `choose`.
        machine: as in `choose`.
        memory: the limit in bytes; None for that of `memory_limit`.
        top: how many; None for all.
    """
    scores = _scores(shape, batch, purpose, itemsize, machine)
    over = scores.workspace * itemsize > memory_limit(shape, batch, purpose, itemsize, machine, memory)
    # times that differ by rounding alone are equal: the first candidate wins, in whatever order
    # sums are taken
    bits = scores.seconds.view(np.int64)
    times = ((bits + (1 << 15)) >> 16 << 16).view(np.float64)
    if memory is not None:
        times = np.where(over, scores.workspace, times)
    if top is None or top >= len(over):
        order = np.lexsort((times, over))
    else:  # sort those alone that may be among them
        keys = np.where(over, _OVER, 1.0) * times
        few = np.flatnonzero(keys <= np.partition(keys, top - 1)[top - 1])
        order = few[np.argsort(keys[few], kind="stable")]
    return [scores.plan(int(number)) for number in order[:top]]


def count_candidates(
    shape: Shape, batch: int | None, purpose: Purpose, itemsize: int = 4, machine: Machine = DEFAULT_COSTS
) -> int:
    """Number of plans that `ranked` gives."""
    return len(_scores(shape, batch, purpose, itemsize, machine).seconds)


def fits(
    plan: BasePlan,
    batch: int | None,
    purpose: Purpose,
    itemsize: int = 4,
    machine: Machine = DEFAULT_COSTS,
    memory: int | None = None,
) -> bool:
    """Whether a plan keeps within the memory limit.

    Where the batch is not known, every plan does, but for those that save states if a limit is
    given.
    """
    taken = _workspace_bytes(plan, batch, purpose, itemsize, machine)
    return taken <= memory_limit(plan.shape, batch, purpose, itemsize, machine, memory)


@lru_cache(maxsize=4096)
def memory_limit(
    shape: Shape,
    batch: int | None,
    purpose: Purpose = "forward",
    itemsize: int = 4,
    machine: Machine = DEFAULT_COSTS,
    memory: int | None = None,
) -> float:
    """Bytes that a sweep of this layer may take beside its inputs, outputs and their gradients.

    That is ``memory`` where it is given.  Otherwise it is a share of those
    (`Machine.training_memory_share`, for a forward pass alone `Machine.forward_memory_share`).  On
    top comes what a dense layer takes for its matrix and the gradient: all of it where the matrix
    is small, or where no plan is predicted to be as fast as a dense layer otherwise; in training as
    much as the last cache holds where that is worth it (`WORTH`).  Of a chain some plan then always
    fits: the one that rebuilds the matrix.  Infinite for an unknown batch.
    """
    if batch is None or memory is not None:
        return inf if memory is None else memory
    allowed, matrix = share(shape, batch, purpose, itemsize, machine), shape.dense_parameters * itemsize
    every = allowed + 2 * matrix
    if matrix <= SMALL_MATRIX_BYTES:
        return every
    scores = _scores(shape, batch, purpose, itemsize, machine)

    def fastest(limit: float) -> float:
        return float(scores.seconds[scores.workspace * itemsize <= limit].min(initial=inf))

    roomy = min(allowed + machine.llc_bytes, every)
    if purpose == "training" and fastest(roomy) < WORTH * fastest(allowed):
        allowed = roomy
    wanted = dense(shape, batch, purpose=purpose, itemsize=itemsize, machine=machine).seconds
    return allowed if fastest(allowed) <= wanted else every


def share(shape: Shape, batch: int, purpose: Purpose, itemsize: int, machine: Machine) -> float:
    """The part of the `memory_limit` that grows with the batch, in bytes."""
    part = machine.training_memory_share if purpose == "training" else machine.forward_memory_share
    return part * 2 * batch * (shape.in_features + shape.out_features) * itemsize


@lru_cache(maxsize=8)  # for `ranked` and the `memory_limit` that it asks for
def _scores(shape: Shape, batch: int | None, purpose: Purpose, itemsize: int, machine: Machine) -> Scores:
    """All candidates, in their order."""
    rows = DEFAULT_BATCH if batch is None else batch
    question = Question(rows, purpose, itemsize, machine, LEFT_SWEEP_PENALTY)
    if isinstance(shape, MPOShape):
        scores = score_chain(shape, _tiles(batch), _group_counts(shape), question)
    else:
        plans = ((plan, Kind(False, plan.saves_states)) for plan in candidates(shape, batch, saving=True))
        scores = score_each([plan for plan, kind in plans if allows(question, len(plan.steps), kind)], question)
    if batch is None:  # what is taken is not known
        scores.workspace[:] = np.where(scores.saves, inf, 0.0)
    return scores


def _tiles(batch: int | None) -> tuple[int | None, ...]:
    return None, *(tile for tile in TILES if batch is not None and 2 * tile <= batch)


def _group_counts(shape: MPOShape) -> range:
    return range(1, (shape.sites if shape.sites <= MAX_GROUPS + 1 else MAX_GROUPS) + 1)


def _workspace_bytes(plan: BasePlan, batch: int | None, purpose: Purpose, itemsize: int, machine: Machine) -> float:
    """Bytes of the workspace; for an unknown batch none, or without a limit if states are saved."""
    if batch is None:
        return inf if plan.saves_states else 0
    return workspace(plan, batch, purpose=purpose, machine=machine) * itemsize


def _orders(count: int) -> list[tuple[int, ...]]:
    """All orders of ``count`` groups in which each is an end of those left."""
    orders = []
    for sides in product((False, True), repeat=count - 1):
        left, right, order = 0, count - 1, []
        for take_left in sides:
            order.append(left if take_left else right)
            left, right = (left + 1, right) if take_left else (left, right - 1)
        orders.append((*order, left))
    return orders
