"""Every plan against the node graph, and its backward against what a multilinear function must do.

All bounds are element by element: a sum of products, summed in any order, is off by at most ``EPS *
depth`` times the same sum over absolute values (Higham, ch. 3), where ``depth`` adds up the lengths
of the sums behind one number.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.strategies import EPS, mpos, random_mpo
from mponet.contraction import execute
from mponet.contraction.cost import saved
from mponet.contraction.plan import Plan
from mponet.contraction.search import candidates
from mponet.operators import nodes
from mponet.operators.mpo import MPO, to_matrix
from mponet.operators.shape import MPOShape
from mponet_numpy.ops.arrays import OPS
from mponet_numpy.ops.arrays import Ops as NumpyOps

TILES = (None, 1, 2, 3)
BATCHES = (0, 1, 2, 5)
few = settings(max_examples=30)


class Tracing(NumpyOps):
    """A library that does not know the size of the batch, as when a graph is traced."""

    def batch_size(self, array):
        return -1

    def map_tiles(self, body, arrays, widths, tile):
        return OPS.map_tiles(body, arrays, widths, tile)


class Strict(NumpyOps):
    """A library that cannot guess a size when there is nothing to divide, as some cannot."""

    def reshape(self, array, shape):
        assert array.size or -1 not in shape
        return super().reshape(array, shape)


def depth(plan):
    """Lengths of all sums of a plan, of the path of the graph, and of the matrix, together."""
    shape = plan.shape
    sweep = sum(step.inner for step in plan.steps) + sum(shape.bond_dims)
    graph = sum(left * i for left, i, _, _ in shape.core_shapes)
    return 2 * (sweep + graph + shape.in_features + sum(shape.bond_dims))


def absolute(mpo):
    return MPO(mpo.shape, tuple(np.abs(core) for core in mpo.cores))


def every_plan(shape):
    plans = list(candidates(shape, transposed=True))
    return [plan.with_tile(tile) for plan in plans for tile in TILES] + [plan.saving() for plan in plans]


def inputs_for(mpo, batch):
    return np.random.default_rng(batch).normal(size=(batch, mpo.shape.in_features))


def slopes_for(mpo, batch):
    return np.random.default_rng(batch + 100).normal(size=(batch, mpo.shape.out_features))


# ---------------------------------------------------------------- forward


@few
@given(mpos(max_sites=4, max_size=256))
def test_every_plan_contracts_the_graph(mpo):
    for batch in BATCHES:
        x = inputs_for(mpo, batch)
        expected = nodes.reference(mpo, x)
        room = nodes.reference(absolute(mpo), np.abs(x))
        for plan in every_plan(mpo.shape):
            y = execute.forward(plan, mpo.cores, x, OPS)
            assert y.shape == (batch, mpo.shape.out_features)
            assert np.all(np.abs(y - expected) <= EPS * depth(plan) * room), plan


@few
@given(mpos(max_sites=4, max_size=256))
def test_a_batch_of_unknown_size_is_contracted_alike(mpo):
    x, slope = inputs_for(mpo, 5), slopes_for(mpo, 5)
    for plan in every_plan(mpo.shape):
        assert np.array_equal(execute.forward(plan, mpo.cores, x, Tracing()), execute.forward(plan, mpo.cores, x, OPS))
        dx, dcores = execute.backward(plan, mpo.cores, x, slope, Tracing())
        dx_known, dcores_known = execute.backward(plan, mpo.cores, x, slope, OPS)
        assert np.array_equal(dx, dx_known)
        assert all(np.array_equal(a, b) for a, b in zip(dcores, dcores_known, strict=True))


def test_a_tile_bounds_the_rows_that_are_swept_at_once():
    seen = []

    class Watching(NumpyOps):
        def matmul(self, a, b, out=None):
            seen.append(max(array.shape[0] for array in (a, b) if array.ndim == 3) if a.ndim + b.ndim > 4 else 0)
            return super().matmul(a, b, out)

    mpo = random_mpo(MPOShape.from_factors((2, 2), (2, 2), 2), np.random.default_rng(0))
    execute.forward(Plan(mpo.shape, (1, 1), (0, 1), 3), mpo.cores, inputs_for(mpo, 8), Watching())
    assert max(seen) == 3


def test_inputs_of_float32_stay_float32():
    mpo = random_mpo(MPOShape.from_factors((2, 3), (3, 2), 2), np.random.default_rng(0))
    cores = [core.astype(np.float32) for core in mpo.cores]
    x, slope = inputs_for(mpo, 4).astype(np.float32), slopes_for(mpo, 4).astype(np.float32)
    for plan in every_plan(mpo.shape):
        dx, dcores = execute.backward(plan, cores, x, slope, OPS)
        assert execute.forward(plan, cores, x, OPS).dtype == dx.dtype == np.float32
        assert all(d.dtype == np.float32 for d in dcores)


# ---------------------------------------------------------------- backward


def value(cores, x, slope):
    """``sum(slope * (x @ W))`` by the matrix: the function whose gradients `backward` gives."""
    return float((slope * (x @ to_matrix(MPO.from_cores(cores)))).sum())


def value_room(cores, x, slope):
    return value([np.abs(core) for core in cores], np.abs(x), np.abs(slope))


def replaced(cores, k, other):
    return [*cores[:k], other, *cores[k + 1 :]]


def gradient_depth(plan, batch):
    """Backward multiplies each number by a gradient and sums over batch and carried dimensions."""
    carried = max(step.prefix * step.suffix for step in plan.steps)
    return 4 * (depth(plan) + batch * carried + plan.shape.out_features * batch + plan.shape.parameters)


@few
@given(mpos(max_sites=4, max_size=144))
def test_gradients_are_linear_in_every_argument(mpo):
    """``f`` is linear in the inputs and in each core: ``f(.., d, ..) = <gradient, d>``."""
    rng = np.random.default_rng(0)
    for batch in BATCHES:
        x, slope = inputs_for(mpo, batch), slopes_for(mpo, batch)
        directions = [rng.normal(size=core.shape) for core in mpo.cores]
        along = rng.normal(size=x.shape)
        by_core = [replaced(mpo.cores, k, d) for k, d in enumerate(directions)]
        expected = [value(mpo.cores, along, slope), *(value(cores, x, slope) for cores in by_core)]
        room = [value_room(mpo.cores, along, slope), *(value_room(cores, x, slope) for cores in by_core)]
        for plan in every_plan(mpo.shape):
            dx, dcores = execute.backward(plan, mpo.cores, x, slope, OPS)
            assert dx.shape == x.shape
            assert tuple(d.shape for d in dcores) == mpo.shape.core_shapes
            found = [(dx * along).sum(), *((g * d).sum() for g, d in zip(dcores, directions, strict=True))]
            for one, other, allowed in zip(found, expected, room, strict=True):
                assert abs(one - other) <= EPS * gradient_depth(plan, batch) * allowed, plan


@settings(max_examples=15)
@given(mpos(max_sites=4, max_size=36))
def test_gradients_are_the_central_differences(mpo):
    """A step of 1 has no truncation error, because ``f`` is linear in each single number."""
    x, slope = inputs_for(mpo, 2), slopes_for(mpo, 2)
    arguments = [x, *mpo.cores]

    def difference(which, index):
        shifted = [[array.copy() for array in arguments] for _ in range(2)]
        for arrays, sign in zip(shifted, (1.0, -1.0), strict=True):
            arrays[which][index] += sign
        (up, *up_cores), (down, *down_cores) = shifted
        room = max(value_room(up_cores, up, slope), value_room(down_cores, down, slope))
        return (value(up_cores, up, slope) - value(down_cores, down, slope)) / 2, room

    plans = every_plan(mpo.shape)
    gradients = [(dx, *dcores) for dx, dcores in (execute.backward(p, mpo.cores, x, slope, OPS) for p in plans)]
    for which, array in enumerate(arguments):
        for index in np.ndindex(array.shape):
            expected, room = difference(which, index)
            for plan, gradient in zip(plans, gradients, strict=True):
                assert abs(gradient[which][index] - expected) <= EPS * gradient_depth(plan, 2) * room, plan


@few
@given(mpos(max_sites=4, max_size=144), st.data())
def test_backward_needs_no_plan_of_forward(mpo, data):
    """Two plans agree, number by number: which of them ran forward leaves no trace."""
    x, slope = inputs_for(mpo, 5), slopes_for(mpo, 5)
    plans = every_plan(mpo.shape)
    one, other = data.draw(st.sampled_from(plans)), data.draw(st.sampled_from(plans))
    (dx, dcores), (ex, ecores) = (execute.backward(p, mpo.cores, x, slope, OPS) for p in (one, other))
    positive = absolute(mpo).cores
    rx, rcores = execute.backward(one, positive, np.abs(x), np.abs(slope), OPS)
    factor = EPS * (gradient_depth(one, 5) + gradient_depth(other, 5))
    assert np.all(np.abs(dx - ex) <= factor * rx)
    for d, e, room in zip(dcores, ecores, rcores, strict=True):
        assert np.all(np.abs(d - e) <= factor * room)


@few
@given(mpos(max_sites=4, max_size=256))
def test_an_empty_batch_has_no_output_and_zero_gradients(mpo):
    x, slope = inputs_for(mpo, 0), slopes_for(mpo, 0)
    for plan in every_plan(mpo.shape):
        assert execute.forward(plan, mpo.cores, x, Strict()).shape == (0, mpo.shape.out_features)
        dx, dcores = execute.backward(plan, mpo.cores, x, slope, Strict())
        assert dx.shape == (0, mpo.shape.in_features)
        assert all(d.shape == c.shape and not d.any() for d, c in zip(dcores, mpo.cores, strict=True))


@few
@given(mpos(max_sites=4, max_size=256))
def test_the_gradient_of_the_inputs_may_be_left_out(mpo):
    x, slope = inputs_for(mpo, 5), slopes_for(mpo, 5)
    for plan in every_plan(mpo.shape):
        none, dcores = execute.backward(plan, mpo.cores, x, slope, OPS, wrt_inputs=False)
        _, expected = execute.backward(plan, mpo.cores, x, slope, OPS)
        assert none is None
        assert all(np.array_equal(a, b) for a, b in zip(dcores, expected, strict=True))


@few
@given(mpos(max_sites=4, max_size=256))
def test_what_is_saved_gives_the_same_numbers_and_takes_what_is_said(mpo):
    for batch in BATCHES:
        x, slope = inputs_for(mpo, batch), slopes_for(mpo, batch)
        for plan in candidates(mpo.shape, transposed=True):
            outputs, nothing = execute.forward_saving(plan, mpo.cores, x, OPS)
            assert nothing is None
            dx, dcores = execute.backward(plan, mpo.cores, x, slope, OPS)
            again, kept = execute.forward_saving(plan.saving(), mpo.cores, x, OPS)
            assert np.array_equal(again, outputs)
            assert kept == execute.Saved.of(plan.saving(), kept.arrays)
            before = [array.copy() for array in kept.arrays]
            for _ in range(2):  # a second backward pass finds what the first one did
                found, slopes = execute.backward(plan.saving(), mpo.cores, x, slope, OPS, saved=kept)
                for one, other in zip((found, *slopes), (dx, *dcores), strict=True):
                    # numpy rounds by how an array lies in memory, which transposing changes
                    bound = 1e-14 * np.abs(other).max(initial=0.0) if plan.transposed else 0.0
                    np.testing.assert_allclose(one, other, rtol=0, atol=bound)
            assert all(np.array_equal(a, b) for a, b in zip(before, kept.arrays, strict=True))
            own = [array for array in kept.weights if not any(np.shares_memory(array, core) for core in mpo.cores)]
            weights, states = saved(plan.saving(), 0), saved(plan.saving(), batch) - saved(plan.saving(), 0)
            assert sum(array.size for array in kept.states) == states
            assert sum(array.size for array in own) <= weights <= sum(array.size for array in kept.weights)
            assert saved(plan, batch) == 0


@pytest.mark.parametrize("tile", TILES)
def test_nothing_that_is_given_is_changed(tile):
    mpo = random_mpo(MPOShape.from_factors((2, 3, 2), (3, 2, 2), 4), np.random.default_rng(0))
    x, slope = inputs_for(mpo, 4), slopes_for(mpo, 4)
    before = [array.copy() for array in (x, slope, *mpo.cores)]
    for plan in candidates(mpo.shape, transposed=True):
        execute.backward(plan.with_tile(tile), mpo.cores, x, slope, OPS)
    assert all(np.array_equal(a, b) for a, b in zip(before, (x, slope, *mpo.cores), strict=True))
