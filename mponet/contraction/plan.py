"""How to contract an MPO with a batch: plans as values.

Neighbouring cores are first merged into *groups* (small, independent of the batch).  Then the batch
is swept through the groups: every step takes the leftmost or the rightmost group that is left.
With ``l`` groups done from the left and those after ``r`` from the right, the batch is

    ``T : (batch * J_1..J_l, D_l * I_{l+1}, I_{l+2} .. I_r * D_r * J_{r+1} .. J_m)``   for a step
    from the left, ``T : (batch * J_1..J_l * D_l * I_{l+1} .. I_{r-1}, I_r * D_r, J_{r+1} .. J_m)``
    for a step from the right,

both the same numbers in the same order, so that each step is one (broadcast) product ``W @ T`` and
its result is already laid out for the next: activations are never transposed, only the small group
weights are.  One group is "rebuild ``W``, then one matrix product".

Some compilers transpose what a broadcast product takes and gives.  For those a sweep from the left
can be *turned*: the batch is transposed before each product, ``(batch * J_1..J_{l-1}, I_{l+1},
I_{l+2} .. I_m, J_l, D_l)`` to ``(batch * J_1..J_l, I_{l+2} .. I_m, D_l, I_{l+1})``, and every
product is a plain one.

*Tiles* sweep a few rows of the batch at a time, so that what lies between two steps stays in the
cache.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from math import prod

from mponet.contraction.merging import MergePlan, Side, grouping, merging
from mponet.display import NotebookRepr
from mponet.errors import PlanError
from mponet.operators.shape import MPOShape


@dataclass(frozen=True, slots=True)
class Step:
    """One product ``(rows, inner) @ (batch * prefix, inner, suffix)``; a suffix of 1 is a plain matrix product.

    Attributes:
        group: the group whose weight is used, from 0.
        side: ``left`` consumes ``(D_{g-1}, I_g)`` and leaves ``(J_g, D_g)``; ``right`` consumes
            ``(I_g, D_g)`` and leaves ``(D_{g-1}, J_g)``; ``last`` is the last step and consumes
            both bonds.
        prefix: rows of ``T`` for each row of the batch.
        rows: output size ``M`` of the product.
        inner: contracted size ``K``.
        suffix: trailing size ``Q`` that is carried along.
        turn: sizes ``(I, rest, J, D)`` of the state as it comes, behind what is done, to be
            transposed to ``(J, rest, D, I)``; None where it lies as it should.
    """

    group: int
    side: Side
    prefix: int
    rows: int
    inner: int
    suffix: int
    turn: tuple[int, int, int, int] | None = None

    @property
    def multiplications(self) -> int:
        """Multiplications for one row of the batch."""
        return self.prefix * self.rows * self.inner * self.suffix


@dataclass(frozen=True)
class Plan(NotebookRepr):
    """A way to contract an MPO of some shape with a batch.

    Attributes:
        shape: the shape it is for.
        groups: number of neighbouring sites in each group.
        order: the groups in the order of the sweep; each is an end of those left.
        tile: rows of the batch swept at a time; None for all.
        turned: whether the state is transposed before each product, so that none is a broadcast
            product.

    Raises:
        PlanError: the groups do not cover the sites, the order takes a group from the middle, or
            what is turned is no sweep from the left.
    """

    shape: MPOShape
    groups: tuple[int, ...]
    order: tuple[int, ...]
    tile: int | None = None
    transposed: bool = False

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
        if self.transposed and (count == 1 or self.order != tuple(range(count))):
            raise PlanError(f"order is {self.order}; expected several groups from the left where the state is turned")

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
        return self._turned_steps() if self.transposed else self._steps()

    def _steps(self) -> tuple[Step, ...]:
        inputs = [i for _, i, _, _ in self.group_shapes]
        outputs = [j for _, _, j, _ in self.group_shapes]
        left, right = 0, len(self.groups) - 1
        steps = []
        for group in self.order:
            d_left, i, j, d_right = self.group_shapes[group]
            done_left, done_right = prod(outputs[:left]), prod(outputs[right + 1 :])
            outer = self.group_shapes[left][0], self.group_shapes[right][3]
            if left == right:
                steps.append(Step(group, "last", done_left, j, d_left * i * d_right, done_right))
            elif group == left:
                rest = prod(inputs[left + 1 : right + 1]) * outer[1] * done_right
                steps.append(Step(group, "left", done_left, j * d_right, d_left * i, rest))
                left += 1
            else:
                before = done_left * outer[0] * prod(inputs[left:right])
                steps.append(Step(group, "right", before, d_left * j, i * d_right, done_right))
                right -= 1
        return tuple(steps)

    def _turned_steps(self) -> tuple[Step, ...]:
        steps, before = [], 1
        for step, (d_left, i, _, _) in zip(self._steps(), self.group_shapes, strict=True):
            turn = i, step.suffix, before, d_left
            steps.append(Step(step.group, step.side, step.prefix * step.suffix, step.rows, step.inner, 1, turn))
            before = self.group_shapes[step.group][2]
        return tuple(steps)

    @cached_property
    def grouping(self) -> MergePlan:
        """How the cores become the weights of the steps."""
        return grouping(self.shape, self.spans, tuple((s.group, s.side, s.suffix == 1) for s in self.steps))

    @cached_property
    def merge_multiplications(self) -> int:
        """Multiplications to merge the cores into groups, once per batch."""
        return sum(merging(self.shape, *span).multiplications for span in self.spans)

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
        return replace(self, tile=tile)

    def __str__(self) -> str:
        tiles = (", transposed" if self.transposed else "") + (f", tiles of {self.tile}" if self.tile else "")
        if len(self.groups) == 1:
            return f"rebuild W, 1 product{tiles}"
        sites = [f"{a + 1}-{b}" if b - a > 1 else f"{b}" for a, b in self.spans]
        return f"sweep cores {' > '.join(sites[group] for group in self.order)}{tiles}"


@lru_cache(maxsize=4096)
def rebuilt(shape: MPOShape) -> Plan:
    """The plan that rebuilds ``W``: one group, one product."""
    return Plan(shape, (shape.sites,), (0,))


def _is_sweep(order: tuple[int, ...], count: int) -> bool:
    """Whether ``order`` takes each of ``count`` groups once, always an end of those left."""
    left, right = 0, count - 1
    for group in order:
        if left > right or group not in (left, right):
            return False
        left, right = (left + 1, right) if group == left else (left, right - 1)
    return left > right
