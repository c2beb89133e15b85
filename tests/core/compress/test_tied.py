"""A weight that several modules share: fitted once, to what all of them do with it."""

import numpy as np
import pytest

from core.compress.planted import correlated, linear, weight
from mponet.compress import Calibration, CompressConfig, CompressionPlan, InputSums, Target, fitted, make_plan
from mponet.compress.uses import Uses
from mponet.errors import CompressionError
from mponet.operators.metric import Metric
from mponet.operators.mpo import to_matrix
from mponet.operators.output_metric import OutputMetric
from mponet.operators.shape import MPOShape
from mponet.operators.weighted_norm import WeightedNorm, nearest_norm

WORDS, SIZE = 60, 16


def pair(rng, bias=True):
    """Targets of an embedding and a head that share a table, and the table."""
    table = weight(rng, WORDS, SIZE, 0.3)
    head = linear("head", table.T, rng.standard_normal(WORDS) if bias else None, tied_to="embed", transposed=True)
    return [linear("embed", table, kind="embedding"), linear("body", weight(rng, SIZE, SIZE)), head], table


def calibration(rng, targets, gradients=True, products=True):
    """Sums over tokens, rows and gradients, and these themselves by name."""
    tokens = rng.integers(0, WORDS // 2, 300)  # the other half is never read
    rows = {"body": correlated(rng, 300, SIZE, 0.5), "head": correlated(rng, 300, SIZE, 1.0, mean=0.3)}
    known = Calibration()
    for target in targets:
        sums = InputSums.zeros(target.in_features, diagonal=target.kind == "embedding")
        known.inputs[target.name], known.sums[target.name] = target.name, sums
        if target.kind == "embedding":
            sums.add_counts(tokens)
        else:
            sums.add(rows[target.name])
        if gradients:
            slopes = correlated(rng, 300, target.out_features, 0.5)
            rows[f"{target.name}/g"] = slopes
            known.add_gradient(target.name, float((slopes**2).mean()), 300, slopes.T @ slopes if products else None)
    return known, tokens, rows


@pytest.mark.parametrize("keep", [0.7, 0.4])
def test_the_pair_is_planned_and_fitted_once(keep):
    rng = np.random.default_rng(0)
    targets, table = pair(rng)
    known, tokens, rows = calibration(rng, targets)
    config = CompressConfig(keep=keep, min_weights=1, structures=("low-rank",))
    plan = make_plan(targets, config, known)
    assert plan.keep <= keep
    assert [layer.name for layer in plan.matched] == ["embed", "body"]
    assert plan["head"].tied_to == "embed" and not plan["head"].replaced
    found = {layer.name: layer for layer in fitted(targets, plan, known)}
    assert set(found) <= {"embed", "body"} and "embed" in found
    embed, (head,) = found["embed"], found["embed"].tied
    other = embed.matrix()
    # errors of both modules' outputs, from the inputs themselves
    lost = np.linalg.norm((table - other)[tokens]) / np.linalg.norm(table[tokens])
    assert embed.output_error == pytest.approx(lost, rel=1e-9) == plan["embed"].output_error
    centred = rows["head"] - rows["head"].mean(0)
    lost = np.linalg.norm(centred @ (table - other).T) / np.linalg.norm(centred @ table.T)
    assert head.output_error == pytest.approx(lost, rel=1e-9) == plan["head"].output_error
    mean_loss = (rows["head"] @ table.T + targets[2].load_bias() - rows["head"] @ other.T - head.bias).mean(0)
    np.testing.assert_allclose(mean_loss, 0.0, atol=1e-12)
    assert head.transposed and embed.bias is None
    assert CompressionPlan.from_json(plan.to_json()) == plan
    rank = embed.mpo.shape.bond_dims[1]
    assert plan["head"].multiplications == rank * (WORDS + SIZE)


@pytest.mark.parametrize("products", [True, False])
def test_low_rank_errors_of_a_pair_are_those_of_its_operators(products):
    rng = np.random.default_rng(1)
    targets, table = pair(rng)
    known, *_ = calibration(rng, targets, products=products)
    uses = Uses.of([targets[0], targets[2]], known, kind="kfac", correct_bias=True)
    errors, losses = uses.low_rank_errors(uses.spectrum(0))
    assert errors[-1] == losses[-1] == 0.0
    for rank in (1, 5, 11):
        found = uses.fit(MPOShape.from_factors((WORDS, 1), (1, SIZE), rank))
        assert errors[rank] == pytest.approx(found.error**2, rel=1e-8)
        assert losses[rank] == pytest.approx(found.loss_error**2, rel=1e-8)
    # the predicted loss is that of the two quadratic forms, added up by hand
    other = to_matrix(found.mpo)
    total = 0.0
    for use, matrix in ((uses.uses[0], table - other), (uses.uses[1], table - other)):
        total += use.scale * use.loss.energy(matrix)
    assert total / uses.loss_energy == pytest.approx(found.loss_error**2, rel=1e-8)


@pytest.mark.parametrize("gradients", [True, False])
def test_a_pair_loses_less_than_if_fitted_to_one_of_its_uses(gradients):
    rng = np.random.default_rng(2)
    targets, _ = pair(rng)
    known, *_ = calibration(rng, targets, gradients=gradients)
    shape = MPOShape.from_factors((WORDS, 1), (1, SIZE), 6)
    both = Uses.of([targets[0], targets[2]], known, kind="kfac", correct_bias=True)
    joint = both.fit(shape).loss_error
    for use in both.uses:
        alone = Uses(both.matrix, (use,), use.loss).fit(shape)
        assert joint < both.errors(to_matrix(alone.mpo))[1]


def test_a_use_without_a_gradient_costs_nothing():
    rng = np.random.default_rng(2)
    targets, _ = pair(rng)
    known, *_ = calibration(rng, targets)
    alone = Uses.of(targets[:1], known, kind="kfac", correct_bias=True)
    del known.gradients["head"], known.gradient_products["head"]
    both = Uses.of([targets[0], targets[2]], known, kind="kfac", correct_bias=True)
    assert both.loss_energy == pytest.approx(alone.loss_energy, rel=1e-12) != 0.0
    shape = MPOShape.from_factors((WORDS, 1), (1, SIZE), 6)
    assert both.fit(shape).loss_error == pytest.approx(alone.fit(shape).loss_error, rel=1e-4)


def test_the_nearest_norm_is_exact_where_one_side_is_the_same():
    rng = np.random.default_rng(3)
    rows = [Metric.from_inputs(rng.standard_normal((30, 5))) for _ in range(2)]
    column = OutputMetric(np.diag(rng.random(4)) + 0.1, damping=0.0)
    norms = [WeightedNorm(metric, column) for metric in rows]
    one = nearest_norm(norms, [2.0, 3.0], 4)
    for _ in range(3):
        matrix = rng.standard_normal((5, 4))
        assert one.energy(matrix) == pytest.approx(2 * norms[0].energy(matrix) + 3 * norms[1].energy(matrix), rel=1e-9)


def test_a_pair_counts_once_in_every_budget():
    rng = np.random.default_rng(4)
    targets, _ = pair(rng)
    known, *_ = calibration(rng, targets)
    options = {"min_weights": 1, "structures": ("low-rank", "mpo")}
    plan = make_plan(targets, CompressConfig(keep=0.6, of="network", **options), known, other_weights=50)
    assert plan.dense_network_weights == 50 + WORDS * SIZE + SIZE * SIZE
    assert plan.network_weights <= 0.6 * plan.dense_network_weights
    plan = make_plan(targets, CompressConfig(multiplications=0.6, **options), known)
    before, after = plan.multiplications
    assert before == WORDS * SIZE + SIZE * SIZE
    assert after <= 0.6 * before
    edited = plan.replace("embed", input_dims=(WORDS, 1), output_dims=(1, SIZE), bond=3)
    assert edited["head"].multiplications == 3 * (WORDS + SIZE)
    assert edited.replace("embed", dense=True)["head"].multiplications == WORDS * SIZE


def test_two_linear_layers_may_share_a_weight():
    rng = np.random.default_rng(5)
    matrix = weight(rng, 24, 20, 0.3)
    targets = [linear("first", matrix, np.zeros(20)), linear("second", matrix, np.zeros(20), tied_to="first")]
    known = Calibration()
    rows = {name: correlated(rng, 200, 24, 0.7) for name in ("first", "second")}
    for name, values in rows.items():
        known.sums[name], known.inputs[name] = InputSums.zeros(24), name
        known.sums[name].add(values)
    config = CompressConfig(keep=0.6, min_weights=1, metric="covariance", bias_correction=False)
    plan = make_plan(targets, config, known)
    (found,) = fitted(targets, plan, known)
    for name, error in (("first", found.output_error), ("second", found.tied[0].output_error)):
        lost = np.linalg.norm(rows[name] @ (matrix - found.matrix())) / np.linalg.norm(rows[name] @ matrix)
        assert error == pytest.approx(lost, rel=1e-9) == plan[name].output_error


def test_a_plan_of_untied_modules_is_refused_where_they_are_tied():
    rng = np.random.default_rng(6)
    targets, table = pair(rng, bias=False)
    loose = [*targets[:2], linear("head", table.T)]
    plan = make_plan(loose, CompressConfig(keep=0.5, min_weights=1, structures=("low-rank",)))
    assert plan["head"].replaced
    with pytest.raises(CompressionError, match="whose weight is that of embed"):
        list(fitted(targets, plan))
    with pytest.raises(CompressionError, match="tied to no module"):
        Target(
            name="x", kind="linear", type_name="L", in_features=2, out_features=2, load=lambda: table, transposed=True
        )
