"""What a plan costs: a model of floating-point operations, bytes moved and calls.

The constants are those of a machine (`mponet.contraction.machine`).
"""

from collections.abc import Iterator, Mapping
from math import ceil, prod
from typing import Any, Literal, NamedTuple, Protocol

from mponet.contraction.kernels import fusable, speed, uses_dense_gradient
from mponet.contraction.kernels import multiplications as fused_multiplications
from mponet.contraction.machine import DEFAULT_COSTS, Machine
from mponet.contraction.plan import Plan, rebuilt
from mponet.contraction.program import BasePlan, Program, Step, Unfolding
from mponet.operators.shape import MPOShape
from mponet.operators.topology import NetworkShape

#: ``forward``: one pass; ``training``: forward and backward; ``inference``: forward, the weights
#: merged beforehand.
Purpose = Literal["forward", "training", "inference"]


#: How often the tensors are merged, and products taken for their gradients; weights that are not
#: saved are made again for a backward pass.
Merges = tuple[int, int]
MERGES: Mapping[Purpose, Merges] = {"inference": (0, 0), "forward": (1, 0), "training": (2, 2)}
MERGES_SAVING: Merges = (1, 2)
#: How the gradient of a step's weight adds up: one product; a product for each of a broadcast; one
#: product of copies.
Gathering = Literal["plain", "apart", "joined"]
#: Calls of a framework that take as long as the start of a kernel of ours, which Python does.
KERNEL = 3


class StepSizes(Protocol):
    """A step, or arrays for many."""

    @property
    def prefix(self) -> Any:
        """Rows of the state for each row of the batch."""

    @property
    def rows(self) -> Any:
        """Output size of the product."""

    @property
    def inner(self) -> Any:
        """Contracted size."""

    @property
    def suffix(self) -> Any:
        """Trailing size that is carried along."""


class Cost(NamedTuple):
    """Where the time goes, in seconds.

    Attributes:
        merging: cores into weights, and the weights' gradients back.
        products: the arithmetic of the sweep.
        moving: what the sweep reads and writes.
        calls: the number of operations, times what it takes to start one.
    """

    merging: float
    products: float
    moving: float
    calls: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(self)


def predict(
    plan: BasePlan, batch: int, *, purpose: Purpose = "forward", itemsize: int = 4, machine: Machine = DEFAULT_COSTS
) -> float:
    """Predicted seconds, as `cost` adds them up."""
    return cost(plan, batch, purpose=purpose, itemsize=itemsize, machine=machine).seconds


def cost(
    plan: BasePlan, batch: int, *, purpose: Purpose = "forward", itemsize: int = 4, machine: Machine = DEFAULT_COSTS
) -> Cost:
    """The predicted cost of a plan.

    Training computes the states again up to the last step, unless the plan saves them, and for each
    step adds up the weight's gradient and pulls that of the state back: two products of the same
    size.

    Args:
        plan: the plan.
        batch: rows.
        purpose: what is run.
        itemsize: bytes per number.
        machine: where.
    """
    batch = max(batch, 1)  # an empty batch costs the calls all the same
    if machine.kernel_flops and fusable(plan):
        return _fused(plan, batch, purpose, itemsize, machine)
    program: Program = plan.program
    rows = min(batch, plan.tile or batch)
    tiles = ceil(batch / rows)
    products = moving = 0.0
    calls = 0
    saves = purpose == "training" and plan.saves_states
    last = 0 if saves else len(program.steps) - 1  # steps from here on are not computed again
    transpositions = count_transpositions(purpose, saves)
    # a plan that is asked for by hand has a cost on every machine
    bandwidth = machine.transpose_bandwidth or machine.memory_bandwidth
    for number, step in enumerate(program.steps):
        for sizes, times, moved in step_products(
            step, rows, purpose, gathering(step, machine), recomputed=number < last
        ):
            products += tiles * machine.multiplying(sizes, times, itemsize)
            moving += tiles * machine.moving(moved * itemsize)
            calls += tiles
        if step.transposition is not None:
            moving += tiles * transpositions * 2 * rows * step.prefix * step.inner * itemsize / bandwidth
    if saves:
        moving += machine.saved_moves * sum(machine.moving(size * itemsize) for size in _states(program, batch))
    for order in program.orders:
        moving += (2 if purpose == "training" else 1) * machine.moving(2 * batch * order.elements * itemsize)
    merges = MERGES_SAVING if saves else MERGES[purpose]
    return Cost(_merging(program, merges, itemsize, machine), products, moving, calls * machine.call_overhead)


