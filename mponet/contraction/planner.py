"""A layer's plans.

Chosen by the cost model, or with ``MPONET_PLAN=measure`` by timing the best few where they run.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from statistics import median
from time import perf_counter
from typing import Any, get_args

from mponet.contraction.cost import Purpose, cost, saved, workspace
from mponet.contraction.machine import DEFAULT_COSTS, Machine, machine_of
from mponet.contraction.memory import memory_budget
from mponet.contraction.program import DEFAULT_BATCH
from mponet.contraction.search import AnyPlan, Shape, count_candidates, fits, memory_limit, ranked, share
from mponet.errors import PlanError

#: Makes a pass by a plan ready, on random numbers: ``(plan, batch, purpose, dtype) -> run``; run
#: waits for the result.
Runner = Callable[[AnyPlan, int, Purpose, str], Callable[[], None]]
VARIABLE = "MPONET_PLAN"
MODES = ("model", "measure")
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
ITEMSIZE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
#: Candidates that are timed, and how often each.
FINALISTS = 6
ROUNDS = 7


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What plans were asked for.

    Attributes:
        shape: the layer.
        batch: rows; None while tracing, where the batch may vary.
        itemsize: bytes per number.
        machine: the constants of the cost model.
        purposes: the passes for which the framework runs a plan of its own; training is one.
        memory: bytes that a pass may take beside inputs, outputs and their gradients; None for the
            default, `mponet.contraction.search.memory_limit`.
    """

    shape: Shape
    batch: int | None
    itemsize: int = 4
    machine: Machine = DEFAULT_COSTS
    purposes: tuple[Purpose, ...] = PURPOSES
    memory: int | None = None

    def run_as(self, purpose: Purpose) -> Purpose:
        """The purpose whose plan runs: inference without kept weights is a forward pass.

        Where a framework does not tell whether a gradient follows, a forward pass is half of a
        training step.

        Raises:
            PlanError: the purpose is unknown.
        """
        if purpose not in PURPOSES:
            raise PlanError(f"unknown purpose {purpose!r}; use {', '.join(PURPOSES)}")
        if purpose == "inference" and purpose not in self.purposes:
            purpose = "forward"
        return purpose if purpose in self.purposes else "training"

    @property
    def rows(self) -> int:
        """The batch, or what is assumed for it."""
        return DEFAULT_BATCH if self.batch is None else self.batch

    def ranked(self, purpose: Purpose, top: int | None = None) -> list[AnyPlan]:
        """The candidates, or the ``top`` best, the one that the model prefers first."""
        options: Any = {"itemsize": self.itemsize, "machine": self.machine, "memory": self.memory}
        return ranked(self.shape, self.batch, purpose=purpose, top=top, **options)

    def count(self, purpose: Purpose) -> int:
        """Number of candidates."""
        return count_candidates(self.shape, self.batch, purpose, self.itemsize, self.machine)

    def memory_limit(self, purpose: Purpose) -> float:
        """Bytes that a plan may use beyond inputs, outputs and gradients.

        See `search.memory_limit`.
        """
        return memory_limit(self.shape, self.rows, purpose, self.itemsize, self.machine, self.memory)

    def share(self, purpose: Purpose) -> float:
        """The part of the memory limit that grows with the batch, in bytes."""
        return share(self.shape, self.rows, purpose, self.itemsize, self.machine)

    def workspace_bytes(self, plan: AnyPlan, purpose: Purpose) -> int:
        """Bytes that a plan takes beside them."""
        return workspace(plan, self.rows, purpose=purpose, machine=self.machine) * self.itemsize

    def saved_bytes(self, plan: AnyPlan) -> int:
        """Bytes that a plan saves between the passes of a training step, beside its inputs."""
        return saved(plan, self.rows) * self.itemsize

    def fits(self, plan: AnyPlan, purpose: Purpose) -> bool:
        """Whether a plan keeps within the memory limit."""
        return fits(plan, self.batch, purpose, self.itemsize, self.machine, self.memory)


