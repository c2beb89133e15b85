"""The metric ``kfac``: layers fitted to the loss, by the gradients at their outputs."""

import pickle

import numpy as np
import pytest

from core.compress.planted import calibrated, correlated, linear, network, weight
from mponet import MPOShape, to_matrix
from mponet.compress import Calibration, CompressConfig, InputSums, fitted, make_plan
from mponet.compress.calibrate import MAX_PRODUCT_OUTPUTS
from mponet.errors import CompressionError, InputError, ShapeError
from mponet.operators.metric import Metric, output_spectrum
from mponet.operators.output_metric import OutputMetric, fit_weighted

TARGETS, INPUTS, _ = network(bias=False)
RNG = np.random.default_rng(5)
SLOPES = {target.name: 3.0**k * correlated(RNG, 300, target.out_features, 0.8) for k, target in enumerate(TARGETS)}


def with_gradients(slopes=SLOPES):
    calibration = calibrated(TARGETS, INPUTS)
    for name, rows in slopes.items():
        calibration.add_gradient(name, float((rows**2).mean()), len(rows), rows.T @ rows)
    return calibration


CALIBRATION = with_gradients()


def plan_of(calibration=CALIBRATION, **options):
    return make_plan(TARGETS, CompressConfig(**{"min_weights": 1, "structures": ("low-rank",)} | options), calibration)


def damped(rows):
    """The oracle's weights: the mean of ``g^T g``, a tenth of its mean diagonal added."""
    moment = rows.T @ rows / len(rows)
    return moment + 0.1 * np.trace(moment) / len(moment) * np.eye(len(moment))


def rise(layer):
    """The oracle: half of ``tr G E^T C E``, for the mean over rows."""
    target = next(t for t in TARGETS if t.name == layer.name)
    moved = INPUTS[layer.name] @ (target.load() - layer.matrix())
    return float(np.einsum("ri,ij,rj->", moved, damped(SLOPES[layer.name]), moved)) / len(moved) / 2


def problem(seed, n=24, m=32, rows=40):
    rng = np.random.default_rng(seed)
    x, g = correlated(rng, 200, n, 0.7), correlated(rng, rows, m, 0.9)
    return weight(rng, n, m, 0.3), x, g


def errors(matrix, other, x, g):
    """Plain and weighted relative error, from the outputs themselves."""
    factor = np.linalg.cholesky(damped(g))
    y, moved = x @ matrix, x @ (matrix - other)
    return (np.linalg.norm(moved @ f) / np.linalg.norm(y @ f) for f in (np.eye(len(factor)), factor))


