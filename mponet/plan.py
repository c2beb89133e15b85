"""How to contract an MPO with a batch: plans as values, and the choice of one by a cost model.

Neighbouring cores are first merged into *groups* (small, independent of the batch).  Then the batch is swept through
the groups: every step takes the leftmost or the rightmost group that is left.  With ``l`` groups done from the left and
those after ``r`` from the right, the batch is

    ``T : (batch * J_1..J_l, D_l * I_{l+1}, I_{l+2} .. I_r * D_r * J_{r+1} .. J_m)``   for a step from the left,
    ``T : (batch * J_1..J_l * D_l * I_{l+1} .. I_{r-1}, I_r * D_r, J_{r+1} .. J_m)``   for a step from the right,

both the same numbers in the same order, so that each step is one (broadcast) product ``W @ T`` and its result is
already laid out for the next: activations are never transposed, only the small group weights are.  One group is
"rebuild ``W``, then one matrix product".  *Tiles* sweep a few rows of the batch at a time, so that what lies between
two steps stays in the cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, combinations, pairwise, product
from math import ceil, prod
from typing import Literal, NamedTuple

from mponet.errors import PlanError
from mponet.shape import MPOShape

Side = Literal["left", "right", "closing"]
#: More groups than this are never cheaper for shapes of many sites, and their number grows as 3^sites.
MAX_GROUPS = 4
TILES = (16, 32, 64, 128)
#: Rows assumed where the batch is not known.
USUAL_BATCH = 128


@dataclass(frozen=True, slots=True)
class Step:
    """One product ``(rows, inner) @ (batch * prefix, inner, suffix)``; a suffix of 1 is a plain matrix product.

    Attributes:
        group: the group whose weight is used, from 0.
        side: ``left`` consumes ``(D_{g-1}, I_g)`` and leaves ``(J_g, D_g)``; ``right`` consumes ``(I_g, D_g)`` and
            leaves ``(D_{g-1}, J_g)``; ``closing`` is the last step and consumes both bonds.
        prefix: rows of ``T`` for each row of the batch.
        rows: output size ``M`` of the product.
        inner: contracted size ``K``.
        suffix: trailing size ``Q`` that is carried along.
    """

    group: int
    side: Side
    prefix: int
    rows: int
    inner: int
    suffix: int

    @property
    def multiplications(self) -> int:
        """Multiplications for one row of the batch."""
        return self.prefix * self.rows * self.inner * self.suffix


class Merging(NamedTuple):
    """How neighbouring cores become one.

    Attributes:
        multiplications: of all the products.
        split: site before which the last product joins two chains.
    """

    multiplications: int
    split: int


@lru_cache(maxsize=4096)
def merging(shape: MPOShape, first: int, end: int) -> Merging:
    """The cheapest order to merge the cores from ``first`` to before ``end``; one core needs no product."""
    if end - first == 1:
        return Merging(0, first)
    outer = shape.bond_dims[first] * prod(shape.site_sizes[first:end]) * shape.bond_dims[end]
    return min(
        Merging(
            merging(shape, first, split).multiplications
            + merging(shape, split, end).multiplications
            + outer * shape.bond_dims[split],
            split,
        )
        for split in range(first + 1, end)
    )


@dataclass(frozen=True)
class Plan:
    """A way to contract an MPO of some shape with a batch.

    Attributes:
        shape: the shape it is for.
        groups: number of neighbouring sites in each group.
        order: the groups in the order of the sweep; each is an end of those left.
        tile: rows of the batch swept at a time; None for all.

    Raises:
        PlanError: the groups do not cover the sites, or the order takes a group from the middle.
    """

    shape: MPOShape
    groups: tuple[int, ...]
    order: tuple[int, ...]
    tile: int | None = None

    def __post_init__(self) -> None:
        sites, count = self.shape.sites, len(self.groups)
        if any(type(size) is not int or size < 1 for size in self.groups) or sum(self.groups) != sites:
            raise PlanError(f"groups are {self.groups}; expected positive sizes that add up to {sites} sites")
        if not _is_sweep(self.order, count):
            raise PlanError(
                f"order is {self.order}; expected each of the {count} groups once, always an end of those left"
            )
        if self.tile is not None and (type(self.tile) is not int or self.tile < 1):
            raise PlanError(f"tile is {self.tile}; expected a whole number of at least 1 row, or None")

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """``(first, end)`` of the sites of each group, from 0, the end not included."""
        return tuple(pairwise(accumulate(self.groups, initial=0)))

    @cached_property
    def group_shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """``(D_{g-1}, I_g, J_g, D_g)`` of each merged core."""
        shape = self.shape
        return tuple(
            (shape.bond_dims[a], prod(shape.input_dims[a:b]), prod(shape.output_dims[a:b]), shape.bond_dims[b])
            for a, b in self.spans
        )

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The products, in order."""
        inputs = [i for _, i, _, _ in self.group_shapes]
        outputs = [j for _, _, j, _ in self.group_shapes]
        left, right = 0, len(self.groups) - 1
        steps = []
        for group in self.order:
            d_left, i, j, d_right = self.group_shapes[group]
            done_left, done_right = prod(outputs[:left]), prod(outputs[right + 1 :])
            outer = self.group_shapes[left][0], self.group_shapes[right][3]
            if left == right:
                steps.append(Step(group, "closing", done_left, j, d_left * i * d_right, done_right))
            elif group == left:
                rest = prod(inputs[left + 1 : right + 1]) * outer[1] * done_right
                steps.append(Step(group, "left", done_left, j * d_right, d_left * i, rest))
                left += 1
            else:
                before = done_left * outer[0] * prod(inputs[left:right])
                steps.append(Step(group, "right", before, d_left * j, i * d_right, done_right))
                right -= 1
        return tuple(steps)

    @cached_property
    def merge_multiplications(self) -> int:
        """Multiplications to merge the cores into groups, once per batch."""
        return sum(merging(self.shape, *span).multiplications for span in self.spans)

    @cached_property
    def splits(self) -> dict[tuple[int, int], int]:
        """Site before which the last product of each chain ``(first, end)`` joins two, for all groups (`merging`)."""
        found: dict[tuple[int, int], int] = {}
        pending = list(self.spans)
        while pending:
            first, end = pending.pop()
            if end - first > 1:
                split = found[first, end] = merging(self.shape, first, end).split
                pending += [(first, split), (split, end)]
        return found

    @cached_property
    def sweep_multiplications(self) -> int:
        """Multiplications of the sweep for one row of the batch."""
        return sum(step.multiplications for step in self.steps)

    def multiplications(self, batch: int) -> int:
        """Multiplications of one forward pass."""
        return self.merge_multiplications + batch * self.sweep_multiplications

    def peak_size(self, batch: int) -> int:
        """Largest number of elements of an intermediate of the sweep, in one tile."""
        rows = min(batch, self.tile or batch)
        return rows * max((step.prefix * step.rows * step.suffix for step in self.steps[:-1]), default=0)

    def with_tile(self, tile: int | None) -> "Plan":
        """The same plan with other tiles."""
        return Plan(self.shape, self.groups, self.order, tile)

    def __str__(self) -> str:
        tiles = f", tiles of {self.tile}" if self.tile else ""
        if len(self.groups) == 1:
            return f"rebuild W, 1 product{tiles}"
        sites = [f"{a + 1}-{b}" if b - a > 1 else f"{b}" for a, b in self.spans]
        return f"sweep cores {' > '.join(sites[group] for group in self.order)}{tiles}"