@dataclass(frozen=True, slots=True)
class PlanSet:
    """The plans of a layer for one size of batch.

    Attributes:
        forward: for a forward pass alone.
        training: for a forward and a backward pass.
        inference: for a forward pass whose weights are kept, since no core changes.
        request: what was asked; None for plans made by hand.
        seconds: median times of the candidates that were timed, by purpose and plan.
    """

    forward: AnyPlan
    training: AnyPlan
    inference: AnyPlan
    request: PlanRequest | None = None
    seconds: Mapping[tuple[Purpose, AnyPlan], float] = field(default_factory=dict, hash=False, compare=False)

    def __post_init__(self) -> None:
        # now: a compiler that traces a layer must not work them out
        _ = self.forward.program, self.training.program, self.inference.program

    @classmethod
    def alike(cls, plan: AnyPlan) -> "PlanSet":
        """The same plan for everything."""
        return cls(plan, plan, plan)

    @classmethod
    def of(cls, request: PlanRequest, runner: Runner | None = None, dtype: str = "float32") -> "PlanSet":
        """The answer; with a ``runner`` the best few are timed, and the fastest wins."""
        best: dict[Purpose, AnyPlan] = {}
        seconds: dict[tuple[Purpose, AnyPlan], float] = {}
        for purpose in request.purposes:
            options = request.ranked(purpose, 1 if runner is None else FINALISTS)
            if runner is not None:
                finalists = [plan for plan in options if request.fits(plan, purpose)]
                times = timed(finalists, request.rows, purpose, dtype, runner)
                seconds |= {(purpose, plan): time for plan, time in times.items()}
                options = sorted(times, key=lambda plan: times[plan])
            best[purpose] = options[0]
        forward, training, inference = (best[request.run_as(purpose)] for purpose in PURPOSES)
        return cls(forward, training, inference, request, seconds)

    @property
    def rows(self) -> int:
        """The batch that they are for, or what is assumed for it."""
        return DEFAULT_BATCH if self.request is None else self.request.rows

    def explain(self, purpose: Purpose = "training", top: int = 8) -> str:
        """The best candidates as a table.

        Predicted and measured time, where it goes, memory taken, and why one won.

        Raises:
            PlanError: the plans were made by hand, or the purpose is unknown.
        """
        if self.request is None:
            raise PlanError(
                "these plans were made by hand; expected plans that a layer chose, as in layer.plans(batch).explain()"
            )
        return _table(self, self.request, purpose, top)


def plans_for(
    shape: Shape, batch: int | None, dtype: str, backend: "PlanningContext", memory: int | None = None
) -> PlanSet:
    """The plans of a backend's layer.

    Batches within an eighth of one another share a choice, so that few are made.

    Args:
        shape: the operator.
        batch: rows; None while tracing, where the batch may vary.
        dtype: of the computation.
        backend: what the plans are chosen by.
        memory: bytes that a pass may take beside inputs, outputs and their gradients; None for
            what ``MPONET_MEMORY`` says, else the default.
    """
    return _plans_for(shape, None if batch is None else rounded(batch), dtype, backend, memory_budget(memory))


@lru_cache(maxsize=1024)
def _plans_for(shape: Shape, rows: int | None, dtype: str, backend: "PlanningContext", memory: int | None) -> PlanSet:
    machine = backend.machine(dtype)
    if rows is None:  # it is being traced, and kernels take no part in that
        machine = replace(machine, kernel_flops=0.0)
    purposes = backend.purposes
    if rows is None:
        purposes = tuple(purpose for purpose in purposes if purpose != "inference")  # a trace keeps no weights
    request = PlanRequest(shape, rows, ITEMSIZE.get(dtype, 4), machine, purposes, memory)
    return PlanSet.of(request, backend.runner if mode() == "measure" and rows is not None else None, dtype)


@dataclass(frozen=True, slots=True)
class PlanningContext:
    """What a backend has for choosing plans.

    Attributes:
        name: of the backend.
        versions: of its packages, and of the device if it is not a processor.
        runner: makes a pass ready to be timed.
        device: ``cuda``, ``gpu``; empty for a processor.
        fuses: whether it has kernels for `mponet.contraction.kernels.fusable` plans of 16-bit
            numbers.
        purposes: the passes for which it runs a plan of its own.
    """

    name: str
    versions: Callable[[], Mapping[str, str]]
    runner: Runner
    device: str = ""
    fuses: bool = False
    purposes: tuple[Purpose, ...] = PURPOSES

    def key(self, dtype: str) -> str:
        """What its constants are called, like ``torch`` or ``torch-cuda-16bit``."""
        short = self.device and ITEMSIZE.get(dtype) == 2
        return "-".join(part for part in (self.name, self.device, "16bit" if short else "") if part)

    def machine(self, dtype: str) -> Machine:
        """The constants of the cost model for numbers of a dtype."""
        found = machine_of(self.key(dtype), self.versions())
        return found if self.fuses else replace(found, kernel_flops=0.0)


