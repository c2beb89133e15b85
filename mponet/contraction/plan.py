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
can be *transposed*: the batch is transposed before each product, ``(batch * J_1..J_{l-1}, I_{l+1},
I_{l+2} .. I_m, J_l, D_l)`` to ``(batch * J_1..J_l, I_{l+2} .. I_m, I_{l+1}, D_l)``, and every
product is a plain one.  The bond stays last, so that whole rows of it move.

*Tiles* sweep a few rows of the batch at a time, so that what lies between two steps stays in the
cache.

The backward pass needs the states of the steps. It computes them again, tile by tile, or the
forward pass *saves* them, which takes memory for the whole batch and one product less for each step
but the last.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from math import prod

from mponet.contraction.merging import TURNED, Side, group_shape, lay_out
from mponet.contraction.program import BasePlan, Program, Step, Transposition, WeightProduct
from mponet.errors import PlanError
from mponet.operators.shape import MPOShape


@dataclass(frozen=True)
class Plan(BasePlan):
    """A way to contract an MPO of some shape with a batch.

    Attributes:
        shape: the shape it is for.
        groups: number of neighbouring sites in each group.
        order: the groups in the order of the sweep; each is an end of those left.
        tile: rows of the batch swept at a time; None for all.
        transposed: whether the state is transposed before each product, so that none is a broadcast
            product.
        saves_states: whether a training step saves weights and states for the backward pass.

    >>> plan = Plan(MPOShape.from_factors((8, 4, 4), (4, 4, 8), 2), (1, 2), (1, 0), tile=16)
    >>> print(plan)
    sweep cores 2-3 > 1, tiles of 16
    >>> plan.multiplications(100), 100 * plan.shape.dense_parameters
    (1026048, 1638400)

    Raises:
        PlanError: the groups do not cover the sites, the order takes a group from the middle,
            a transposed plan does not sweep from the left, or one that saves states has tiles.
    """

    shape: MPOShape
    groups: tuple[int, ...]
    order: tuple[int, ...]
    tile: int | None = None
    transposed: bool = False
    saves_states: bool = False

    def __post_init__(self) -> None:
        sites, count = self.shape.sites, len(self.groups)
        if any(type(size) is not int or size < 1 for size in self.groups) or sum(self.groups) != sites:
            raise PlanError(f"groups are {self.groups}; expected positive sizes that add up to {sites} sites")
        if not _is_sweep(self.order, count):
            raise PlanError(
                f"order is {self.order}; expected each of the {count} groups once, always an end of those left"
            )
        self._check_options()
        if self.transposed and (count == 1 or self.order != tuple(range(count))):
            raise PlanError(f"order is {self.order}; expected several groups from the left for a transposed plan")

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """``(first, end)`` of the sites of each group, from 0, the end not included."""
        return tuple(pairwise(accumulate(self.groups, initial=0)))

    @cached_property
    def group_shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """``(D_{g-1}, I_g, J_g, D_g)`` of each merged core."""
        return tuple(group_shape(self.shape, *span) for span in self.spans)

    @cached_property
    def sides(self) -> tuple[Side, ...]:
        """The side of each step: ``left`` or ``right`` of the groups that are left, or ``last``.

        A step from the left consumes ``(D_{g-1}, I_g)`` and leaves ``(J_g, D_g)``, one from the
        right consumes ``(I_g, D_g)`` and leaves ``(D_{g-1}, J_g)``; the last consumes both bonds.
        """
        sides: list[Side] = []
        first = 0
        for group in self.order[:-1]:
            sides.append("left" if group == first else "right")
            first += group == first
        return (*sides, "last")

    @cached_property
    def program(self) -> Program:
        """The products of the plan."""
        shape = self.shape
        products: list[WeightProduct] = []
        steps: list[Step] = []
        inputs = [i for _, i, _, _ in self.group_shapes]
        outputs = [j for _, _, j, _ in self.group_shapes]
        left, right = 0, len(self.groups) - 1
        for group, side in zip(self.order, self.sides, strict=True):
            d_left, i, j, d_right = self.group_shapes[group]
            done_left, done_right = prod(outputs[:left]), prod(outputs[right + 1 :])
            if side == "last":
                prefix, rows, inner, suffix = done_left, j, d_left * i * d_right, done_right
            elif side == "left":
                rest = prod(inputs[left + 1 : right + 1]) * self.group_shapes[right][3] * done_right
                prefix, rows, inner, suffix = done_left, j * d_right, d_left * i, rest
            else:
                before = done_left * self.group_shapes[left][0] * prod(inputs[left:right])
                prefix, rows, inner, suffix = before, d_left * j, i * d_right, done_right
            left, right = left + (side == "left"), right - (side == "right")
            transposition = None
            if self.transposed:
                previous = outputs[group - 1] if group else 1
                # (batch * J_1 .., I, rest, J, D) to (batch * J_1 .., J, rest, I, D)
                transposition = Transposition.of(prefix // previous, (i, suffix, previous, d_left), (2, 1, 0, 3))
                prefix, suffix = prefix * suffix, 1
                side = TURNED[side]
            weight, unfolding = lay_out(shape, self.spans[group], side, suffix == 1, products)
            steps.append(Step(weight, unfolding, prefix, rows, inner, suffix, transposition))
        return Program(shape.in_features, shape.out_features, shape.core_shapes, tuple(products), tuple(steps))

    @cached_property
    def weights_key(self) -> tuple[object, ...]:
        """Groups, order and whether states are transposed."""
        return self.groups, self.order, self.transposed

    def __str__(self) -> str:
        options = (", transposed" if self.transposed else "") + self._options
        if len(self.groups) == 1:
            return f"rebuild W, 1 product{options}"
        sites = [f"{a + 1}-{b}" if b - a > 1 else f"{b}" for a, b in self.spans]
        return f"sweep cores {' > '.join(sites[group] for group in self.order)}{options}"


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