@dataclass(frozen=True, slots=True)
class Machine:
    """Constants of the cost model: cautious figures of a two-core processor, of which only the ratios matter.

    Attributes:
        flops: floating-point operations per second of a large matrix product in 4-byte numbers.
        near: bytes per second while the working set fits ``cache``.
        middle: bytes per second while it fits ``shared``.
        far: bytes per second beyond, where results also take fresh memory from the system.
        cache: bytes of a core's own cache.
        shared: bytes of the cache that the cores share.
        call: seconds to start one operation.
        product: seconds to start one of the small products inside a broadcast product.
        narrow: a product whose suffix is below this many columns runs proportionally slower.
    """

    flops: float = 1.5e11
    near: float = 2.0e10
    middle: float = 1.0e10
    far: float = 4.0e9
    cache: int = 1 << 21
    shared: int = 1 << 25
    call: float = 4e-6
    product: float = 1e-7
    narrow: int = 16

    def moving(self, size: int) -> float:
        """Seconds to move a working set of ``size`` bytes."""
        return size / (self.near if size <= self.cache else self.middle if size <= self.shared else self.far)


def predict(plan: Plan, batch: int, *, training: bool, itemsize: int = 4, machine: Machine = Machine()) -> float:
    """Predicted seconds of one forward pass, or with ``training`` of forward and backward.

    Backward recomputes the sweep up to its last step and runs two products for every one of forward.
    """
    batch = max(batch, 1)  # an empty batch costs the calls all the same
    rows = min(batch, plan.tile or batch)
    tiles = ceil(batch / rows)
    flops = machine.flops * 4 / itemsize
    merges, calls = (3, 4) if training else (1, 1)
    seconds = merges * (2 * plan.merge_multiplications / flops + machine.call * plan.shape.sites)
    for step in plan.steps:
        products = rows * step.prefix
        speed = flops if step.suffix == 1 else flops * min(1.0, step.suffix / machine.narrow)
        speed *= step.rows / (step.rows + 8) * step.inner / (step.inner + 8)
        size = (products * (step.inner + step.rows) * step.suffix + step.rows * step.inner) * itemsize
        started = products * machine.product if step.suffix > 1 else 0.0
        once = 2 * rows * step.multiplications / speed + machine.moving(size) + started + machine.call
        seconds += tiles * once * calls
    return seconds


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


def _is_sweep(order: tuple[int, ...], count: int) -> bool:
    """Whether ``order`` takes each of ``count`` groups once, always an end of those left."""
    left, right = 0, count - 1
    for group in order:
        if left > right or group not in (left, right):
            return False
        left, right = (left + 1, right) if group == left else (left, right - 1)
    return left > right


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
