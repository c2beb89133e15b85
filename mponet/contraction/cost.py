"""What a plan costs: a model of floating-point operations, bytes moved and calls.

A machine is a handful of constants.  Those here are of a two-core processor and PyTorch; `mponet
tune` measures them where it runs (`mponet.contraction.machine`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal, NamedTuple

from mponet.contraction.kernels import fusable, speed, uses_dense_gradient
from mponet.contraction.kernels import multiplications as fused_multiplications
from mponet.contraction.plan import Plan, rebuilt
from mponet.contraction.program import BasePlan, Program, Step
from mponet.operators.shape import MPOShape
from mponet.operators.topology import NetworkShape

#: ``forward``: one pass; ``training``: forward and backward; ``inference``: forward, the weights
#: merged beforehand.
Purpose = Literal["forward", "training", "inference"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Constants of the cost model.

    Attributes:
        flops: floating-point operations per second of a large matrix product in 4-byte numbers.
        half_speed_size: a product loses half its speed for each of its three sizes that is this small.
        cache_bandwidth: bytes per second while the working set fits ``cache``.
        llc_bandwidth: bytes per second while it fits ``shared``.
        memory_bandwidth: bytes per second beyond, where results also take fresh memory from the system.
        cache_bytes: bytes that a tile should keep to.
        llc_bytes: bytes of the last cache.
        call_overhead: seconds to start one operation.
        bmm_overhead: seconds to start one of the small products inside a broadcast product.
        training_memory_share: what a sweep may take beside a layer's inputs, outputs and their gradients, as a share
            of them.  A tenth is the memory of a dense layer; more where tiles, of which there must
            be many then, are slow.
        forward_memory_share: the same for a pass forward alone, which keeps nothing and gives back what it took.
        kernel_flops: floating-point operations per second, in 4-byte numbers, of kernels that keep the
            states of a sweep on the chip (`mponet.contraction.kernels`); 0 where there are none.
        transpose_bandwidth: bytes per second at which a state is turned before a product
            (`mponet.contraction.plan`); 0 where broadcast products are fast, and none has to be.
    """

    flops: float = 1.7e11
    half_speed_size: float = 3.0
    cache_bandwidth: float = 6.0e10
    llc_bandwidth: float = 2.5e10
    memory_bandwidth: float = 6.0e9
    cache_bytes: int = 1 << 22
    llc_bytes: int = 1 << 25
    call_overhead: float = 2.5e-5
    bmm_overhead: float = 1e-7
    training_memory_share: float = 0.1
    forward_memory_share: float = 0.1
    kernel_flops: float = 0.0
    transpose_bandwidth: float = 0.0

    def moving(self, size: int) -> float:
        """Seconds to move a working set of ``size`` bytes."""
        return size / (
            self.cache_bandwidth
            if size <= self.cache_bytes
            else self.llc_bandwidth
            if size <= self.llc_bytes
            else self.memory_bandwidth
        )

    def multiplying(self, sizes: tuple[int, int, int], times: int, itemsize: int) -> float:
        """Seconds of ``times`` products with these three sizes; a broadcast product if more than one."""
        speed = self.flops * 4 / itemsize * prod(size / (size + self.half_speed_size) for size in sizes)
        return 2 * times * prod(sizes) / speed + (times * self.bmm_overhead if times > 1 else 0.0)


#: Calls of a framework that take as long as the start of a kernel of ours, which Python does.
KERNEL = 3
#: Two cores and PyTorch, where a call takes Python, its reshapes and the waking of threads.
DEFAULT_COSTS = Machine()


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

    Training computes the states again up to the last step, and for each step adds up the weight's
    gradient and pulls that of the state back: two products of the same size.

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
    last = len(program.steps) - 1
    #: Both ways in training, and once more as the states are computed again.
    transpositions = 3 if purpose == "training" else 1
    # a plan that is asked for by hand has a cost on every machine
    bandwidth = machine.transpose_bandwidth or machine.memory_bandwidth
    for number, step in enumerate(program.steps):
        for sizes, times, moved in step_products(step, rows, purpose, recomputed=number < last):
            products += tiles * machine.multiplying(sizes, times, itemsize)
            moving += tiles * machine.moving(moved * itemsize)
            calls += tiles
        if step.transposition is not None:
            moving += tiles * transpositions * 2 * rows * step.prefix * step.inner * itemsize / bandwidth
    for order in program.orders:
        moving += (2 if purpose == "training" else 1) * machine.moving(2 * batch * order.elements * itemsize)
    return Cost(_merging(program, purpose, itemsize, machine), products, moving, calls * machine.call_overhead)


def dense(
    shape: MPOShape | NetworkShape,
    batch: int,
    *,
    purpose: Purpose = "forward",
    itemsize: int = 4,
    machine: Machine = DEFAULT_COSTS,
) -> Cost:
    """The predicted cost of a dense layer of this size: that of the rebuilt matrix without rebuilding it."""
    one = MPOShape.from_factors((shape.in_features,), (shape.out_features,), 1)
    return cost(rebuilt(one), batch, purpose=purpose, itemsize=itemsize, machine=machine)._replace(merging=0.0)


