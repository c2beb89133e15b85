"""Pairwise plans of any network and their backward pass against explicit sums over all edges."""

import subprocess
import sys
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from core.strategies import pair_plans, wirings
from core.test_contract import Strict, Tracing
from mponet.contraction import execute
from mponet.contraction.cost import predict, workspace
from mponet.contraction.graph_plan import GraphPlan
from mponet.contraction.graph_search import DP_LIMIT, OPTIMAL_LIMIT, matrix_of, path
from mponet.contraction.plan import Plan
from mponet.contraction.planner import PURPOSES
from mponet.contraction.search import LEFT_SWEEP_PENALTY, choose, memory_limit, ranked
from mponet.errors import PlanError, ShapeError
from mponet.operators.initialize import exact_tensors
from mponet.operators.shape import MPOShape
from mponet.operators.topology import NetworkShape
from mponet_numpy.ops.arrays import OPS
from mponet_numpy.ops.arrays import Ops as NumpyOps

RING, TUCKER = graphs.WIRINGS["ring"], graphs.WIRINGS["tucker"]
BATCHES = st.sampled_from([0, 1, 2, 5])
some = settings(max_examples=60)


@st.composite
def planned(draw):
    """A network and any plan of it."""
    wiring = draw(wirings())
    return draw(pair_plans(wiring))


def copies(arrays):
    return [array.copy() for array in arrays]


# ---------------------------------------------------------------- values


@some
@given(planned(), BATCHES, st.booleans())
def test_any_plan_is_the_product_with_the_matrix(plan, rows, biased):
    wiring, tensors = plan.shape, graphs.tensors_of(plan.shape)
    inputs, _ = graphs.batch_of(wiring, rows)
    bias = np.arange(wiring.out_features) / 3 if biased else np.zeros(wiring.out_features)
    before = copies([inputs, bias, *tensors])
    found = execute.forward(plan, tensors, inputs, OPS, bias if biased else None)
    expected = inputs @ graphs.matrix(wiring, tensors) + bias
    room = np.abs(inputs) @ graphs.matrix(wiring, graphs.magnitudes(tensors)) + bias
    assert found.shape == expected.shape
    assert np.all(np.abs(found - expected) <= graphs.allowed(wiring, 1, room)), plan
    assert all(np.array_equal(a, b) for a, b in zip(before, [inputs, bias, *tensors], strict=True))


@some
@given(planned(), BATCHES)
def test_a_batch_of_unknown_size_and_a_library_that_guesses_no_sizes(plan, rows):
    tensors = graphs.tensors_of(plan.shape)
    inputs, slope = graphs.batch_of(plan.shape, rows)
    known = execute.forward(plan, tensors, inputs, OPS)
    assert np.array_equal(execute.forward(plan, tensors, inputs, Strict()), known)
    slopes = execute.backward(plan, tensors, inputs, slope, OPS)
    strict = execute.backward(plan, tensors, inputs, slope, Strict())
    assert same(strict, slopes)
    if rows:
        assert np.array_equal(execute.forward(plan, tensors, inputs, Tracing()), known)
        assert same(execute.backward(plan, tensors, inputs, slope, Tracing()), slopes)


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip((one[0], *one[1]), (other[0], *other[1]), strict=True))


@some
@given(wirings())
def test_matrix_of_is_the_sum_over_all_bonds(wiring):
    tensors = graphs.tensors_of(wiring)
    room = graphs.matrix(wiring, graphs.magnitudes(tensors))
    found = matrix_of(wiring, tensors)
    assert found.dtype == np.float64
    assert np.all(np.abs(found - graphs.matrix(wiring, tensors)) <= graphs.allowed(wiring, 1, room))


def test_matrix_of_refuses_other_tensors():
    with pytest.raises(ShapeError, match="expected 3"):
        matrix_of(RING, graphs.tensors_of(RING)[:1])


def test_float32_stays_float32():
    tensors = [tensor.astype(np.float32) for tensor in graphs.tensors_of(RING)]
    inputs, slope = (array.astype(np.float32) for array in graphs.batch_of(RING, 4))
    plan = choose(RING, 4)
    assert execute.forward(plan, tensors, inputs, OPS).dtype == np.float32
    by_inputs, by_nodes = execute.backward(plan, tensors, inputs, slope, OPS)
    assert {array.dtype for array in (by_inputs, *by_nodes)} == {np.dtype(np.float32)}


# ---------------------------------------------------------------- gradients


