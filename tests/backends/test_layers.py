"""What every framework's MPO layer promises, one suite for all of them."""

import re
from dataclasses import replace

import numpy as np
import pytest

import graphs
from frameworks import probe
from mponet import MPO, MPOShape, from_matrix, to_matrix
from mponet.contraction import execute, planner
from mponet.contraction.machine import DEFAULT_COSTS
from mponet.draw import render
from mponet.errors import InputError, ShapeError
from mponet.operators.initialize import exact_variance
from mponet.operators.nodes import from_network, network, reference

pytestmark = pytest.mark.usefixtures("double_precision")
EPS = np.finfo(np.float64).eps
SHAPES = [
    MPOShape.from_factors((6,), (5,), 1),
    MPOShape.from_factors((2, 3), (4, 1), 100),
    MPOShape.from_factors((2, 3, 2), (3, 1, 2), (2, 4)),
    MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 4),
    MPOShape.from_factors((4, 4, 4, 4), (1, 1, 10, 1), 4),
]


@pytest.fixture(scope="module")
def lab(backend_name, backend):
    return probe(backend_name)


def sample(shape, batch=3, seed=0):
    rng = np.random.default_rng(seed)
    mpo = exact_variance(shape, rng)
    bias = rng.normal(size=shape.out_features)
    return mpo, bias, rng.normal(size=(batch, shape.in_features)), rng.normal(size=(batch, shape.out_features))


def rounding(mpo, *arrays):
    """Bound of the rounding of a product of cores and arrays: longest sums times magnitudes.

    An entry is a sum of nested sums whose lengths add up to ``terms``: its error is at most
    ``gamma_terms``, about ``terms * eps``, times the same sum over magnitudes (Higham, Accuracy and
    Stability, 2nd ed., sec. 3.1).
    """
    terms = mpo.shape.in_features + mpo.shape.out_features + len(arrays[0]) + sum(mpo.shape.bond_dims)
    size = np.abs(to_matrix(MPO(mpo.shape, tuple(np.abs(c) for c in mpo.cores)))).sum(axis=0).max()
    for array in arrays:
        size = size * max(np.abs(array).max(), 1.0)
    return terms * EPS * size


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layer_equals_the_graph_contraction(lab, shape):
    mpo, bias, inputs, _ = sample(shape)
    layer = lab.layer.from_mpo(mpo, bias, dtype=lab.float64)
    assert np.abs(lab.call(layer, inputs) - reference(mpo, inputs) - bias).max() <= rounding(mpo, inputs)


@pytest.mark.parametrize("batch", [1, 2, 33, 200])
def test_any_batch_through_any_plan_is_the_same_map(lab, batch):
    mpo, bias, inputs, _ = sample(SHAPES[3], batch)
    layer = lab.layer.from_mpo(mpo, bias, dtype=lab.float64)
    assert np.abs(lab.call(layer, inputs) - inputs @ to_matrix(mpo) - bias).max() <= rounding(mpo, inputs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_equal_the_frameworks_own_autodiff(lab, shape):
    mpo, bias, inputs, slope = sample(shape)
    layer = lab.layer.from_mpo(mpo, bias, dtype=lab.float64)
    found = lab.gradients(layer, inputs, slope)
    cut = [*found[: shape.sites + 1]]
    expected = lab.einsum_gradients(
        mpo.cores, inputs.reshape(-1, *shape.input_dims), slope.reshape(-1, *shape.output_dims)
    )
    for ours, theirs in zip(cut, expected, strict=True):
        assert ours.size == theirs.size
        scale = max(np.abs(theirs).max(), 1.0)
        assert np.abs(ours.ravel() - theirs.ravel()).max() <= 1e3 * EPS * shape.in_features * scale
    assert np.allclose(found[-1], slope.sum(axis=0), rtol=1e-13)


@pytest.mark.parametrize("shape", SHAPES[1:3], ids=str)
def test_gradients_equal_finite_differences(lab, shape):
    mpo, bias, inputs, slope = sample(shape)
    layer = lab.layer.from_mpo(mpo, bias, dtype=lab.float64)
    found = lab.gradients(layer, inputs, slope)
    base = (lab.call(layer, inputs) * slope).sum()
    rng = np.random.default_rng(1)
    for k in range(shape.sites):
        step = rng.normal(
            size=mpo.cores[k].shape
        )  # the layer is linear in each core: a difference of any size is exact
        moved = MPO(shape, tuple(core + step if j == k else core for j, core in enumerate(mpo.cores)))
        change = (lab.call(lab.layer.from_mpo(moved, bias, dtype=lab.float64), inputs) * slope).sum() - base
        assert abs(change - (found[k + 1] * step).sum()) <= 1e-11 * max(abs(base), 1.0)
    step = rng.normal(size=inputs.shape)
    change = (lab.call(layer, inputs + step) * slope).sum() - base
    assert abs(change - (found[0] * step).sum()) <= 1e-11 * max(abs(base), 1.0)


@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (2, 1, 4), (0,)])
def test_any_leading_dimensions(lab, leading):
    mpo, bias, _, _ = sample(SHAPES[2])
    inputs = np.random.default_rng(2).normal(size=(*leading, 12))
    outputs = lab.call(lab.layer.from_mpo(mpo, bias, dtype=lab.float64), inputs)
    assert outputs.shape == (*leading, 6)
    assert np.allclose(outputs, inputs @ to_matrix(mpo) + bias, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(5, 13), (10, 6), (24,), (4, 3)])