@pytest.mark.parametrize("sizes", [(24, 32), (32, 24), (24, 24)])
def test_low_rank_loses_the_dropped_squares_of_the_weighted_outputs(sizes):
    matrix, x, g = problem(0, *sizes)
    squares = np.linalg.svd(x @ matrix @ np.linalg.cholesky(damped(g)), compute_uv=False) ** 2
    outputs, metric = OutputMetric(g.T @ g, len(g)), Metric.from_inputs(x)
    spectrum = output_spectrum(outputs.weigh(matrix), metric)
    np.testing.assert_allclose(spectrum.squares, squares[: len(spectrum.squares)], rtol=1e-8)
    plain_errors = outputs.output_errors(spectrum)
    for rank in (1, 5, 17):
        found = fit_weighted(matrix, MPOShape.from_factors((sizes[0], 1), (1, sizes[1]), rank), metric, outputs)
        plain, weighted = errors(matrix, to_matrix(found.mpo), x, g)
        assert found.loss_error == pytest.approx(weighted, rel=1e-8)
        assert weighted**2 == pytest.approx(squares[rank:].sum() / squares.sum(), rel=1e-8)
        assert found.error == pytest.approx(plain, rel=1e-8)
        assert plain_errors[rank] == pytest.approx(plain**2, rel=1e-8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("factors", [((24, 1), (1, 32)), ((4, 6), (1, 32)), ((2, 3, 4), (1, 1, 32)), ((4, 6), (8, 4))])
def test_weights_never_raise_the_weighted_error(factors, seed):
    matrix, x, g = problem(seed)
    shape, metric = MPOShape.from_factors(*factors, 3), Metric.from_inputs(x)
    weighted = fit_weighted(matrix, shape, metric, OutputMetric(g.T @ g, len(g)))
    plain = fit_weighted(matrix, shape, metric, None)
    assert weighted.mpo.shape == plain.mpo.shape
    first, second = (list(errors(matrix, to_matrix(f.mpo), x, g)) for f in (weighted, plain))
    assert (weighted.error, weighted.loss_error) == pytest.approx(tuple(first), rel=1e-8)
    assert plain.error == plain.loss_error
    if factors[1][0] > 1:  # outputs of several sites are fitted without weights
        np.testing.assert_array_equal(to_matrix(weighted.mpo), to_matrix(plain.mpo))
    else:
        assert first[1] < second[1]


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_weights_of_few_rows_can_be_inverted(rows):
    g = np.random.default_rng(0).standard_normal((rows, 30)) * 1e-5
    for moment in (g.T @ g / rows, (g**2).mean(0)):
        outputs = OutputMetric(moment)
        np.testing.assert_allclose(outputs.unweigh(outputs.weigh(np.eye(30))), np.eye(30), atol=1e-12)
        full = moment if moment.ndim == 2 else np.diag(moment)
        squared = outputs.weigh(outputs.weigh(np.eye(30)))
        np.testing.assert_allclose(squared, full + 0.1 * np.trace(full) / 30 * np.eye(30), rtol=1e-9, atol=1e-20)
    assert pickle.loads(pickle.dumps(outputs)).products.shape == (30,)
    for value, error in ((np.zeros(3), InputError), (np.ones((2, 3)), ShapeError)):
        with pytest.raises(error, match="products"):
            OutputMetric(value)


@pytest.mark.parametrize("keep", [0.7, 0.4])
@pytest.mark.parametrize("structures", [("low-rank",), ("mpo",), ("low-rank", "mpo")])
def test_budgets_are_met_and_both_errors_are_predicted(keep, structures):
    plan = plan_of(keep=keep, structures=structures)
    assert keep - 0.03 <= plan.keep <= keep
    for layer in fitted(TARGETS, plan, CALIBRATION):
        target = next(t for t in TARGETS if t.name == layer.name)
        y = INPUTS[layer.name] @ target.load()
        error = np.linalg.norm(y - INPUTS[layer.name] @ layer.matrix()) / np.linalg.norm(y)
        assert layer.output_error == pytest.approx(error, rel=1e-6)
        assert plan[layer.name].output_error == pytest.approx(error, rel=0.05)
        assert plan[layer.name].loss == pytest.approx(rise(layer), rel=0.1)


@pytest.mark.parametrize("keep", [0.7, 0.5, 0.3])
def test_the_loss_rises_less_than_without_weights(keep):
    rises = [
        sum(rise(layer) for layer in fitted(TARGETS, plan_of(keep=keep, metric=metric), CALIBRATION))
        for metric in ("kfac", "covariance")
    ]
    assert rises[0] < 0.97 * rises[1]


def test_the_metric_is_kfac_where_the_loss_is_what_counts():
    assert [CompressConfig(keep=0.5, allocation=a).fit_metric for a in ("loss", "output", "uniform")] == [
        *("kfac", "covariance", "covariance"),
    ]
    assert CompressConfig(error=0.1).fit_metric == "covariance"
    assert CompressConfig(keep=0.5, metric="diagonal").fit_metric == "diagonal"
    assert plan_of(keep=0.5).config["metric"] == "kfac"
    assert [CompressConfig(keep=0.5, allocation="output", metric=m).needs_gradients for m in ("auto", "kfac")] == [
        *(False, True),
    ]


@pytest.mark.parametrize("metric", ["auto", "kfac"])
def test_an_error_budget_bounds_the_plain_output_errors(metric):
    plan = plan_of(error=0.2, metric=metric)
    assert plan.replaced
    for layer in fitted(TARGETS, plan, CALIBRATION):
        assert layer.output_error <= 0.2 * (1 + 1e-9)


def test_without_gradients_the_metric_is_the_covariance_and_the_plan_says_so():
    without = calibrated(TARGETS, INPUTS)
    plan, plain = (plan_of(without, keep=0.5, metric=metric) for metric in ("kfac", "covariance"))
    assert any("no gradient products" in note for note in plan.notes)
    assert not any("no gradient products" in note for note in plain.notes + plan_of(keep=0.5).notes)
    assert plan.layers == plain.layers
    zero = with_gradients({name: 0.0 * rows for name, rows in SLOPES.items()})
    assert all(zero.output_metric(target.name) is None for target in TARGETS)


def test_products_are_merged_and_saved(tmp_path):
    halves = [with_gradients({k: v[part] for k, v in SLOPES.items()}) for part in (slice(0, 90), slice(90, None))]
    halves[0].merge(halves[1])
    halves[0].save(tmp_path / "sums.safetensors")
    again = Calibration.load(tmp_path / "sums.safetensors")
    for name, rows in SLOPES.items():
        np.testing.assert_allclose(again.gradient_products[name].full(), rows.T @ rows, rtol=1e-12, atol=1e-12)
        assert again.output_metric(name).rows == 300
    assert again.counts() == halves[0].counts()
    with pytest.raises(CompressionError, match="some rows only"):
        again.merge(calibrated(TARGETS, INPUTS, dict.fromkeys(SLOPES, 1.0)))
    with pytest.raises(CompressionError, match="not finite"):
        Calibration().add_gradient("a", 1.0, 3, np.full((2, 2), np.nan))


def test_wide_layers_take_the_diagonal_and_embeddings_their_counts():
    rng = np.random.default_rng(2)
    target = linear("table", weight(rng, 40, 16), kind="embedding")
    sums = InputSums.zeros(40, diagonal=True)
    sums.add_counts(rng.integers(0, 30, 500))
    calibration = Calibration({"table": sums}, {"table": "table"})
    g = correlated(rng, 500, 16)
    calibration.add_gradient("table", float((g**2).mean()), 500, (g**2).sum(0))
    plan = make_plan([target], CompressConfig(keep=0.5, min_weights=1, structures=("low-rank",)), calibration)
    (layer,) = fitted([target], plan, calibration)
    moved = np.sqrt(sums.products)[:, None] * (target.load() - layer.matrix())
    weights = (g**2).mean(0) + 0.1 * (g**2).mean()
    assert plan["table"].loss == pytest.approx(float((moved**2 @ weights).sum()) / 500 / 2, rel=1e-8)
    assert MAX_PRODUCT_OUTPUTS >= 4096  # widths of hidden layers keep all products