@some
@given(planned(), BATCHES)
def test_gradients_of_any_plan_are_their_formulae(plan, rows):
    wiring, tensors = plan.shape, graphs.tensors_of(plan.shape)
    inputs, slope = graphs.batch_of(wiring, rows)
    by_inputs, by_nodes = execute.backward(plan, tensors, inputs, slope, OPS)
    expected = graphs.gradients(wiring, tensors, inputs, slope)
    room = graphs.gradients(wiring, graphs.magnitudes(tensors), np.abs(inputs), np.abs(slope))
    for ours, theirs, size in zip((by_inputs, *by_nodes), expected, room, strict=True):
        assert ours.shape == theirs.shape
        assert np.all(np.abs(ours - theirs) <= graphs.allowed(wiring, max(rows, 1), size)), plan


def test_legs_that_lie_apart_are_brought_together_for_the_first_step():
    wiring = NetworkShape.from_edges(
        {"a": "in1 in3 out1", "b": "in2 out2"}, {"in1": 2, "in2": 3, "in3": 2, "out1": 2, "out2": 3}
    )
    plan = GraphPlan(wiring, ((0, 1), (0, 1)), 2)
    assert plan.program.input_order is not None
    assert plan.steps[0].transposition is None
    tensors, (inputs, slope) = graphs.tensors_of(wiring), graphs.batch_of(wiring, 5)
    found, _ = execute.backward(plan, tensors, inputs, slope, OPS)
    np.testing.assert_allclose(found, slope @ graphs.matrix(wiring, tensors).T, rtol=1e-12, atol=1e-12)


@settings(max_examples=30)
@given(planned())
def test_gradients_are_differences_of_any_length(plan):
    """The map is linear in the inputs and in each node, so a finite step is exact."""
    wiring, tensors = plan.shape, graphs.tensors_of(plan.shape)
    inputs, slope = graphs.batch_of(wiring, 3)

    def value(arrays):
        return float((execute.forward(plan, arrays[1:], arrays[0], OPS) * slope).sum())

    arrays = [inputs, *tensors]
    by_inputs, by_nodes = execute.backward(plan, tensors, inputs, slope, OPS)
    steps = [np.random.default_rng(k).normal(size=array.shape) for k, array in enumerate(arrays)]
    for k, gradient in enumerate((by_inputs, *by_nodes)):
        moved = [array + steps[k] if j == k else array for j, array in enumerate(arrays)]
        sizes = [np.abs(array) + np.abs(steps[k]) if j == k else np.abs(array) for j, array in enumerate(arrays)]
        room = float((np.abs(slope) * (sizes[0] @ graphs.matrix(wiring, sizes[1:]))).sum())
        change = value(moved) - value(arrays)
        assert abs(change - float((gradient * steps[k]).sum())) <= graphs.allowed(wiring, 3, 3 * room)


@some
@given(planned(), BATCHES)
def test_inputs_that_want_no_gradient_get_none(plan, rows):
    tensors = graphs.tensors_of(plan.shape)
    inputs, slope = graphs.batch_of(plan.shape, rows)
    nothing, found = execute.backward(plan, tensors, inputs, slope, OPS, wrt_inputs=False)
    assert nothing is None
    assert same((inputs, found), (inputs, execute.backward(plan, tensors, inputs, slope, OPS)[1]))


def test_a_tile_bounds_the_rows_that_are_led_through_at_once():
    seen = []

    class Watching(NumpyOps):
        def matmul(self, a, b, out=None):
            seen.append(a.shape[0] if a.ndim + b.ndim == 4 else max(a.shape[0], b.shape[0]))
            return super().matmul(a, b, out)

    wiring = graphs.WIRINGS["in two pieces"]
    plan = GraphPlan(wiring, ((0, 1), (0, 1)), 3)
    inputs, _ = graphs.batch_of(wiring, 50)
    execute.forward(plan, graphs.tensors_of(wiring), inputs, Watching())
    prefixes = max(step.prefix * max(step.suffix, 1) for step in plan.steps)
    assert max(seen) <= 3 * max(prefixes, wiring.in_features)


# ---------------------------------------------------------------- plans as values


@some
@given(planned())
def test_multiplications_are_those_of_the_products_that_are_run(plan):
    counted = []

    class Counting(NumpyOps):
        def matmul(self, a, b, out=None):
            result = super().matmul(a, b, out)
            counted.append(result.size * a.shape[-1])
            return result

        def linear(self, a, b, bias):
            return self.matmul(a, b)

        def matmul_permuted(self, a, b, sizes, axes, shape):
            return super().matmul_permuted(self.matmul(a, b), np.eye(b.shape[1]), sizes, axes, shape)

    inputs, _ = graphs.batch_of(plan.shape, 5)
    execute.forward(plan, graphs.tensors_of(plan.shape), inputs, Counting())
    assert sum(counted) == plan.multiplications(5)


