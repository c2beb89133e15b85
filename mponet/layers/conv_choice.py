"""Which plan a convolution takes.

The candidates, what each is predicted to cost, and the choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import get_args

from mponet.contraction.cost import Purpose
from mponet.contraction.machine import Machine
from mponet.contraction.memory import memory_budget
from mponet.contraction.planner import ITEMSIZE, PlanningContext, rounded, time_text
from mponet.errors import PlanError
from mponet.layers.conv_plan import ConvPlan, ConvStep, candidates
from mponet.layers.convolution import ConvShape
from mponet.layers.window import Window

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
#: Batch and length of each spatial axis that are assumed while they are not known.
DEFAULT_BATCH = 32
DEFAULT_SIZE = 32


@dataclass(frozen=True, slots=True)
class ConvRequest:
    """What a plan is asked for.

    Attributes:
        shape: the convolution.
        window: how it moves.
        batch: number of maps.
        sizes: sizes of the maps.
        itemsize: bytes per number.
        machine: constants of the cost model.
        memory: bytes that states between the steps may take; None for the default.
    """

    shape: ConvShape
    window: Window
    batch: int
    sizes: tuple[int, ...]
    itemsize: int
    machine: Machine
    memory: int | None = None

    def seconds(self, plan: ConvPlan, purpose: Purpose) -> float:
        """Predicted time.

        Merging the cores, then for each step its products, what it moves, and its calls.

        In inference the kernels are kept.  Training does three times the work of a forward pass:
        the gradients of the state and of the kernel are convolutions of the same size.
        """
        passes = 3 if purpose == "training" else 1
        total = 0.0 if purpose == "inference" else self._merging(plan)
        for step, (before, after) in zip(plan.steps, plan.maps(self.sizes, self.window), strict=True):
            total += self._step(step, before, after)
        return passes * total

    def kept(self, plan: ConvPlan) -> int:
        """Bytes of the states between the steps, which a framework keeps for its backward pass."""
        states = zip(plan.steps[:-1], plan.maps(self.sizes, self.window), strict=False)
        return sum(self.batch * prod(after) * step.out_channels for step, (_, after) in states) * self.itemsize

    @property
    def memory_limit(self) -> int:
        """Bytes that a plan may keep.

        As much as the inputs, the outputs, and the kernel with its gradient, unless it is given.
        """
        if self.memory is not None:
            return self.memory
        after = self.window.output_sizes(self.sizes)
        maps = prod(self.sizes) * self.shape.in_channels + prod(after) * self.shape.out_channels
        return (self.batch * maps + 2 * self.shape.dense_parameters) * self.itemsize

    def ranked(self, purpose: Purpose) -> list[ConvPlan]:
        """The candidates, best first.

        Those within the memory limit by predicted time, then the others by it.
        """
        return sorted(
            candidates(self.shape), key=lambda plan: (self.kept(plan) > self.memory_limit, self.seconds(plan, purpose))
        )

    def _step(self, step: ConvStep, before: Sequence[int], after: Sequence[int]) -> float:
        carried = step.prefix * step.suffix
        sizes = (self.batch * prod(after) * carried, step.rows // step.groups, prod(step.window) * step.inner)
        products = self.machine.multiplying(sizes, step.groups, self.itemsize)
        moved = self.batch * (prod(before) * step.in_channels + prod(after) * step.out_channels) * self.itemsize
        # channels that are carried along are folded into the batch and back: a copy each way
        times, calls = (2, 3) if carried > 1 else (1, 1)
        return products + times * self.machine.moving(moved) + calls * self.machine.call_overhead

    def _merging(self, plan: ConvPlan) -> float:
        total = 0.0
        for first, end in plan.spans:
            shapes = self.shape.core_shapes[first:end]
            rows = prod(shapes[0][:3])
            for left, i, j, right in shapes[1:]:
                size = rows * i * j * right
                total += self.machine.multiplying((rows, left, i * j * right), 1, self.itemsize)
                total += self.machine.moving(3 * size * self.itemsize) + self.machine.call_overhead
                rows *= i * j
            total += 2 * self.machine.call_overhead  # axes put in the order of a kernel
        return total


@dataclass(frozen=True, slots=True)
class ConvPlanSet:
    """The plans of a convolution for maps of one size.

    Attributes:
        forward: for a forward pass alone.
        training: for a forward and a backward pass.
        inference: for a forward pass whose kernels are kept, since no core changes.
        request: what was asked.
    """

    forward: ConvPlan
    training: ConvPlan
    inference: ConvPlan
    request: ConvRequest

    def explain(self, purpose: Purpose = "training", top: int = 8) -> str:
        """The best candidates as a table.

        Predicted time, multiplications for one map, and memory kept.

        Raises:
            PlanError: there is no such purpose.
        """
        if purpose not in PURPOSES:
            raise PlanError(f"unknown purpose {purpose!r}; use {' or '.join(map(repr, PURPOSES))}")
        request, chosen = self.request, getattr(self, purpose)
        options = request.ranked(purpose)
        maps = "x".join(map(str, request.sizes))
        lines = [
            f"{request.shape}, {request.batch} maps of {maps}, {purpose}: {len(options)} candidates, memory limit "
            f"{request.memory_limit / 1e6:.2f} MB",
            f"  {'plan':<60}{'predicted':>11}{'10^6 mult.':>12}{'kept MB':>9}",
        ]
        for plan in options[:top]:
            kept = request.kept(plan)
            lines.append(
                f"{'>' if plan == chosen else ' '} {plan!s:<60}{time_text(request.seconds(plan, purpose)):>11}"
                f"{plan.multiplications(request.sizes, request.window) / 1e6:>12.2f}{kept / 1e6:>9.2f}"
                f"{' over the limit' if kept > request.memory_limit else ''}"
            )
        return "\n".join([*lines, "> is predicted to be the fastest of those that keep within the memory limit"])


def conv_plans(
    shape: ConvShape,
    window: Window,
    batch: int | None,
    sizes: tuple[int | None, ...],
    dtype: str,
    context: PlanningContext,
    memory: int | None = None,
) -> ConvPlanSet:
    """The plans of a backend's convolution; batches within an eighth of one another share a choice.

    Args:
        shape: the convolution.
        window: how it moves.
        batch: number of maps; None while it is not known.
        sizes: sizes of the maps; None for each that is not known.
        dtype: name of the numbers.
        context: what the backend plans by.
        memory: bytes that states between the steps may take; None for what ``MPONET_MEMORY`` says,
            else the default.

    Raises:
        ShapeError: the window is larger than the padded maps.
        PlanError: ``MPONET_MEMORY`` is not a whole number of bytes.
    """
    return _conv_plans(shape, window, batch, sizes, dtype, context, memory_budget(memory))


@lru_cache(maxsize=4096)
def _conv_plans(
    shape: ConvShape,
    window: Window,
    batch: int | None,
    sizes: tuple[int | None, ...],
    dtype: str,
    context: PlanningContext,
    memory: int | None,
) -> ConvPlanSet:
    rows = DEFAULT_BATCH if batch is None else rounded(batch)
    spans = (gap * (length - 1) + 1 for gap, length in zip(window.dilation, window.size, strict=True))
    known = tuple(max(DEFAULT_SIZE, span) if size is None else size for size, span in zip(sizes, spans, strict=True))
    if rows != batch or known != sizes:
        return _conv_plans(shape, window, rows, known, dtype, context, memory)
    request = ConvRequest(shape, window, rows, known, ITEMSIZE.get(dtype, 4), context.machine(dtype), memory)
    best = {purpose: request.ranked(purpose)[0] for purpose in PURPOSES}
    return ConvPlanSet(**best, request=request)
