"""Measuring a machine: timed plans are legal, and the constants of simulated times are found."""

from dataclasses import asdict, fields, replace

import numpy as np
import pytest

import mponet.contraction.planner
from mponet.contraction.calibrate import CONSTANTS, REACH, Sample, fit, off, samples, tune
from mponet.contraction.cost import predict
from mponet.contraction.machine import DEFAULT_COSTS, DEFAULTS, Machine
from mponet.contraction.planner import PURPOSES, ROUNDS
from mponet.contraction.search import candidates

SAMPLES = tuple(samples())
#: Another machine in every respect: slower, faster, and in between.
OTHER = Machine(
    flops=4e10,
    half_speed_size=8.0,
    cache_bandwidth=3e10,
    llc_bandwidth=1e10,
    memory_bandwidth=3e9,
    call_overhead=5e-6,
    bmm_overhead=4e-7,
)
PROCESSORS = [machine for name, machine in DEFAULTS.items() if "cuda" not in name and "gpu" not in name]
MACHINES = [
    DEFAULT_COSTS,
    OTHER,
    *PROCESSORS,
    replace(DEFAULT_COSTS, flops=2e12, cache_bandwidth=3e11, call_overhead=2e-6),
]


def times(machine, disturb=0.0):
    """What a machine that keeps to the model would take, each time off by a factor."""
    factors = np.exp(disturb * np.random.default_rng(0).normal(size=len(SAMPLES)))
    found = (predict(one.plan, one.batch, purpose=one.purpose, machine=machine) for one in SAMPLES)
    return [time * factor for time, factor in zip(found, factors, strict=True)]


# ---------------------------------------------------------------- what is timed


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda one: f"{one.plan.shape} {one.purpose} {one.batch}")
def test_every_sample_is_a_candidate(sample):
    assert sample.plan in list(candidates(sample.plan.shape, sample.batch))
    assert sample.purpose in PURPOSES


def test_no_sample_is_timed_twice():
    assert len(set(SAMPLES)) == len(SAMPLES) > len(CONSTANTS)


@pytest.mark.parametrize("name", CONSTANTS)
def test_every_constant_matters_to_some_sample(name):
    """At half or twice a constant, the prediction for some sample moves by at least 5 %."""
    moves = [
        abs(
            np.log(
                np.array(times(replace(DEFAULT_COSTS, **{name: getattr(DEFAULT_COSTS, name) * factor})))
                / np.array(times(DEFAULT_COSTS))
            )
        )
        for factor in (0.5, 2.0)
    ]
    assert min(move.max() for move in moves) > 0.05


def test_all_constants_but_sizes_of_caches_the_room_kernels_turns_saved_states_and_sums_are_fitted():
    assert {field.name for field in fields(Machine)} - set(CONSTANTS) == {
        "cache_bytes",
        "llc_bytes",
        "training_memory_share",
        "forward_memory_share",
        "saved_moves",
        "apart_limit",
        "kernel_flops",
        "transpose_bandwidth",
    }


# ---------------------------------------------------------------- fitting


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: f"{m.flops:.0e} {m.call_overhead:.0e}")
def test_perfect_predictions_are_off_by_nothing(machine):
    assert off(SAMPLES, times(machine), machine) == 1.0


@pytest.mark.parametrize("factor", [1.5, 1 / 1.5])
def test_off_is_the_factor(factor):
    assert off(SAMPLES, [time * factor for time in times(DEFAULT_COSTS)], DEFAULT_COSTS) == pytest.approx(
        1.5, rel=1e-12
    )


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: f"{m.flops:.0e} {m.call_overhead:.0e}")
def test_constants_are_found_again(machine):
    usual = {name: getattr(machine, name) for name in ("cache_bytes", "llc_bytes", "apart_limit")}
    found = fit(SAMPLES, times(machine), replace(DEFAULT_COSTS, **usual))
    for name in CONSTANTS:
        assert getattr(found, name) == pytest.approx(getattr(machine, name), rel=0.03), name
    assert (found.cache_bytes, found.llc_bytes) == (machine.cache_bytes, machine.llc_bytes)
    assert off(SAMPLES, times(machine), found) < 1.003


def test_the_fit_is_no_worse_than_the_truth():
    """Times 10 % off: the fit is at most as far off as the truth; outliers change the loss."""
    seconds = times(OTHER, disturb=0.1)
    found = fit(SAMPLES, seconds, DEFAULT_COSTS)
    assert 1.0 < off(SAMPLES, seconds, found) <= off(SAMPLES, seconds, OTHER) * 1.001


def test_nonsense_moves_no_constant_out_of_reach():
    found = asdict(fit(SAMPLES, [1e6] * len(SAMPLES), DEFAULT_COSTS))
    for name in CONSTANTS:
        assert 1 / REACH <= found[name] / getattr(DEFAULT_COSTS, name) * (1 + 1e-9) <= REACH * (1 + 1e-8)


# ---------------------------------------------------------------- the whole of it


def test_a_machine_that_keeps_to_the_model_is_recognised(monkeypatch):
    now, asked, told = [0.0], [], []

    def runner(plan, batch, purpose, dtype):
        asked.append((Sample(plan, batch, purpose), dtype))

        def run():
            now[0] += predict(plan, batch, purpose=purpose, machine=OTHER)

        return run

    monkeypatch.setattr(mponet.contraction.planner, "perf_counter", lambda: now[0])
    tuning = tune(runner, DEFAULT_COSTS, progress=told.append)
    assert asked == [(sample, "float32") for sample in SAMPLES]
    assert now[0] == pytest.approx((1 + ROUNDS) * sum(times(OTHER)))
    assert tuning.samples == SAMPLES
    assert tuning.seconds == pytest.approx(times(OTHER), rel=1e-6)
    assert tuning.before == pytest.approx(off(SAMPLES, times(OTHER), DEFAULT_COSTS), rel=1e-6)
    assert tuning.error < 1.003 < tuning.before
    assert tuning.machine.flops == pytest.approx(OTHER.flops, rel=0.03)
    assert len(told) == len(SAMPLES)
    for line, sample in zip(told, SAMPLES, strict=True):
        assert str(sample.plan) in line
        assert sample.purpose in line