@some
@given(planned())
def test_only_what_is_said_to_be_turned_is_transposed(plan):
    moved = []

    class Watching(NumpyOps):
        def transpose(self, array, axes):
            moved.append(array.size if array.shape[0] == 11 and axes[0] == 0 else 0)
            return super().transpose(array, axes)

    wiring = plan.shape
    inputs, _ = graphs.batch_of(wiring, 11)  # no dimension of a network is 11
    execute.forward(plan.with_tile(None), graphs.tensors_of(wiring), inputs, Watching())
    assert sum(moved) == 11 * plan.transposed_size


def sweeps(count):
    """Every order of ``count`` nodes in which each is an end of those left."""
    if count == 1:
        return [(0,)]
    shorter = sweeps(count - 1)
    return [(0, *(k + 1 for k in order)) for order in shorter] + [(count - 1, *order) for order in shorter]


@pytest.mark.parametrize("order", [order for count in (2, 3, 4) for order in sweeps(count)], ids=str)
def test_a_chain_that_is_met_from_its_ends_is_never_transposed(order):
    """The layouts of `mponet.contraction.plan` need no transposition.

    So a path of the same order needs none.
    """
    count = len(order)
    nodes = {f"n{k}": f"in{k + 1} out{k + 1} b{k} b{k + 1}" for k in range(count)}
    nodes = {name: edges.replace(" b0", "").replace(f" b{count}", "") for name, edges in nodes.items()}
    wiring = NetworkShape.from_edges(nodes, {edge: 2 for own in nodes.values() for edge in own.split()})
    left, way = ["batch", *range(count)], []
    for node in order:
        way.append(tuple(sorted((left.index("batch"), left.index(node)))))
        left = [*(other for other in left if other not in ("batch", node)), "batch"]
    plan = GraphPlan(wiring, tuple(way))
    assert plan.transposed_size == 0
    chain = Plan(MPOShape.from_factors((2,) * count, (2,) * count, 2), (1,) * count, order)
    assert [step.multiplications for step in plan.steps] == [step.multiplications for step in chain.steps]


def operations(wiring, way, batch):
    """Multiplications of a path and as many additions where it sums: what opt_einsum minimises."""
    dims, total = {"batch": batch, **wiring.dims}, 0
    left = [{"batch", *wiring.inputs}, *map(set, wiring.edges)]
    for places in way:
        one, other = (left.pop(place) for place in sorted(places, reverse=True))
        total += prod(dims[edge] for edge in one | other) * (2 if one & other else 1)
        left.append(one ^ other)  # no edge is met three times
    return total


@settings(max_examples=100)
@given(st.data(), wirings(), st.sampled_from([1, 16, 1000]))
def test_no_path_has_fewer_operations_than_the_one_found(data, wiring, batch):
    other = data.draw(pair_plans(wiring)).path
    assert operations(wiring, path(wiring, batch), batch) <= operations(wiring, other, batch)


@some
@given(wirings(), st.sampled_from([1, 16, 1000]), st.sampled_from(PURPOSES))
def test_the_plan_is_the_one_that_the_model_prefers(wiring, batch, purpose):
    options = ranked(wiring, batch, purpose=purpose)
    limit = memory_limit(wiring, batch, purpose)
    keys = [
        (
            4 * workspace(option, batch, purpose=purpose) > limit,
            predict(option, batch, purpose=purpose) * (LEFT_SWEEP_PENALTY if option.steps[0].suffix > 1 else 1.0),
        )
        for option in options
    ]
    assert keys == sorted(keys)
    assert choose(wiring, batch, purpose=purpose) == options[0]
    assert {option.path for option in options} == {path(wiring, batch), path(wiring, None)}
    assert all(option.tile is None or 2 * option.tile <= batch for option in options)
    assert {plan.tile for plan in ranked(wiring, None)} == {None}


