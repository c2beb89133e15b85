"""Which plan to take: the candidates for a shape, and the choice among them by the cost model."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise, product

from mponet.cost import predict
from mponet.plan import Plan
from mponet.shape import MPOShape

#: More groups than this are never cheaper for shapes of many sites, and their number grows as 3^sites.
MAX_GROUPS = 4
TILES = (16, 32, 64, 128)
#: Rows assumed where the batch is not known.
USUAL_BATCH = 128


def candidates(shape: MPOShape, batch: int | None = None) -> Iterator[Plan]:
    """Every plan worth considering: groupings, orders, and tiles below ``batch`` (None: no tiles)."""
    sites = shape.sites
    tiles = (None, *(t for t in TILES if batch is not None and 2 * t <= batch))
    for count in range(1, (sites if sites <= MAX_GROUPS + 1 else MAX_GROUPS) + 1):
        for cuts in combinations(range(1, sites), count - 1):
            groups = tuple(b - a for a, b in pairwise((0, *cuts, sites)))
            for order, tile in product(_orders(count), tiles):
                yield Plan(shape, groups, order, tile)


@lru_cache(maxsize=4096)
def choose(shape: MPOShape, batch: int | None, *, training: bool, itemsize: int = 4) -> Plan:
    """The plan with the least predicted time; ties go to the one listed first, so the choice is deterministic.

    Args:
        shape: the layer.
        batch: rows of the batch; None when it is not known while tracing, then `USUAL_BATCH` is assumed and no tiles
            are used.
        training: count the backward pass too.
        itemsize: bytes per number.
    """
    rows = USUAL_BATCH if batch is None else batch
    options = candidates(shape, batch)
    return min(options, key=lambda plan: predict(plan, rows, training=training, itemsize=itemsize))


@dataclass(frozen=True, slots=True)
class Plans:
    """The plans of a layer for one size of batch.

    Attributes:
        forward: for the forward pass.
        backward: for the backward pass, which runs the sweep again.
    """

    forward: Plan
    backward: Plan

    def __post_init__(self) -> None:
        _ = self.forward.splits, self.backward.splits  # now: a compiler that traces a layer must not work them out

    @classmethod
    def of(cls, shape: MPOShape, batch: int | None, itemsize: int = 4) -> "Plans":
        """The chosen plans; batches share a choice up to the next power of two, so that few choices are made."""
        rows = None if batch is None else 1 << max(batch - 1, 0).bit_length()
        return cls(*(choose(shape, rows, training=training, itemsize=itemsize) for training in (False, True)))


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
