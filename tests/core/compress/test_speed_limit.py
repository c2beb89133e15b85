"""Speeds of a plan: measured side by side, shown, and never slower where the budget is time."""

import pytest

from core.compress.planted import calibrated, network
from mponet.compress import CompressConfig, make_plan
from mponet.compress.timing import median_ratio
from mponet.errors import CompressionError

TARGETS, INPUTS, GRADIENTS = network()
CALIBRATION = calibrated(TARGETS, INPUTS, GRADIENTS)


def plan(measure=None, targets=TARGETS, **options):
    settings = {"min_weights": 1, "structures": ("low-rank", "balanced")} | options
    return make_plan(targets, CompressConfig(**settings), CALIBRATION, measure=measure)


class Clock:
    """Time that passes only in the calls that are timed, and in interruptions."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def take(self, name, seconds):
        def call():
            self.calls.append(name)
            self.now += seconds + (100.0 if len(self.calls) in (9, 12) else 0.0)

        return call


def test_the_ratio_is_that_of_interleaved_calls_and_ignores_interruptions():
    clock = Clock()
    ratio = median_ratio(clock.take("dense", 0.03), clock.take("operator", 0.02), clock=clock)
    assert ratio == pytest.approx(1.5)
    counted = clock.calls[6:]
    pairs = [counted[k : k + 2] for k in range(0, len(counted), 2)]
    assert all(sorted(pair) == ["dense", "operator"] for pair in pairs)
    assert {tuple(pair) for pair in pairs} == {("dense", "operator"), ("operator", "dense")}


def test_measured_speeds_are_in_the_plan_and_alike_layers_are_timed_once():
    timed = []

    def measure(row):
        timed.append((row.type_name, row.dense_weights, row.bonds, row.layout))
        return 2.5

    made = plan(measure, keep=0.5)
    assert {row.measured for row in made.replaced} == {2.5}
    assert len(set(timed)) == len(timed)
    assert "2.50x" in str(made)
    assert any("measured" in note for note in made.notes)
    assert made.from_json(made.to_json()) == made
    assert made.replace(made.replaced[0].name, bond=3)[made.replaced[0].name].measured is None
    assert all(row.measured is None for row in plan(keep=0.5))


def test_what_is_slower_than_dense_is_left_dense_where_the_budget_is_time():
    wide = "blocks.1.fc"

    def measure(row):
        return 0.9 if row.name == wide else 0.96  # 0.96 is within 1.05 times

    made = plan(measure, multiplications=0.7)
    assert not made[wide].replaced
    assert made.replaced
    before, after = made.multiplications
    assert after <= 0.7 * before
    assert plan(measure, keep=0.7)[wide].replaced  # a budget of weights is not one of time
    with pytest.raises(CompressionError, match=r"operators of \d layers would be slower"):
        plan(lambda row: 0.5, multiplications=0.7)


def test_an_operator_that_is_slow_with_many_weights_may_take_fewer():
    made = plan(lambda row: 0.5 if row.multiplications > 0.4 * row.dense_multiplications else 2.0, multiplications=0.6)
    for row in made.replaced:
        assert row.multiplications <= 0.4 * row.dense_multiplications
        assert row.measured == 2.0
    assert made.multiplications[1] <= 0.6 * made.multiplications[0]


def test_speeds_that_cannot_be_measured_stay_predictions():
    assert all(row.measured is None for row in plan(lambda row: None, keep=0.5))
