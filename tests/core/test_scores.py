"""The scores of all candidates at once against the cost model, and how many plans are made."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from core.strategies import shapes
from mponet.contraction import search
from mponet.contraction.cost import predict, workspace
from mponet.contraction.machine import DEFAULT_COSTS, DEFAULTS
from mponet.contraction.plan import Plan
from mponet.contraction.planner import PURPOSES, PlanRequest, PlanSet
from mponet.contraction.search import LEFT_SWEEP_PENALTY, MAX_GROUPS, _scores, candidates, choose, memory_limit, ranked
from mponet.operators.shape import MPOShape

#: A processor; one on which transposed plans are candidates; one with kernels.
MACHINES = (DEFAULT_COSTS, DEFAULTS["jax"], DEFAULTS["torch-cuda-16bit"])
#: Factors of one on either side: low-rank and unbalanced chains.
UNBALANCED = (
    MPOShape.from_factors((96, 1), (1, 64), 8),
    MPOShape.from_factors((1, 96), (64, 1), 8),
    MPOShape.from_factors((12, 8, 1, 1), (1, 1, 8, 8), 6),
    MPOShape.from_factors((1, 4, 1, 4, 3), (5, 1, 2, 1, 1), 3),
    MPOShape.from_factors((64, 64), (64, 64), 4),
    MPOShape.from_factors((2,) * 7, (3,) * 7, 5),
)


def options(shape, batch, purpose, machine):
    """The candidates for a purpose on a machine: sweeps that save states need one that says so."""
    transposed, saving = machine.transpose_bandwidth > 0, purpose == "training"
    plans = candidates(shape, batch, transposed=transposed, saving=saving)
    return [plan for plan in plans if machine.saved_moves or not plan.saves_states or len(plan.steps) == 1]


def seconds(plan, batch, purpose, itemsize, machine):
    penalty = LEFT_SWEEP_PENALTY if plan.steps[0].suffix > 1 else 1.0
    return predict(plan, batch, purpose=purpose, itemsize=itemsize, machine=machine) * penalty


@settings(max_examples=60)
@given(
    shapes() | st.sampled_from(UNBALANCED),
    st.sampled_from([None, 0, 1, 5, 100, 5000]),
    st.sampled_from(PURPOSES),
    st.sampled_from([2, 4, 8]),
    st.sampled_from(MACHINES),
)
def test_scores_are_those_of_the_cost_model_in_the_order_of_the_candidates(shape, batch, purpose, itemsize, machine):
    scores = _scores(shape, batch, purpose, itemsize, machine)
    plans = options(shape, batch, purpose, machine)
    rows = 128 if batch is None else batch
    count = len(plans)
    assert [scores.plan(k) for k in range(count)] == plans
    plans += map(scores.plan, range(count, len(scores.seconds)))
    assert len(set(plans)) == len(plans) == len(scores.workspace)
    assert all(len(plan.groups) > MAX_GROUPS for plan in plans[count:])
    np.testing.assert_allclose(
        scores.seconds, [seconds(p, rows, purpose, itemsize, machine) for p in plans], rtol=1e-12
    )
    unknown = {False: 0, True: np.inf}
    sizes = [
        unknown[p.saves_states] if batch is None else workspace(p, rows, purpose=purpose, machine=machine)
        for p in plans
    ]
    assert list(scores.saves) == [p.saves_states for p in plans]
    assert np.array_equal(scores.workspace, sizes)


@settings(max_examples=20)
@given(
    shapes(min_sites=6, max_sites=7, max_size=1 << 14),
    st.sampled_from([1, 5]),
    st.sampled_from(PURPOSES),
    st.sampled_from(MACHINES[:2]),
)
def test_many_sites_get_the_fastest_of_all_sweeps(shape, batch, purpose, machine):
    """The whole enumeration, one plan after the other, is the oracle; memory is not limited."""
    machine = replace(machine, training_memory_share=1e9, forward_memory_share=1e9, llc_bytes=1 << 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "MAX_GROUPS", shape.sites)
        every = options(shape, batch, purpose, machine)
        fastest = min(seconds(plan, batch, purpose, 4, machine) for plan in every)
    chosen = ranked(shape, batch, purpose=purpose, machine=machine, top=1)[0]
    assert seconds(chosen, batch, purpose, 4, machine) == pytest.approx(fastest, rel=1e-10)


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("shape", [*UNBALANCED, *graphs.WIRINGS.values()], ids=str)
def test_the_best_few_are_the_beginning_of_the_whole_order(shape, purpose):
    every = ranked(shape, 64, purpose=purpose)
    some = set(options(shape, 64, purpose, DEFAULT_COSTS))
    assert some <= set(every)
    assert all(len(plan.groups) > MAX_GROUPS for plan in set(every) - some)
    for top in (1, 3, len(every) - 1, len(every), len(every) + 1):
        assert ranked(shape, 64, purpose=purpose, top=top) == every[: max(top, 0)]
    limit = memory_limit(shape, 64, purpose)
    keys = [
        (4 * workspace(plan, 64, purpose=purpose) > limit, seconds(plan, 64, purpose, 4, DEFAULT_COSTS))
        for plan in every
    ]
    for (over, time), (next_over, next_time) in pairwise(keys):
        assert (over, time) <= (next_over, next_time * (1 + 1e-10))


@pytest.mark.parametrize("sites", [2, 8, 12, 16])
def test_planning_makes_few_plans_however_many_there_are(sites, monkeypatch):
    """The number of candidates grows to tens of thousands.

    Those that are made into plans stay a handful.
    """
    made = []
    check = Plan.__post_init__
    monkeypatch.setattr(Plan, "__post_init__", lambda self: made.append(self) or check(self))
    shape = MPOShape.from_factors((2,) * sites, (2,) * sites, 3)
    PlanSet.of(PlanRequest(shape, 9_999))
    assert len(made) <= 2 * len(PURPOSES)


@pytest.mark.parametrize("bond", [1, 8, 64])
@pytest.mark.parametrize("batch", [1, 16, 512])
@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("machine", MACHINES[:2], ids=["torch", "jax"])
def test_a_low_rank_layer_is_two_plain_products(bond, batch, purpose, machine):
    """``(N, 1) x (1, M)``: the inputs meet the thin factor, then the other one.

    Nothing is expanded or laid out.
    """
    shape = MPOShape.from_factors((1024, 1), (1, 2048), bond)
    plan = choose(shape, batch, purpose=purpose, machine=machine)
    assert [(step.prefix, step.rows, step.inner, step.suffix) for step in plan.steps] == [
        (1, bond, 1024, 1),
        (1, 2048, bond, 1),
    ]
    assert [step.unfolding.axes for step in plan.steps] == [None, None]
    assert plan.program.products == ()


@pytest.mark.parametrize(("inputs", "outputs"), [((1, 96), (64, 1)), ((96, 1, 1), (1, 1, 64)), ((1, 24, 4), (8, 8, 1))])
def test_no_chosen_plan_multiplies_more_than_the_cheapest_by_more_than_it_gains(inputs, outputs):
    """For a large batch and free calls, time is arithmetic.

    The plan of the fewest multiplications wins.
    """
    machine = replace(
        DEFAULT_COSTS, call_overhead=1e-15, bmm_overhead=1e-15, half_speed_size=1e-9, cache_bandwidth=1e20,
        llc_bandwidth=1e20, memory_bandwidth=1e20, forward_memory_share=100.0,
    )  # fmt: skip
    shape = MPOShape.from_factors(inputs, outputs, 5)
    plan = choose(shape, 4096, machine=machine)
    assert plan.multiplications(4096) == min(one.multiplications(4096) for one in candidates(shape, 4096))
