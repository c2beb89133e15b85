"""What a frozen layer keeps: bounded, and the matrix wherever no sweep is clearly faster."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.strategies import bonds, factors
from mponet.contraction.cost import dense, predict
from mponet.contraction.plan import rebuilt
from mponet.contraction.planner import PlanningContext
from mponet.layers import frozen
from mponet.layers.convolution import ConvShape
from mponet.layers.frozen import MARGIN, MAX_SWEEPS, ROWS, kept_conv_plan, kept_plans
from mponet.layers.window import Window
from mponet.operators.shape import MPOShape


def timed(plan, batch, purpose, dtype):
    """A pass that takes no time: tests that time give their own clock."""
    return lambda: None


CONTEXT = PlanningContext("torch", dict, timed)


def kept(shape):
    return kept_plans(shape, rebuilt(shape), "float32", CONTEXT)


@st.composite
def shapes(draw):
    inputs, outputs = draw(factors())
    return MPOShape.from_factors(inputs, outputs, draw(bonds))


@settings(max_examples=60, deadline=None)
@given(shape=shapes())
def test_what_is_kept_is_bounded_and_serves_every_batch(shape):
    plans = kept(shape)
    sweeps = [plan for plan in plans.forms if plan is not None]
    assert len(sweeps) <= MAX_SWEEPS
    assert len({None if plan is None else plan.weights_key for plan in plans.forms}) == len(plans.forms)
    for plan in sweeps:
        assert sum(step.rows * step.inner for step in plan.steps) <= shape.dense_parameters
    for rows in (1, 2, 3, 63, 512, 10**6, None):
        form, plan = plans.choose(rows)
        ours = plans.forms[form]
        assert (plan is None) == (ours is None)
        assert plan is None or plan.weights_key == ours.weights_key
        assert rows is not None or plan is None or plan.tile is None


@settings(max_examples=60, deadline=None)
@given(shape=shapes())
def test_a_sweep_is_kept_only_where_it_is_predicted_to_be_clearly_faster(shape):
    machine = CONTEXT.machine("float32")
    for rows, (_, plan) in zip(ROWS, kept(shape).choices, strict=True):
        if plan is not None:
            # reading from the last cache counts for less here, which makes the dense layer faster
            whole = dense(shape, rows, purpose="inference", machine=machine).seconds
            assert predict(plan, rows, purpose="inference", machine=machine) <= whole
            assert MARGIN < 1


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (MPOShape.from_factors((64, 64), (64, 64), 16), "sweep cores 2 > 1"),
        (MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 16), "the matrix"),
        (MPOShape.from_factors((4096, 1), (1, 11008), 1024), "sweep cores 1 > 2"),
    ],
)
def test_large_layers_keep_sweeps_and_small_ones_their_matrix(shape, expected):
    assert str(kept(shape)) == expected


@pytest.mark.parametrize("fast", ["matrix", "sweep"])
def test_measured_times_decide_where_they_are_asked_for(monkeypatch, fast):
    def timed(options, batch, purpose, dtype, runner):
        assert purpose == "inference"
        return {plan: float((len(plan.steps) == 1) == (fast == "sweep")) + 1.0 for plan in options}

    monkeypatch.setenv("MPONET_PLAN", "measure")
    monkeypatch.setattr(frozen, "timed", timed)
    frozen._kept_plans.cache_clear()
    shape = MPOShape.from_factors((64, 64), (64, 64), 16)
    assert (str(kept(shape)) == "the matrix") == (fast == "matrix")


def test_a_convolution_keeps_its_dense_kernel_unless_steps_are_faster_for_every_number_of_maps():
    window = Window.of((3, 3), 1, "same", 1)
    small = ConvShape.from_sizes(8, 8, (3, 3), 4)
    assert len(kept_conv_plan(small, window, "float32", CONTEXT).steps) == 1
    large = ConvShape.from_sizes(512, 512, (3, 3), 16, structure="kernel")
    assert len(kept_conv_plan(large, window, "float32", CONTEXT).steps) > 1


@pytest.mark.parametrize("rank", [1, 100, 350])
def test_plain_products_with_the_tensors_themselves_serve_every_batch(rank):
    shape = MPOShape.from_factors((576, 1), (1, 1536), rank)
    plans = kept(shape)
    (plan,) = plans.forms
    assert plan.program.merges_nothing and plan.sweep_multiplications <= frozen.PLAIN_SHARE * shape.dense_parameters
    assert {plans.choose(rows) for rows in (1, 64, 10**6, None)} == {(0, plan)}


@pytest.mark.parametrize(("factors", "rank"), [(((576, 1), (1, 1536)), 400), (((128, 1), (1, 128)), 16)])
def test_too_many_or_too_small_plain_products_are_compared_with_the_matrix(factors, rank):
    assert frozen._plain(MPOShape.from_factors(*factors, rank), CONTEXT.machine("float32")) is None


def test_a_device_compares_plain_products_with_the_matrix():
    shape = MPOShape.from_factors((576, 1), (1, 576), 230)
    there = PlanningContext("torch", dict, timed, device="cuda")
    assert str(kept(shape)) == "sweep cores 1 > 2"
    assert None in kept_plans(shape, rebuilt(shape), "float32", there).forms