def test_a_wrong_width_names_both_sizes(lab, shape):
    mpo, bias, _, _ = sample(SHAPES[2])
    layer = lab.layer.from_mpo(mpo, bias, dtype=lab.float64)
    with pytest.raises(ShapeError, match=rf"{shape[-1]}.*12"):
        lab.call(layer, np.ones(shape))


def test_to_mpo_gives_back_what_was_put_in(lab):
    mpo, bias, _, _ = sample(SHAPES[2])
    layer = lab.layer.from_mpo(mpo, bias, dtype=lab.float64)
    back = layer.to_mpo()
    assert back.shape == mpo.shape
    assert all(np.array_equal(a, b) for a, b in zip(back.cores, mpo.cores, strict=True))


@pytest.mark.parametrize("bias", [True, False])
def test_dense_to_mpo_and_back(lab, bias):
    rng = np.random.default_rng(3)
    weight, offset = rng.normal(size=(12, 6)), rng.normal(size=6) if bias else None
    inputs = rng.normal(size=(4, 12))
    layer = lab.layer.from_dense(lab.dense(weight, offset), input_dims=(2, 3, 2), output_dims=(3, 1, 2))
    expected = inputs @ weight + (0 if offset is None else offset)
    assert np.allclose(lab.call(layer, inputs), expected, rtol=0, atol=1e-12)
    assert np.allclose(lab.dense_call(layer.to_dense(), inputs), expected, rtol=0, atol=1e-12)


def test_from_matrix_truncates_as_the_core_does(lab):
    weight = np.random.default_rng(4).normal(size=(16, 16))
    kept = from_matrix(weight, (4, 4), (4, 4), max_bond=3).mpo
    layer = lab.layer.from_matrix(weight, (4, 4), (4, 4), max_bond=3, dtype=lab.float64)
    assert layer.shape.bond_dims == (1, 3, 1)
    assert np.array_equal(to_matrix(layer.to_mpo()), to_matrix(kept))


def test_from_sizes_clamps_and_starts_at_the_target_variance(lab):
    layer = lab.sized(784, 256, 10_000)
    assert layer.shape == MPOShape.from_sizes(784, 256, 10_000)
    assert layer.shape.bond_dims == layer.shape.max_bond_dims
    variance = to_matrix(lab.sized(784, 256, 64).to_mpo()).var()
    # products of normal cores: the relative deviation of the mean square over 28*16*64 entries per
    # core is below 3 %
    assert abs(variance / (2 / (784 + 256)) - 1) < 0.1


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("kind", ["operator", "network"])
def test_repr_names_the_plan_that_a_step_runs(lab, kind, tuned, monkeypatch):
    if tuned:  # as constants measured here would do: calls are so slow that one product is best
        monkeypatch.setattr(planner, "machine_of", lambda *_: replace(DEFAULT_COSTS, call_overhead=1.0))
        planner._plans_for.cache_clear()
    layer = lab.sized((64, 64), (64, 64), 4) if kind == "operator" else lab.wired(graphs.WIRINGS["ring"])
    ran = []
    for module in (execute, execute):
        for name in ("forward", "sweep", "backward"):
            if original := getattr(module, name, None):
                watched = lambda plan, *rest, original=original, **options: (  # noqa: E731
                    ran.append(str(plan)) or original(plan, *rest, **options)
                )
                monkeypatch.setattr(module, name, watched)
    inputs = np.random.default_rng(0).normal(size=(128, layer.in_features)).astype(np.float32)
    lab.gradients(layer, inputs, np.ones((128, layer.out_features), np.float32))
    planner._plans_for.cache_clear()
    assert len(ran) >= 1
    assert {f"plan='{plan} (batch 128)'" for plan in ran} == {re.search(r"plan='[^']*'", repr(layer))[0]}
    assert not tuned or "rebuild W" in ran[0]


def test_printing_a_layer_times_nothing(lab, monkeypatch):
    monkeypatch.setenv("MPONET_PLAN", "measure")
    monkeypatch.setattr(planner, "timed", lambda *_: pytest.fail("a repr timed candidates"))
    assert "plan='measured at the first call'" in repr(lab.sized((64, 64), (64, 64), 4))


