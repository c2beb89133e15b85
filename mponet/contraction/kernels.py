"""Plans that a kernel can run with the states of a sweep on the chip, and what the kernel does.

Those are sweeps of two or three groups from the right, of a whole batch, whose groups are small
enough for a program to hold the rows, a state and the results of a row in registers.
"""

from collections.abc import Iterable
from math import prod
from typing import NamedTuple, TypeGuard

from mponet.contraction.plan import Plan
from mponet.contraction.program import BasePlan

#: Least size that a matrix unit multiplies; sizes are padded to powers of two of at least this.
MIN_TILE = 16
#: Largest padded size of a group of two, and most numbers of a tile that one program holds.
MAX_PAIR_SIZE, MAX_TILE_ELEMENTS = 128, 1 << 14
#: Least padded size at which a kernel runs at full speed.
FULL_SPEED_SIZE = 64
#: Rows whose dense product takes as long as the gradient of the matrix on its way to the cores:
#: that moves the matrix a few times, which takes as long as some thousand multiplications for each
#: of its numbers.
PROJECTION = 2048


class Sizes(NamedTuple):
    """Sizes of the groups of a plan.

    Attributes:
        inputs: ``I`` of each group.
        outputs: ``J`` of each group.
        bonds: those between the groups.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    bonds: tuple[int, ...]

    @classmethod
    def of(cls, plan: Plan) -> "Sizes":
        """Those of a plan."""
        shapes = plan.group_shapes
        return cls(tuple(s[1] for s in shapes), tuple(s[2] for s in shapes), tuple(s[3] for s in shapes[:-1]))

    @property
    def transposed(self) -> "Sizes":
        """Those of the transposed operator."""
        return Sizes(self.outputs, self.inputs, self.bonds)


def padded(size: int) -> int:
    """The power of two that holds it, at least `MIN_TILE`."""
    return max(MIN_TILE, 1 << (size - 1).bit_length())


def fusable(plan: BasePlan) -> TypeGuard[Plan]:
    """Whether one kernel can run the plan, forward and backward."""
    if not isinstance(plan, Plan):
        return False
    count = len(plan.groups)
    if plan.transposed or plan.saves_states or plan.tile is not None:
        return False
    if count not in (2, 3) or plan.order != tuple(range(count - 1, -1, -1)):
        return False
    sizes = Sizes.of(plan)
    return min(sizes.inputs + sizes.outputs) > 1 and all(_fit(one) for one in (sizes, sizes.transposed))


def multiplications(plan: Plan) -> int:
    """Multiplications of the kernel for one row, those with padding included."""
    sizes = Sizes.of(plan)
    inputs, outputs = _padded(sizes.inputs), _padded(sizes.outputs)
    if len(inputs) == 2:
        return sizes.bonds[0] * outputs[0] * inputs[1] * (inputs[0] + outputs[1])
    first, second = sizes.bonds
    last = second * inputs[0] * inputs[1] * inputs[2] * outputs[2]
    middle = first * second * outputs[1] * inputs[1] * inputs[0] * outputs[2]
    return last + middle + first * outputs[0] * inputs[0] * outputs[1] * outputs[2]


def speed(plan: Plan) -> float:
    """Of a kernel, as a share of the fastest.

    Small sizes leave a matrix unit waiting for numbers to be laid out.
    """
    sizes = Sizes.of(plan)
    return min(1.0, min(_padded(sizes.inputs + sizes.outputs)) / FULL_SPEED_SIZE)


def uses_dense_gradient(plan: Plan, batch: int) -> bool:
    """Whether the gradients of the weights are taken from that of the rebuilt matrix.

    Its product takes the multiplications of a dense layer, and its way back to the cores the time
    of `PROJECTION` rows. A kernel for two groups takes twice the multiplications of the sweep, at
    half the speed of a plain product; one for three would keep more than there are registers.
    """
    whole = plan.shape.dense_parameters * (batch + PROJECTION)
    return len(plan.groups) == 3 or 4 * multiplications(plan) * batch > whole


def _fit(sizes: Sizes) -> bool:
    """Whether rows, states and results of one row can be held."""
    inputs, outputs = _padded(sizes.inputs), _padded(sizes.outputs)
    held = [prod(inputs), prod(outputs), *(prod(inputs[:k]) * prod(outputs[k:]) for k in range(1, len(inputs)))]
    return max(held) <= MAX_TILE_ELEMENTS and (len(inputs) == 3 or max(inputs + outputs) <= MAX_PAIR_SIZE)


def _padded(sizes: Iterable[int]) -> tuple[int, ...]:
    return tuple(padded(size) for size in sizes)