@pytest.mark.parametrize("count", [3, OPTIMAL_LIMIT, OPTIMAL_LIMIT + 1, DP_LIMIT, DP_LIMIT + 3])
def test_rings_of_any_length_have_a_path(count):
    nodes = {f"n{k}": f"in{k + 1} out{k + 1} b{k} b{(k + 1) % count}" for k in range(count)}
    edges = {edge for own in nodes.values() for edge in own.split()}
    small = {edge: 2 if edge.startswith("b") or edge in ("in1", "out2") else 1 for edge in edges}
    wiring = NetworkShape.from_edges(nodes, small)
    tensors = graphs.tensors_of(wiring)
    inputs, slope = graphs.batch_of(wiring, 3)
    plan = choose(wiring, 3)
    found = execute.forward(plan, tensors, inputs, OPS)
    room = np.abs(inputs) @ matrix_of(wiring, graphs.magnitudes(tensors))
    assert np.all(np.abs(found - inputs @ matrix_of(wiring, tensors)) <= graphs.allowed(wiring, 1, room))
    assert len(execute.backward(plan, tensors, inputs, slope, OPS)[1]) == count


def test_paths_are_the_same_in_every_process():
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\nimport graphs\n"
        "from mponet.contraction.search import choose\n"
        "for wiring in graphs.WIRINGS.values():\n"
        "    print([choose(wiring, n).path for n in (None, 1, 64, 4096)])"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(runs) == 1
    assert len(runs.pop().splitlines()) == len(graphs.WIRINGS)


@pytest.mark.parametrize(
    ("way", "tile", "message"),
    [
        (((0, 1), (0, 1)), None, "expected 3 pairs"),
        (((0, 1), (0, 1), (0, 0)), None, "expected 3 pairs"),
        (((0, 4), (0, 1), (0, 1)), None, "expected 3 pairs"),
        (((0, 1, 2), (0, 1), (0, 1)), None, "expected 3 pairs"),
        (((0, -1), (0, 1), (0, 1)), None, "expected 3 pairs"),
        (((0, 1), (0, 1), (0, 1)), 0, "tile is 0"),
        (((0, 1), (0, 1), (0, 1)), 1.5, "tile is 1.5"),
    ],
)
def test_plans_that_cannot_be_run_are_refused(way, tile, message):
    with pytest.raises(PlanError, match=message):
        GraphPlan(RING, way, tile)


def test_a_plan_says_what_it_does():
    assert str(GraphPlan(RING, ((1, 2), (1, 2), (0, 1)))) == "rebuild W, 1 product"
    plan = GraphPlan(RING, ((1, 3), (0, 2), (0, 1)), 16)
    assert str(plan) == "pass (a c) > b, tiles of 16"
    lines = plan.explain(64).splitlines()
    assert lines[0] == str(RING)
    assert [line.split()[:2] for line in lines[3:6]] == [["merge", "a"], ["pass", "(a"], ["pass", "b"]]
    assert lines[-1].split()[-1] == str(plan.multiplications(64))
    assert f"a dense layer: {64 * RING.dense_parameters}" in lines[-1]
    found = [int(line.removesuffix(", batch transposed first").split()[-1]) for line in lines[3:6]]
    assert sum(found) == plan.multiplications(64)


def test_a_small_batch_meets_the_nodes_and_a_large_one_the_merged_weight():
    big = dict.fromkeys(("in1", "in2", "out1", "out2", "r1", "r2", "s1", "s2"), 8)
    wiring = NetworkShape.from_edges(
        {name: TUCKER.edges[k] for k, name in enumerate(TUCKER.names)}, big | {"r1": 2, "r2": 2}
    )
    assert GraphPlan(wiring, path(wiring, None)).steps[0].inner == wiring.in_features
    assert len(GraphPlan(wiring, path(wiring, 1)).steps) > 1
    assert GraphPlan(wiring, path(wiring, 1)).multiplications(1) < GraphPlan(
        wiring, path(wiring, None)
    ).multiplications(1)


# ---------------------------------------------------------------- starting values


@settings(max_examples=20)
@given(wirings(), st.sampled_from(["glorot", "he", "lecun", 0.3]))
def test_the_variance_of_the_matrix_is_the_target_exactly(wiring, rule):
    """``Var(W) = sum over bonds of prod of variances``: with constant variances a sum of ones."""

    class Deviations:
        def normal(self, mean, deviation, size):
            assert mean == 0.0
            return np.full(size, deviation**2)

    n, m = wiring.in_features, wiring.out_features
    target = {"glorot": 2 / (n + m), "he": 2 / n, "lecun": 1 / n}.get(rule, rule)
    variances = exact_tensors(wiring, Deviations(), rule)
    np.testing.assert_allclose(graphs.matrix(wiring, variances), target, rtol=1e-12)


def test_starting_values_are_normal_and_follow_the_generator():
    one, two = (exact_tensors(TUCKER, np.random.default_rng(4)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert tuple(tensor.shape for tensor in one) == TUCKER.sizes