@pytest.mark.parametrize("form", ["operator", "network"])
def test_both_layers_go_through_the_same_doors(lab, form):
    mpo, bias, inputs, _ = sample(SHAPES[2])
    kind, options = (lab.layer if form == "operator" else lab.network), {"dtype": lab.float64}
    matrix = to_matrix(mpo)
    dense = lab.dense(matrix, bias)
    sizes = mpo.shape.input_dims, mpo.shape.output_dims
    made = {
        "from_mpo": kind.from_mpo(mpo, bias, **options),
        "from_nodes": kind.from_nodes(network(mpo), bias, **options),
        "from_matrix": kind.from_matrix(matrix, *sizes, bias=bias, **options),
        "from_dense": kind.from_dense(dense, input_dims=sizes[0], output_dims=sizes[1]),
    }
    assigned = kind.from_mpo(exact_variance(mpo.shape, np.random.default_rng(9)), bias * 0, **options)
    assigned.assign(mpo, bias)
    again = kind.from_mpo(exact_variance(mpo.shape, np.random.default_rng(9)), bias, **options)
    again.assign(assigned.tensors)  # the framework's own arrays
    for name, layer in {**made, "assign": assigned, "assign tensors": again}.items():
        room = rounding(mpo, inputs)
        assert np.abs(lab.call(layer, inputs) - inputs @ matrix - bias).max() <= room, name
        assert np.abs(layer.to_matrix() - matrix).max() <= room, name
        assert np.abs(to_matrix(layer.to_mpo()) - matrix).max() <= room, name
        assert np.abs(to_matrix(from_network(layer.to_nodes())) - matrix).max() <= room, name
        assert np.abs(lab.dense_call(layer.to_dense(), inputs) - inputs @ matrix - bias).max() <= room, name
        assert (layer.in_features, layer.out_features) == matrix.shape
        assert "rebuild W" in layer.explain(3)


def test_repr_shows_shape_counts_and_plan(lab):
    text = repr(lab.sized((4, 7, 7, 4), (4, 4, 4, 4), 16))
    for part in ("M^{4,4,4,4}_{4,7,7,4}(16)", "14848", "200704", "plan="):
        assert part in text


def test_bad_bias_and_bad_operator_are_refused(lab):
    mpo, _, _, _ = sample(SHAPES[2])
    with pytest.raises(ShapeError, match="bias"):
        lab.layer.from_mpo(mpo, np.zeros(7), dtype=lab.float64)
    layer = lab.layer.from_mpo(mpo, None, dtype=lab.float64)
    with pytest.raises(ShapeError, match="expected none"):
        layer.assign(mpo, np.zeros(6))
    with pytest.raises(ShapeError, match="operator is"):
        layer.assign(sample(SHAPES[1])[0])


@pytest.mark.parametrize("shape", SHAPES[2:4], ids=str)
def test_a_layer_shows_itself_in_notebooks_as_its_operator(lab, shape):
    mpo, bias, _, _ = sample(shape)
    layer = lab.layer.from_mpo(mpo, bias, dtype=lab.float64)
    assert layer._repr_svg_() == mpo._repr_svg_()
    assert layer._repr_html_() == mpo._repr_html_()
    assert render(layer, "txt") == render(mpo, "txt")


def test_a_layer_made_on_its_inputs_loses_less_there(lab):
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(12, 10)), rng.normal(size=10)
    inputs = rng.normal(size=(50, 12)) * np.arange(1, 13) ** -1.0 + 0.5
    wanted = inputs @ weight + bias
    for dims in (((12, 1), (1, 10)), ((3, 4), (5, 2))):
        options = {"input_dims": dims[0], "output_dims": dims[1], "max_bond": 3}
        dense = lab.dense(weight, bias)
        plain = lab.layer.from_dense(dense, **options)
        covariance = lab.layer.from_dense(dense, covariance=inputs.T @ inputs, **options)
        fitted = lab.layer.from_dense(dense, inputs=inputs.reshape(5, 10, 12), **options)
        assert plain.shape == covariance.shape == fitted.shape
        errors = [np.linalg.norm(lab.call(layer, inputs) - wanted) for layer in (plain, covariance, fitted)]
        assert errors[2] < errors[1] < errors[0]
        mean = (lab.call(fitted, inputs) - wanted).mean(0)
        assert np.abs(mean).max() < 1e-12  # the bias takes it up
        again = lab.layer.from_matrix(weight, *dims, max_bond=3, bias=bias, inputs=inputs)
        np.testing.assert_allclose(again.to_matrix(), fitted.to_matrix(), atol=1e-6)
    with pytest.raises(InputError, match="both given"):
        lab.layer.from_dense(dense, inputs=inputs, covariance=inputs.T @ inputs)
    with pytest.raises(ShapeError, match="number of inputs"):
        lab.layer.from_dense(dense, inputs=inputs[:, :5])