def rounded(batch: int) -> int:
    """The batch, rounded up to four binary digits."""
    unit = 1 << max(batch.bit_length() - 4, 0)
    return max(-(-batch // unit) * unit, 1)


def mode() -> str:
    """``model`` or ``measure``, as ``MPONET_PLAN`` says.

    Raises:
        PlanError: it says something else.
    """
    said = os.environ.get(VARIABLE, "").strip().strip("'\"").lower() or MODES[0]
    if said not in MODES:
        raise PlanError(f"{VARIABLE} is {said!r}; expected {' or '.join(MODES)}; unset it for the model")
    return said


def timed(options: list[AnyPlan], batch: int, purpose: Purpose, dtype: str, runner: Runner) -> dict[AnyPlan, float]:
    """Median seconds of each plan, their rounds interleaved."""
    runs = {plan: runner(plan, batch, purpose, dtype) for plan in options}
    found: dict[AnyPlan, list[float]] = {plan: [] for plan in options}
    for run in runs.values():
        run()  # compilers, allocators, caches
    for _ in range(ROUNDS):
        for plan, run in runs.items():
            began = perf_counter()
            run()
            found[plan].append(perf_counter() - began)
    return {plan: median(times) for plan, times in found.items()}


def _table(plans: PlanSet, request: PlanRequest, purpose: Purpose, top: int) -> str:
    """What `PlanSet.explain` gives."""
    asked, purpose = purpose, request.run_as(purpose)
    note = "" if asked == purpose else f" (here the plan of {purpose} runs)"
    options = request.ranked(purpose, top)
    chosen: AnyPlan = getattr(plans, purpose)
    shown = options if chosen in options else [*options[: top - 1], chosen]
    allowed = request.memory_limit(purpose)
    matrix = ", as asked for" if request.memory is not None else ""
    if request.memory is None and allowed > request.share(purpose):
        matrix = ", that of a dense matrix included"
    lines = [
        f"{request.shape}, batch {'unknown' if request.batch is None else request.batch}, {asked}{note}: "
        f"{request.count(purpose)} candidates, memory limit {allowed / 1e6:.2f} MB{matrix}",
        f"  {'plan':<44}{'predicted':>11}{'measured':>11}{'merging':>10}{'products':>10}{'moving':>10}{'calls':>10}"
        f"{'MB':>8}",
    ]
    for plan in shown:
        parts = cost(plan, request.rows, purpose=purpose, itemsize=request.itemsize, machine=request.machine)
        taken = request.workspace_bytes(plan, purpose)
        measured = plans.seconds.get((purpose, plan))
        times = (parts.seconds, measured, *parts)
        lines.append(
            f"{'>' if plan == chosen else ' '} {plan!s:<44}"
            + "".join(f"{time_text(time):>{11 if k < 2 else 10}}" for k, time in enumerate(times))
            + f"{taken / 1e6:>8.2f}{'' if request.fits(plan, purpose) else ' over the limit'}"
        )
    between = f"; {_between(request, chosen)}" if purpose == "training" else ""
    return "\n".join([*lines, f"> {_reason(plans, request, purpose, chosen)}{between}"])


def _between(request: PlanRequest, chosen: AnyPlan) -> str:
    """What is saved between the passes of a training step."""
    if chosen.saves_states:
        return f"saves {request.saved_bytes(chosen) / 1e6:.2f} MB of weights and states for its backward pass"
    return "computes its states again in its backward pass"


def _reason(plans: PlanSet, request: PlanRequest, purpose: Purpose, chosen: AnyPlan) -> str:
    if (purpose, chosen) in plans.seconds:
        return "was the fastest of those that were timed here"
    return "is predicted to be the fastest of those that keep within the memory limit"


def time_text(seconds: float | None) -> str:
    """``1.20 ms`` or ``15.0 us``, and a dash for what was not measured."""
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"
