"""Plans: what they multiply, which there are, which is chosen, and what is not a plan."""

from dataclasses import replace
from itertools import accumulate, pairwise
from math import isfinite, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.strategies import shapes
from mponet.contraction.cost import cost, dense, predict, workspace
from mponet.contraction.machine import DEFAULT_COSTS, Machine
from mponet.contraction.plan import Plan
from mponet.contraction.program import Transposition
from mponet.contraction.search import (
    LEFT_SWEEP_PENALTY,
    MAX_GROUPS,
    SMALL_MATRIX_BYTES,
    TILES,
    WORTH,
    _chosen,
    candidates,
    choose,
    memory_limit,
    ranked,
)
from mponet.errors import PlanError
from mponet.operators.shape import MPOShape
from mponet_numpy.ops.arrays import OPS

PURPOSES = ("inference", "forward", "training")
SHAPE = MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 8)


# ---------------------------------------------------------------- counting


def sizes_of(shape):
    """Every index of the network with its size."""
    sites = range(shape.sites)
    return {
        **{f"i{k}": shape.input_dims[k] for k in sites},
        **{f"j{k}": shape.output_dims[k] for k in sites},
        **{f"d{k}": shape.bond_dims[k] for k in range(shape.sites + 1)},
    }


def pair_cost(one, other, sizes):
    """Multiplications to contract two tensors: one for each value of all their indices together."""
    return prod(sizes[name] for name in one | other)


def cheapest_merge(cores, sizes):
    """(least multiplications of any order of neighbouring products, indices of the result)."""
    if len(cores) == 1:
        return 0, cores[0]
    found = []
    for split in range(1, len(cores)):
        (ours, left), (theirs, right) = cheapest_merge(cores[:split], sizes), cheapest_merge(cores[split:], sizes)
        found.append((ours + theirs + pair_cost(left, right, sizes), left ^ right))
    return min(found, key=lambda one: one[0])


def naive_costs(plan):
    """(merging, sweeping one row) from index sets alone, without prefixes and suffixes."""
    sizes = sizes_of(plan.shape)
    cores = [{f"d{k}", f"i{k}", f"j{k}", f"d{k + 1}"} for k in range(plan.shape.sites)]
    groups, merging = [], 0
    for first, end in pairwise([0, *accumulate(plan.groups)]):
        cost, group = cheapest_merge(cores[first:end], sizes)
        merging += cost
        groups.append(group)
    state = {f"i{k}" for k in range(plan.shape.sites)} | {"d0", f"d{plan.shape.sites}"}
    sweeping, peak = 0, 0
    for group in plan.order:
        sweeping += pair_cost(state, groups[group], sizes)
        state = state ^ groups[group]
        peak = max(peak, prod(sizes[name] for name in state)) if group != plan.order[-1] else peak
    return merging, sweeping, peak


@given(shapes(max_size=4096))
def test_every_plan_counts_what_it_multiplies(shape):
    for plan in candidates(shape, transposed=True):
        merging, sweeping, peak = naive_costs(plan)
        assert plan.merge_multiplications == merging
        assert plan.sweep_multiplications == sweeping
        assert plan.multiplications(7) == merging + 7 * sweeping
        assert plan.peak_size(5) == 5 * peak
        assert plan.with_tile(2).peak_size(5) == 2 * peak


@given(shapes(max_size=4096))
def test_the_steps_of_every_plan_hand_over(shape):
    for plan in candidates(shape, transposed=True):
        size = shape.in_features
        for group, step in zip(plan.order, plan.steps, strict=True):
            assert step.prefix * step.inner * step.suffix == size
            size = step.prefix * step.rows * step.suffix
            left, i, j, right = plan.group_shapes[group]
            assert step.rows * step.inner == left * i * j * right
            assert step.multiplications == step.prefix * step.rows * step.inner * step.suffix
        assert size == shape.out_features
        assert len(plan.steps) == len(plan.order)
        assert [side == "last" for side in plan.sides] == [False] * (len(plan.groups) - 1) + [True]
        assert [shape_[0] for shape_ in plan.group_shapes] == [shape.bond_dims[first] for first, _ in plan.spans]
        assert plan.spans[-1][1] == shape.sites


def test_one_group_multiplies_like_the_dense_layer():
    plan = Plan(SHAPE, (4,), (0,))
    assert plan.sweep_multiplications == SHAPE.dense_parameters
    assert plan.peak_size(100) == 0
    assert Plan(SHAPE, (1, 1, 1, 1), (0, 1, 2, 3)).merge_multiplications == 0


