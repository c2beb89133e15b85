"""The constants of the cost model, from times of plans that were run here.

A few passes of small and large layers are timed: plain products, sweeps with and without tiles,
rebuilt weights.  The constants are those whose predictions are off by the least factors (least
squares of logarithms).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.contraction.cost import Purpose, predict
from mponet.contraction.machine import Machine
from mponet.contraction.plan import Plan
from mponet.contraction.planner import Runner, timed
from mponet.operators.shape import MPOShape

#: What is fitted; the sizes of caches stay as they are.
CONSTANTS = (
    "flops",
    "half_speed_size",
    "cache_bandwidth",
    "llc_bandwidth",
    "memory_bandwidth",
    "call_overhead",
    "bmm_overhead",
)
TIMED: tuple[Purpose, ...] = ("forward", "training")
#: No constant leaves its start by more than this factor: a noisy measurement must not turn the
#: model upside down.
REACH = 30.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One pass that is timed.

    Attributes:
        plan: the plan.
        batch: rows.
        purpose: what is run.
    """

    plan: Plan
    batch: int
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a measurement gave.

    Attributes:
        machine: the constants.
        samples: what was timed.
        seconds: median time of each.
        error: typical factor between a predicted and a measured time: 1.2 is 20 % off.
        before: the same for the constants that the fit began with.
    """

    machine: Machine
    samples: tuple[Sample, ...]
    seconds: tuple[float, ...]
    error: float
    before: float


def samples(times: int = 1) -> Iterator[Sample]:
    """What is timed, each constant dominates some of them.

    Batches ``times`` as large for what is that much faster.
    """
    yield from (replace(one, batch=one.batch * times) for one in _samples())


def _samples() -> Iterator[Sample]:
    for size, batch in ((16, 16), (256, 256), (1024, 1024)):
        yield Sample(Plan(MPOShape.from_factors((size,), (size,), 1), (1,), (0,)), batch, "inference")
    for dims, bond, batch, tiles in (
        ((8, 8), 4, 64, (None, 16)),
        ((32, 32), 8, 128, (None, 32, 8)),
        ((64, 64), 4, 256, (None, 64, 16, 4)),
        ((64, 64), 16, 64, (None, 8)),
    ):
        shape = MPOShape.from_factors(dims, dims, bond)
        for tile in tiles:
            for purpose in TIMED:
                yield Sample(Plan(shape, (1, 1), (1, 0), tile), batch, purpose)
    fc2 = MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 8)
    for groups, order in (((4,), (0,)), ((2, 2), (1, 0)), ((2, 1, 1), (2, 1, 0))):
        for purpose in TIMED:
            yield Sample(Plan(fc2, groups, order), 100, purpose)


def tune(runner: Runner, start: Machine, *, times: int = 1, progress: Callable[[str], None] | None = None) -> Tuning:
    """Measure in float32, for which `Machine` has its constants, and fit.

    Args:
        runner: of the backend.
        start: the constants to begin with.
        times: as for `samples`.
        progress: told of each sample as it is timed.
    """
    chosen = tuple(samples(times))
    seconds = []
    for sample in chosen:
        if progress is not None:
            progress(f"{sample.plan.shape}, batch {sample.batch}, {sample.purpose}: {sample.plan}")
        seconds.append(timed([sample.plan], sample.batch, sample.purpose, "float32", runner)[sample.plan])
    machine = fit(chosen, seconds, start)
    return Tuning(machine, chosen, tuple(seconds), off(chosen, seconds, machine), off(chosen, seconds, start))


def fit(chosen: Sequence[Sample], seconds: Sequence[float], start: Machine) -> Machine:
    """The constants that predict these times best."""
    from scipy.optimize import least_squares

    def differences(logs: NDArray[Any]) -> NDArray[Any]:
        return _ratios(chosen, seconds, _moved(start, logs))

    found = least_squares(differences, np.zeros(len(CONSTANTS)), bounds=(-log(REACH), log(REACH)), loss="soft_l1")
    return _moved(start, found.x)


def off(chosen: Sequence[Sample], seconds: Sequence[float], machine: Machine) -> float:
    """Typical factor between predicted and measured times."""
    return exp(float(np.sqrt(np.mean(_ratios(chosen, seconds, machine) ** 2))))


def _moved(start: Machine, logs: NDArray[Any]) -> Machine:
    return replace(start, **{name: getattr(start, name) * exp(x) for name, x in zip(CONSTANTS, logs, strict=True)})


def _ratios(chosen: Sequence[Sample], seconds: Sequence[float], machine: Machine) -> NDArray[Any]:
    """Logarithm of predicted over measured time, for each sample."""
    predicted = (predict(one.plan, one.batch, purpose=one.purpose, machine=machine) for one in chosen)
    return np.array([log(guess / time) for guess, time in zip(predicted, seconds, strict=True)])
