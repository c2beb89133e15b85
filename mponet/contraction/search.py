"""Which plan to take: the candidates for a shape, and the choice among them by the cost model."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations, pairwise, product
from math import inf
from typing import NamedTuple

from mponet.contraction.cost import DEFAULT_COSTS, Machine, Purpose, dense, predict, workspace
from mponet.contraction.plan import Plan
from mponet.operators.shape import MPOShape

#: More groups than this are never cheaper for shapes of many sites, and their number grows as
#: 3^sites.
MAX_GROUPS = 4
TILES = (2, 4, 8, 16, 32, 64, 128, 512, 2048)
#: Rows assumed where the batch is not known.
DEFAULT_BATCH = 128
#: A sweep that begins at the left begins with a broadcast product: a little slower than the mirror
#: image, which the model does not tell apart.
LEFT_SWEEP_PENALTY = 1.03
#: Bytes of a dense weight up to which a sweep may take the memory of that and its gradient,
#: whatever else there is.
SMALL_MATRIX_BYTES = 1 << 22


def candidates(shape: MPOShape, batch: int | None = None, *, transposed: bool = False) -> Iterator[Plan]:
    """Every plan worth considering: groupings, orders, and tiles below ``batch`` (None: no tiles).

    With ``transposed`` also those that transpose the state before each product.
    """
    sites = shape.sites
    tiles = (None, *(t for t in TILES if batch is not None and 2 * t <= batch))
    for count in range(1, (sites if sites <= MAX_GROUPS + 1 else MAX_GROUPS) + 1):
        for cuts in combinations(range(1, sites), count - 1):
            groups = tuple(b - a for a, b in pairwise((0, *cuts, sites)))
            for order, tile in product(_orders(count), tiles):
                yield Plan(shape, groups, order, tile)
                if transposed and count > 1 and order == tuple(range(count)):
                    yield Plan(shape, groups, order, tile, transposed=True)


@lru_cache(maxsize=4096)
def choose(
    shape: MPOShape,
    batch: int | None,
    *,
    purpose: Purpose = "forward",
    itemsize: int = 4,
    machine: Machine = DEFAULT_COSTS,
) -> Plan:
    """The fastest predicted plan within the memory limit; the first candidate wins a tie.

    Args:
        shape: the layer.
        batch: rows of the batch; None when it is not known while tracing, then `DEFAULT_BATCH` is
            assumed and no tiles are used.
        purpose: what is run.
        itemsize: bytes per number.
        machine: where it is run.
    """
    return ranked(shape, batch, purpose=purpose, itemsize=itemsize, machine=machine)[0]


def ranked(
    shape: MPOShape,
    batch: int | None,
    *,
    purpose: Purpose = "forward",
    itemsize: int = 4,
    machine: Machine = DEFAULT_COSTS,
) -> list[Plan]:
    """The candidates, best first: those within the memory limit by predicted time, then the others by it."""
    allowed = memory_limit(shape, batch, purpose, itemsize, machine)
    options = _weighed(shape, batch, purpose, itemsize, machine)
    return [one.plan for one in sorted(options, key=lambda one: (one.workspace_bytes > allowed, one.seconds))]


def fits(plan: Plan, batch: int | None, purpose: Purpose, itemsize: int = 4, machine: Machine = DEFAULT_COSTS) -> bool:
    """Whether a plan keeps within the room; a batch that is not known is not measured by it."""
    return _workspace_bytes(plan, batch, purpose, itemsize, machine) <= memory_limit(
        plan.shape, batch, purpose, itemsize, machine
    )


@lru_cache(maxsize=4096)
def memory_limit(
    shape: MPOShape,
    batch: int | None,
    purpose: Purpose = "forward",
    itemsize: int = 4,
    machine: Machine = DEFAULT_COSTS,
) -> float:
    """Bytes that a sweep of this layer may take beside its inputs, outputs and their gradients.

    A share of those (`Machine.room`, forward alone `Machine.ahead`); and what a dense layer takes,
    a matrix and its gradient, where the matrix is small or no plan that keeps within the share is
    predicted to be as fast as a dense layer.  Some plan always fits: that which rebuilds the matrix
    takes no more.  No bound where the batch is not known.
    """
    if batch is None:
        return inf
    allowed = share(shape, batch, purpose, itemsize, machine)
    matrix = shape.dense_parameters * itemsize
    if matrix <= SMALL_MATRIX_BYTES:
        return allowed + 2 * matrix
    options = _weighed(shape, batch, purpose, itemsize, machine)
    fastest = min((one.seconds for one in options if one.workspace_bytes <= allowed), default=inf)
    wanted = dense(shape, batch, purpose=purpose, itemsize=itemsize, machine=machine).seconds
    return allowed if fastest <= wanted else allowed + 2 * matrix


def share(shape: MPOShape, batch: int, purpose: Purpose, itemsize: int, machine: Machine) -> float:
    """The part of the `room` that grows with the batch, in bytes."""
    part = machine.training_memory_share if purpose == "training" else machine.forward_memory_share
    return part * 2 * batch * (shape.in_features + shape.out_features) * itemsize


class _Weighed(NamedTuple):
    """A candidate with its predicted seconds and the bytes that it takes."""

    plan: Plan
    seconds: float
    workspace_bytes: int


@lru_cache(maxsize=4)  # for `ranked` and the `room` that it asks for; a shape of eight sites has thousands of plans
def _weighed(
    shape: MPOShape, batch: int | None, purpose: Purpose, itemsize: int, machine: Machine
) -> tuple[_Weighed, ...]:
    """All candidates, in their order."""
    rows = DEFAULT_BATCH if batch is None else batch
    found = []
    for plan in candidates(shape, batch, transposed=machine.transpose_bandwidth > 0):
        seconds = predict(plan, rows, purpose=purpose, itemsize=itemsize, machine=machine)
        handicap = 1.0 if plan.order[0] or plan.transposed else LEFT_SWEEP_PENALTY
        found.append(_Weighed(plan, seconds * handicap, _workspace_bytes(plan, batch, purpose, itemsize, machine)))
    return tuple(found)


def _workspace_bytes(plan: Plan, batch: int | None, purpose: Purpose, itemsize: int, machine: Machine) -> int:
    """Bytes of the workspace; none where the batch is not known."""
    return 0 if batch is None else workspace(plan, batch, purpose=purpose, machine=machine) * itemsize


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