# ---------------------------------------------------------------- candidates


@pytest.mark.parametrize("sites", range(1, MAX_GROUPS + 2))
def test_few_sites_have_every_plan_once(sites):
    """Between two sites there is a cut from the left, from the right, or none: 3^(n-1) plans."""
    plans = list(candidates(MPOShape.from_factors((2,) * sites, (2,) * sites, 2)))
    assert len(plans) == len(set(plans)) == 3 ** (sites - 1)


def test_many_sites_have_a_bounded_number_of_plans():
    """At most MAX_GROUPS groups: sum_c C(15, c - 1) 2^(c - 1) merges and orders, times tiles."""
    plans = list(candidates(MPOShape.from_factors((2,) * 16, (2,) * 16, 2), 2 * max(TILES)))
    assert len(plans) == len(set(plans)) == (1 + 15 * 2 + 105 * 4 + 455 * 8) * (1 + len(TILES))


@pytest.mark.parametrize(
    ("batch", "tiles"),
    [
        (None, {None}),
        (0, {None}),
        (3, {None}),
        (31, {None, 2, 4, 8}),
        (32, {None, 2, 4, 8, 16}),
        (2 * max(TILES), {None, *TILES}),
    ],
)
def test_a_tile_is_at_most_half_of_the_batch(batch, tiles):
    assert {plan.tile for plan in candidates(SHAPE, batch)} == tiles


# ---------------------------------------------------------------- choice


def workspace_bytes(plan, batch, purpose, itemsize):
    return workspace(plan, batch, purpose=purpose) * itemsize


def seconds(plan, batch, purpose, itemsize):
    penalty = LEFT_SWEEP_PENALTY if plan.steps[0].suffix > 1 else 1.0
    return predict(plan, batch, purpose=purpose, itemsize=itemsize) * penalty


@given(shapes(), st.sampled_from([None, 0, 1, 2, 100, 10_000]), st.sampled_from(PURPOSES), st.sampled_from([2, 4, 8]))
def test_the_best_candidate_that_has_room_is_chosen_and_again(shape, batch, purpose, itemsize):
    plan = choose(shape, batch, purpose=purpose, itemsize=itemsize)
    _chosen.cache_clear()
    assert choose(shape, batch, purpose=purpose, itemsize=itemsize) == plan
    rows = 128 if batch is None else batch
    allowed = memory_limit(shape, batch, purpose, itemsize)
    everything = list(candidates(shape, batch, saving=purpose == "training"))
    modest = [one for one in everything if batch is None or workspace_bytes(one, rows, purpose, itemsize) <= allowed]
    times = {one: seconds(one, rows, purpose, itemsize) for one in modest}
    assert plan in everything
    assert times[plan] == pytest.approx(min(times.values()), rel=1e-10)  # rounding makes no difference
    assert plan == next(one for one, time in times.items() if time == times[plan])


#: Layers whose matrix is not small, with bonds from far below to far above those at which they cost
#: as much.
LARGE = st.builds(
    lambda dims, bond: MPOShape.from_factors(dims, dims[::-1], bond),
    st.sampled_from([(64, 64), (64, 32), (8, 16, 16), (16, 16, 16), (8, 8, 8, 8)]),
    st.sampled_from([1, 2, 4, 8, 16, 32, 64, 512]),
)


@given(LARGE, st.sampled_from([1, 8, 64, 512, 4096]), st.sampled_from(PURPOSES), st.sampled_from([2, 4, 8]))
def test_a_layer_takes_its_share_if_that_is_as_fast_as_dense_else_what_dense_takes(shape, batch, purpose, itemsize):
    plan = choose(shape, batch, purpose=purpose, itemsize=itemsize)
    sizes_and_times = [
        (workspace_bytes(one, batch, purpose, itemsize), seconds(one, batch, purpose, itemsize))
        for one in candidates(shape, batch, saving=purpose == "training")
    ]
    wanted = dense(shape, batch, purpose=purpose, itemsize=itemsize).seconds
    matrix = shape.dense_parameters * itemsize
    assert matrix > SMALL_MATRIX_BYTES or itemsize == 2
    share = DEFAULT_COSTS.training_memory_share * 2 * batch * (shape.in_features + shape.out_features) * itemsize

    def least(limit):
        return min((time for size, time in sizes_and_times if size <= limit), default=float("inf"))

    allowed, roomy, every = share, share + min(2 * matrix, DEFAULT_COSTS.llc_bytes), share + 2 * matrix
    if purpose == "training" and least(roomy) < WORTH * least(share):
        allowed = roomy
    if matrix <= SMALL_MATRIX_BYTES or least(allowed) > wanted:
        allowed = every
    fastest = min(time for size, time in sizes_and_times if size <= allowed)
    assert seconds(plan, batch, purpose, itemsize) == pytest.approx(fastest, rel=1e-10)
    assert workspace_bytes(plan, batch, purpose, itemsize) <= allowed