def workspace(plan: BasePlan, batch: int, *, purpose: Purpose = "forward", machine: Machine = DEFAULT_COSTS) -> int:
    """Largest number of elements that a pass keeps beside inputs, outputs and their gradients.

    In training the state of every step is there when the backward pass begins, and sums of
    gradients over a broadcast product keep one weight for each of its products.
    """
    if machine.kernel_flops and fusable(plan):
        matrix = plan.shape.dense_parameters if purpose == "training" and uses_dense_gradient(plan, batch) else 0
        return matrix + 2 * sum(step.rows * step.inner for step in plan.steps)
    program: Program = plan.program
    rows = min(batch, plan.tile or batch)
    states = [
        rows * step.prefix * step.inner * step.suffix
        for k, step in enumerate(program.steps)
        if k > 0 or step.transposition is not None
    ]
    weights = sum(step.rows * step.inner for step in program.steps)
    reordered = batch * sum(order.elements for order in program.orders)
    if purpose != "training":
        return weights + sum(sorted(states)[-2:]) + reordered
    sums = sum(
        step.rows * step.inner * (rows * step.prefix if apart(step.rows, step.inner, step.suffix) else 1)
        for step in program.steps
    )
    return weights + sum(states) + sums + 2 * reordered


def _fused(plan: Plan, batch: int, purpose: Purpose, itemsize: int, machine: Machine) -> Cost:
    """By kernels: one reads the inputs and writes the outputs.

    In training a second does the same backwards.  The gradients of the weights are a third, that
    reads both and does twice the multiplications at half the speed; or one product, that of the
    rebuilt matrix's gradient.
    """
    training, matrix = purpose == "training", uses_dense_gradient(plan, batch)
    size = batch * (plan.shape.in_features + plan.shape.out_features) * itemsize
    once = 2 * batch * fused_multiplications(plan) / (machine.kernel_flops * speed(plan) * 4 / itemsize)
    merging = _merging(plan.program, purpose, itemsize, machine)
    products = once
    if training and matrix:
        whole = rebuilt(plan.shape)
        merging += _merging(whole.program, purpose, itemsize, machine) / 2  # the way back alone
        sizes = (batch, plan.shape.in_features, plan.shape.out_features)
        products += once + machine.multiplying(sizes, 1, itemsize)
    elif training:
        products += 5 * once
    laying = 0 if purpose == "inference" else len(plan.groups) - 1 if purpose == "forward" else 4 * len(plan.groups)
    kernels = 3 if training else 1
    calls = KERNEL * kernels + laying
    return Cost(merging, products, kernels * machine.moving(size), calls * machine.call_overhead)


def apart(rows: int, inner: int, suffix: int) -> bool:
    """Whether sums over a broadcast product are cheaper for each product than with copies of its two factors."""
    return suffix > 1 and rows * inner <= 8 * suffix * (rows + inner)


def step_products(
    step: Step, rows: int, purpose: Purpose, *, recomputed: bool
) -> Iterator[tuple[tuple[int, int, int], int, int]]:
    """Sizes, number and elements moved of the products of a step for ``rows`` of a batch."""
    times = rows * step.prefix
    sizes = (times if step.suffix == 1 else step.suffix, step.rows, step.inner)
    count = 1 if step.suffix == 1 else times
    state, result, weight = times * step.inner * step.suffix, times * step.rows * step.suffix, step.rows * step.inner
    for _ in range(1 if purpose != "training" else 3 if recomputed else 2):  # forward, forward again, pulled back
        yield sizes, count, state + result + weight
    if purpose == "training":
        if step.suffix == 1:
            yield sizes, 1, state + result + weight
        elif apart(step.rows, step.inner, step.suffix):
            yield sizes, count, state + result + 2 * count * weight
        else:
            yield (count * step.suffix, step.rows, step.inner), 1, 3 * (state + result) + weight


def _merging(program: Program, purpose: Purpose, itemsize: int, machine: Machine) -> float:
    """Seconds of the products of tensors, and of the copies that lay them out."""
    if purpose == "inference":
        return 0.0
    forward, backward = (2, 2) if purpose == "training" else (1, 0)  # weights again, and two gradients a product
    copies = forward + backward / 2
    seconds = 0.0
    for one in program.products:
        seconds += (forward + backward) * (machine.multiplying(one.sizes, 1, itemsize) + machine.call_overhead)
        moved = machine.moving(3 * one.sizes[0] * one.sizes[2] * itemsize)
        seconds += copies * (moved + machine.call_overhead)
    unfoldings = [step.unfolding for step in program.steps]
    for one in program.products:
        unfoldings += one.left_unfolding, one.right_unfolding
    for unfolding in unfoldings:
        if unfolding is not None and unfolding.axes is not None:
            seconds += copies * (machine.moving(2 * prod(unfolding.shape) * itemsize) + machine.call_overhead)
    return seconds