def count_transpositions(purpose: Purpose, saves: bool) -> int:
    """How often a state is transposed: both ways in training, and once more to compute it again."""
    return (2 if saves else 3) if purpose == "training" else 1


def dense(
    shape: MPOShape | NetworkShape,
    batch: int,
    *,
    purpose: Purpose = "forward",
    itemsize: int = 4,
    machine: Machine = DEFAULT_COSTS,
) -> Cost:
    """The predicted cost of a dense layer of this size.

    That of the rebuilt matrix without rebuilding it.
    """
    one = MPOShape.from_factors((shape.in_features,), (shape.out_features,), 1)
    return cost(rebuilt(one), batch, purpose=purpose, itemsize=itemsize, machine=machine)._replace(merging=0.0)


def workspace(plan: BasePlan, batch: int, *, purpose: Purpose = "forward", machine: Machine = DEFAULT_COSTS) -> int:
    """Largest number of elements that a pass keeps beside inputs, outputs and their gradients.

    In training the state of every step is there when the backward pass begins, and sums of
    gradients over a broadcast product keep one weight for each of its products. Gradients of states
    take the memory of the states, unless those are saved; then each such sum is gone before the
    gradient of the state is made.
    """
    if machine.kernel_flops and fusable(plan):
        matrix = plan.shape.dense_parameters if purpose == "training" and uses_dense_gradient(plan, batch) else 0
        return matrix + 2 * sum(step.rows * step.inner for step in plan.steps)
    program: Program = plan.program
    rows = min(batch, plan.tile or batch)
    states, weights = _states(program, rows), _weights(program)
    reordered = batch * sum(order.elements for order in program.orders)
    if purpose != "training":
        return weights + sum(sorted(states)[-2:]) + reordered
    if plan.saves_states:
        made = [0] * (len(program.steps) - len(states)) + states  # 0 where the state is the inputs
        apart_sums = [
            step.rows * step.inner * rows * step.prefix if apart(step, machine) else 0 for step in program.steps
        ]
        later = [*made[1:], 0]
        beside = max(after + max(own, total) for after, own, total in zip(later, made, apart_sums, strict=True))
        sums = sum(step.rows * step.inner for step in program.steps)
        return weights + sum(states) + beside + sums + 2 * reordered
    sums = sum(step.rows * step.inner * (rows * step.prefix if apart(step, machine) else 1) for step in program.steps)
    return weights + sum(states) + sums + 2 * reordered


def saved(plan: BasePlan, batch: int) -> int:
    """Elements that a plan saves between the passes of a training step, beside its inputs."""
    return _weights(plan.program) + sum(_states(plan.program, batch)) if plan.saves_states else 0


def _states(program: Program, rows: int) -> list[int]:
    """Elements of the states of so many rows, but for the first where that is the inputs."""
    return [
        rows * step.prefix * step.inner * step.suffix
        for k, step in enumerate(program.steps)
        if k > 0 or step.transposition is not None
    ]


def _weights(program: Program) -> int:
    """Elements of the weights; one that is a view of its tensor takes no memory."""
    laid_out = [step for step in program.steps if step.unfolding is None or step.unfolding.axes is not None]
    return sum(step.rows * step.inner for step in laid_out)


def _fused(plan: Plan, batch: int, purpose: Purpose, itemsize: int, machine: Machine) -> Cost:
    """By kernels: one reads the inputs and writes the outputs.

    In training a second does the same backwards.  The gradients of the weights are a third, that
    reads both and does twice the multiplications at half the speed; or one product, that of the
    rebuilt matrix's gradient.
    """
    training, matrix = purpose == "training", uses_dense_gradient(plan, batch)
    size = batch * (plan.shape.in_features + plan.shape.out_features) * itemsize
    once = 2 * batch * fused_multiplications(plan) / (machine.kernel_flops * speed(plan) * 4 / itemsize)
    merging = _merging(plan.program, MERGES[purpose], itemsize, machine)
    products = once
    if training and matrix:
        whole = rebuilt(plan.shape)
        merging += _merging(whole.program, MERGES[purpose], itemsize, machine) / 2  # the way back alone
        sizes = (batch, plan.shape.in_features, plan.shape.out_features)
        products += once + machine.multiplying(sizes, 1, itemsize)
    elif training:
        products += 5 * once
    laying = 0 if purpose == "inference" else len(plan.groups) - 1 if purpose == "forward" else 4 * len(plan.groups)
    kernels = 3 if training else 1
    calls = KERNEL * kernels + laying
    return Cost(merging, products, kernels * machine.moving(size), calls * machine.call_overhead)