@pytest.mark.parametrize(("bond", "rebuilt"), [(8, False), (32, True), (64, True)])
def test_a_large_bond_rebuilds_the_matrix_rather_than_sweep_in_narrow_tiles(bond, rebuilt):
    """At width 2048 and bond 32 or more, a sweep is slower than the matrix and its gradient."""
    shape = MPOShape.from_sizes(2048, 2048, bond, 3)
    plan = choose(shape, 512, purpose="training")
    assert (len(plan.groups) == 1) == rebuilt
    assert predict(plan, 512, purpose="training") <= 2 * dense(shape, 512, purpose="training").seconds


@given(shapes(), st.sampled_from([0, 1, 3, 64, 1000]))
def test_a_prediction_is_a_time(shape, batch):
    for plan in candidates(shape, batch):
        inference, forward, both = (predict(plan, batch, purpose=purpose) for purpose in PURPOSES)
        assert isfinite(both)
        assert 0.0 < inference <= forward < both
        assert predict(plan, batch, itemsize=8) > forward
        assert predict(plan, 2 * batch + 2) > forward
        assert predict(plan, batch, machine=Machine(call_overhead=1.0)) > len(plan.steps)


@given(shapes(max_size=4096), st.sampled_from([1, 3, 64]))
def test_kept_weights_leave_the_sweep_to_pay(shape, batch):
    for plan in candidates(shape, batch):
        alone, kept = (cost(plan, batch, purpose=purpose) for purpose in ("forward", "inference"))
        assert kept.merging == 0.0
        assert alone[1:] == kept[1:]
        assert alone.seconds == predict(plan, batch)


def test_a_layer_takes_no_more_than_a_dense_one():
    """Layers of the paper and the benchmarks: a share of the activations, and of the matrix."""
    for dims, bond, batch in [
        ((64, 64), 4, 512),
        ((64, 64), 16, 512),
        ((4, 4, 8, 8, 4), 4, 100),
        ((16, 16, 16), 4, 512),
    ]:
        shape = MPOShape.from_factors(dims, dims, bond)
        plan = choose(shape, batch, purpose="training")
        taken = workspace(plan, batch, purpose="training")
        assert taken <= 0.1 * 4 * batch * shape.in_features + 2 * shape.dense_parameters
        activations = 0.1 * 4 * batch * shape.in_features
        assert (taken <= activations) == (len(dims) < 4)
        assert taken <= activations + DEFAULT_COSTS.llc_bytes / 4


# ---------------------------------------------------------------- printing


def test_plans_say_what_they_do():
    assert str(Plan(SHAPE, (4,), (0,))) == "rebuild W, 1 product"
    assert str(Plan(SHAPE, (4,), (0,), 16)) == "rebuild W, 1 product, tiles of 16"
    assert str(Plan(SHAPE, (2, 1, 1), (2, 0, 1))) == "sweep cores 4 > 1-2 > 3"
    assert str(Plan(SHAPE, (2, 2), (1, 0), 32)) == "sweep cores 3-4 > 1-2, tiles of 32"
    assert str(Plan(SHAPE, (2, 2), (1, 0)).saving()) == "sweep cores 3-4 > 1-2, states saved"
    assert str(Plan(SHAPE, (2, 2), (0, 1), 8, transposed=True)) == "sweep cores 1-2 > 3-4, transposed, tiles of 8"


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("groups", [(), (3,), (5,), (2, 3), (0, 4), (-1, 5), (2.0, 2.0), (True, 3)])
def test_groups_that_do_not_cover_the_sites_are_refused(groups):
    with pytest.raises(PlanError, match="groups"):
        Plan(SHAPE, groups, tuple(range(len(groups))))


@pytest.mark.parametrize(
    "order", [(), (0,), (0, 1), (1, 0, 2), (0, 0, 1), (0, 2, 1, 1), (0, 1, 2, 3), (0, 2, 0), (3, 0, 1)]
)
def test_an_order_that_is_no_sweep_is_refused(order):
    with pytest.raises(PlanError, match="order"):
        Plan(SHAPE, (2, 1, 1), order)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1), (2, 1, 0)])
def test_an_order_from_the_ends_is_a_plan(order):
    assert Plan(SHAPE, (2, 1, 1), order).order == order


@pytest.mark.parametrize(("groups", "order"), [((2, 2), (1, 0)), ((2, 1, 1), (0, 2, 1)), ((4,), (0,))])
def test_only_sweeps_from_the_left_are_turned(groups, order):
    with pytest.raises(PlanError, match="from the left for a transposed plan"):
        Plan(SHAPE, groups, order, transposed=True)


@given(shapes(max_size=4096))
def test_what_is_turned_multiplies_the_same_without_broadcasting(shape):
    for plan in candidates(shape, transposed=True):
        if plan.transposed:
            other = replace(plan, transposed=False)
            assert [step.multiplications for step in plan.steps] == [step.multiplications for step in other.steps]
            assert {step.suffix for step in plan.steps} == {1}
            for step, (d_left, i, _, _) in zip(plan.steps, plan.group_shapes, strict=True):
                assert step.inner == i * d_left
                assert step.transposition.elements == step.prefix * step.inner


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=5).flatmap(
        lambda s: st.tuples(st.just(s), st.permutations(range(len(s))))
    )
)
def test_a_transposition_moves_few_axes_to_the_same_places(order):
    sizes, axes = order
    state = np.arange(2 * 3 * prod(sizes), dtype=float)
    turn = Transposition.of(3, tuple(sizes), tuple(axes))
    expected = state.reshape(6, *sizes).transpose(0, *(axis + 1 for axis in axes))
    assert np.array_equal(turn.apply(state, 2, OPS).ravel(), expected.ravel())
    assert np.array_equal(turn.undo(expected, 2, OPS).ravel(), state)
    assert 1 not in turn.sizes
    assert not any(b == a + 1 for a, b in pairwise(turn.axes))


@pytest.mark.parametrize("purpose", PURPOSES)
def test_states_are_turned_only_where_that_is_known_to_be_fast(purpose):
    shape = MPOShape.from_factors((16, 16, 16), (16, 16, 16), 4)
    turned = {
        speed: [
            plan.transposed
            for plan in ranked(shape, 64, purpose=purpose, machine=replace(DEFAULT_COSTS, transpose_bandwidth=speed))
        ]
        for speed in (0.0, 1.0, 1e15)
    }
    assert not any(turned[0.0])
    assert any(turned[1.0]) and not turned[1.0][0]
    assert turned[1e15][0]


@pytest.mark.parametrize(("purpose", "turns"), [("forward", 1), ("training", 3), ("inference", 1)])
def test_a_turn_reads_and_writes_the_state_of_every_step(purpose, turns):
    plan, batch = Plan(MPOShape.from_factors((16, 16), (16, 16), 4), (1, 1), (0, 1), transposed=True), 64
    slow, fast = (
        cost(plan, batch, purpose=purpose, machine=replace(DEFAULT_COSTS, transpose_bandwidth=speed))
        for speed in (1e6, 2e6)
    )
    states = batch * sum(step.prefix * step.inner for step in plan.steps)
    assert slow.moving - fast.moving == pytest.approx(turns * 2 * 4 * states * (1e-6 - 0.5e-6), rel=1e-9)
    first, last = plan.steps  # the bond goes last, so that the second core is copied and the first is a view
    assert first.unfolding.axes is None and last.unfolding.axes is not None
    assert workspace(plan, batch) == states + last.rows * last.inner


def test_saved_states_and_tiles_exclude_one_another():
    plan = Plan(SHAPE, (2, 2), (1, 0), 16)
    assert (plan.saving().tile, plan.saving().saves_states) == (None, True)
    assert plan.saving().with_tile(16) == plan and plan.saving().with_tile(None) == plan.saving()
    with pytest.raises(PlanError, match="saves states has tiles of 16"):
        replace(plan, saves_states=True)


@pytest.mark.parametrize("tile", [0, -1, 2.5, True, "16"])
def test_a_tile_that_is_no_number_of_rows_is_refused(tile):
    with pytest.raises(PlanError, match="tile"):
        Plan(SHAPE, (4,), (0,), tile)
    with pytest.raises(PlanError, match="tile"):
        Plan(SHAPE, (4,), (0,)).with_tile(tile)