def apart(step: StepSizes, machine: Machine) -> Any:
    """Whether sums over a broadcast product are cheaper for each product than with copies.

    Of each step, for arrays of sizes.
    """
    return is_apart(step.rows, step.inner, step.suffix, machine.apart_limit)


def is_apart(rows: Any, inner: Any, suffix: Any, limit: float) -> Any:
    """`apart` by the sizes of a step and the limit of a machine."""
    return (suffix > 1) & (rows * inner <= limit * suffix * (rows + inner))


def gathering(step: Step, machine: Machine) -> Gathering:
    """How the gradient of a step's weight adds up."""
    if step.suffix == 1:
        return "plain"
    return "apart" if apart(step, machine) else "joined"


def step_products(
    step: StepSizes, rows: Any, purpose: Purpose, summed: Gathering, *, recomputed: bool
) -> Iterator[tuple[tuple[Any, Any, Any], Any, Any]]:
    """Sizes, number and elements moved of the products of a step for ``rows`` of a batch.

    Sizes may be numbers, or arrays for many steps with the same ``summed`` at once.

    Args:
        step: sizes of the step, or of many.
        rows: of the batch, in one tile.
        purpose: what is run.
        summed: how the gradient of the weight adds up.
        recomputed: whether training runs the forward product twice; not that of the last step, and
            not where states are saved.
    """
    times = rows * step.prefix
    plain = summed == "plain"
    sizes = (times if plain else step.suffix, step.rows, step.inner)
    count = 1 if plain else times
    state, result, weight = times * step.inner * step.suffix, times * step.rows * step.suffix, step.rows * step.inner
    for _ in range(1 if purpose != "training" else 3 if recomputed else 2):  # forward, forward again, pulled back
        yield sizes, count, state + result + weight
    if purpose == "training":
        if plain:
            yield sizes, 1, state + result + weight
        elif summed == "apart":
            yield sizes, count, state + result + 2 * count * weight
        else:
            yield (count * step.suffix, step.rows, step.inner), 1, 3 * (state + result) + weight


def _merging(program: Program, merges: Merges, itemsize: int, machine: Machine) -> float:
    """Seconds of the products of tensors, and of the copies that lay them out."""
    unfoldings = [step.unfolding for step in program.steps]
    seconds = 0.0
    for one in program.products:
        seconds += product_seconds(one.sizes, merges, itemsize, machine)
        unfoldings += one.left_unfolding, one.right_unfolding
    return seconds + sum(copy_seconds(unfolding, merges, itemsize, machine) for unfolding in unfoldings)


def product_seconds(sizes: tuple[Any, Any, Any], merges: Merges, itemsize: int, machine: Machine) -> Any:
    """Seconds of one product of tensors ``(m, k) @ (k, n)`` and of laying out its result."""
    forward, backward = merges
    products = (forward + backward) * (machine.multiplying(sizes, 1, itemsize) + machine.call_overhead)
    moved = machine.moving(3 * sizes[0] * sizes[2] * itemsize)
    return products + (forward + backward / 2) * (moved + machine.call_overhead)


def copy_seconds(unfolding: Unfolding | None, merges: Merges, itemsize: int, machine: Machine) -> float:
    """Seconds to lay out a tensor; none where its numbers stay in place."""
    if unfolding is None or unfolding.axes is None:
        return 0.0
    return float(layout_seconds(prod(unfolding.shape), merges, itemsize, machine))


def layout_seconds(elements: Any, merges: Merges, itemsize: int, machine: Machine) -> Any:
    """Seconds to copy so many elements into another order; of each, for an array."""
    forward, backward = merges
    return (forward + backward / 2) * (machine.moving(2 * elements * itemsize) + machine.call_overhead)
