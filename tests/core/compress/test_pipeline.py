"""Plans and fits of a made-up network.

Budgets met, predictions true, biases corrected, files faithful.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from core.compress.planted import calibrated, correlated, linear, network
from mponet.compress import CompressConfig, CompressionPlan, LayerPlan, Override, fitted, make_plan
from mponet.compress.after_healing import LEAST_RANK, offered_after_healing
from mponet.compress.target import Target
from mponet.errors import CheckpointError, CompressionError, ShapeError

TARGETS, INPUTS, GRADIENTS = network()
CALIBRATION = calibrated(TARGETS, INPUTS, GRADIENTS)
DENSE = sum(target.weights for target in TARGETS)


def plan_of(targets=TARGETS, calibration=CALIBRATION, other_weights=500, **options):
    options = {"min_weights": 100, "structures": ("low-rank",), **options}
    return make_plan(targets, CompressConfig(**options), calibration, other_weights=other_weights)


def output_error(name, layer):
    """The oracle: outputs with bias on the calibration inputs.

    Their constant part is left out of the norm.
    """
    target = next(t for t in TARGETS if t.name == name)
    x, weight, bias = INPUTS[name], target.load(), target.load_bias()
    before = x @ weight + bias
    after = x @ layer.matrix() + layer.bias
    return np.linalg.norm(before - after) / np.linalg.norm(before - before.mean(0))


@pytest.mark.parametrize("keep", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("allocation", ["loss", "output", "normalized"])
def test_the_budget_is_met_within_half_a_percent(keep, allocation):
    targets, inputs, gradients = network(sizes=((128, 128), (128, 256), (256, 128), (96, 160)) * 3)
    targets = [replace(target, name=f"{k}") for k, target in enumerate(targets)]
    inputs = {target.name: inputs[f"blocks.{k}.fc"] for k, target in enumerate(targets)}
    gradients = {target.name: 1.0 + k for k, target in enumerate(targets)}
    calibration = calibrated(targets, inputs, gradients)
    plan = plan_of(targets, calibration, keep=keep, allocation=allocation)
    assert keep - 0.005 <= plan.keep <= keep


def test_what_is_left_of_a_budget_is_less_than_any_step_of_a_layer_costs():
    plan = plan_of(keep=0.5, structures=("low-rank", "mpo"))
    assert 0 <= 0.5 * DENSE - sum(layer.weights for layer in plan) < min(sum(t.load().shape) for t in TARGETS)
    assert plan.keep == pytest.approx(sum(layer.weights for layer in plan) / DENSE)
    assert plan.network_weights == sum(layer.weights for layer in plan) + 500


@pytest.mark.parametrize(
    ("options", "spent"),
    [
        ({"keep": 0.5, "of": "network"}, lambda plan: plan.network_keep / 0.5),
        ({"multiplications": 0.5}, lambda plan: plan.multiplications[1] / plan.multiplications[0] / 0.5),
        ({"bytes": 20000}, lambda plan: 4 * sum(layer.weights for layer in plan) / 20000),
        ({"bytes": 20000, "of": "network"}, lambda plan: 4 * plan.network_weights / 20000),
    ],
)
def test_other_budgets(options, spent):
    assert 1.0 - 144 / 5000 < spent(plan_of(**options)) <= 1.0  # a step of the largest layer is 144 weights


@pytest.mark.parametrize("structures", [("low-rank",), ("balanced",), ("mpo",), ("low-rank", "mpo")])
def test_predicted_errors_are_those_that_outputs_have(structures):
    plan = plan_of(keep=0.4, structures=structures)
    assert plan.replaced
    for layer in fitted(TARGETS, plan, CALIBRATION):
        assert layer.output_error == pytest.approx(output_error(layer.name, layer), rel=1e-6)
        assert layer.output_error == pytest.approx(plan[layer.name].output_error, rel=0.05)


def test_the_loss_weighs_layers_and_beats_uniform_in_its_own_terms():
    joint, same = plan_of(keep=0.4), plan_of(keep=0.4, allocation="uniform")
    assert joint.loss < 0.8 * same.loss
    assert joint["blocks.3.fc"].keep > same["blocks.3.fc"].keep  # its gradient is a thousand times the first's
    assert max(layer.keep for layer in same) <= 0.4


def test_an_error_budget_takes_the_fewest_weights_within_it():
    plan = plan_of(error=0.2, structures=("low-rank",))
    for layer in plan.replaced:
        assert layer.output_error <= 0.2
        smaller = plan_of(keep=1.0).replace(
            layer.name,
            input_dims=layer.layout.input_dims,
            output_dims=layer.layout.output_dims,
            bond=layer.bonds[0] - 1,
        )
        (worse,) = [f for f in fitted(TARGETS, smaller, CALIBRATION) if f.name == layer.name]
        assert worse.output_error > 0.2


def test_the_bias_takes_up_the_mean_error():
    plan = plan_of(keep=0.3)
    for layer in fitted(TARGETS, plan, CALIBRATION):
        target = next(t for t in TARGETS if t.name == layer.name)
        x = INPUTS[layer.name]
        change = x @ (layer.matrix() - target.load()) + layer.bias - target.load_bias()
        np.testing.assert_allclose(change.mean(0), 0.0, atol=1e-9)
    untouched = fitted(TARGETS, plan_of(keep=0.3, bias_correction=False), CALIBRATION)
    assert all(np.array_equal(f.bias, next(t for t in TARGETS if t.name == f.name).load_bias()) for f in untouched)


def test_floors_and_ceilings():
    assert min(layer.keep for layer in plan_of(keep=0.5, floor=0.3, structures=("low-rank",))) >= 0.3
    capped = plan_of(keep=0.6, ceiling=0.7, structures=("low-rank",))
    assert all(layer.keep <= 0.7 for layer in capped.replaced)


def test_overrides():
    overrides = {
        r"blocks\.0.*": Override(keep=0.2),
        r"blocks\.1.*": Override(error=0.1),
        r"blocks\.2.*": Override(input_dims=(8, 12), output_dims=(6, 8), bond=4),
    }
    plan = plan_of(keep=0.7, overrides=overrides)
    assert plan["blocks.0.fc"].keep <= 0.2
    assert plan["blocks.1.fc"].output_error <= 0.1
    third = plan["blocks.2.fc"]
    assert (third.layout.input_dims, third.layout.output_dims, third.bonds) == ((8, 12), (6, 8), (4,))


def test_no_layer_gets_more_weights_than_it_had():
    for structures in (("low-rank",), ("balanced",), ("mpo",)):
        assert all(layer.weights < layer.dense_weights for layer in plan_of(keep=0.9, structures=structures).replaced)


def test_keeping_everything_leaves_everything_dense():
    plan = plan_of(keep=1.0)
    assert not plan.replaced
    assert {layer.reason for layer in plan} == {"dense is best at this budget"}
    assert list(fitted(TARGETS, plan, CALIBRATION)) == []


def test_without_data_the_plan_says_so():
    plan = plan_of(calibration=None, keep=0.5)
    assert any("no calibration data" in note for note in plan.notes)
    assert plan.loss is None
    for layer in fitted(TARGETS, plan):
        target = next(t for t in TARGETS if t.name == layer.name)
        u, s, vt = np.linalg.svd(target.load(), full_matrices=False)
        rank = layer.plan.bonds[0]
        if layer.plan.layout.is_low_rank:
            np.testing.assert_allclose(layer.matrix(), (u[:, :rank] * s[:rank]) @ vt[:rank], atol=1e-8)


def test_a_layer_that_the_data_do_not_reach_is_left_alone():
    partial = calibrated(TARGETS[:2], INPUTS, GRADIENTS)
    plan = plan_of(calibration=partial, keep=0.5)
    assert plan["blocks.3.fc"].reason == "not reached by the calibration data"


def test_nothing_to_replace_and_impossible_budgets_are_errors():
    with pytest.raises(CompressionError, match=r"no layer may be replaced \(.*min_weights"):
        plan_of(keep=0.5, min_weights=10**9)
    with pytest.raises(CompressionError, match="smallest options together cost"):
        plan_of(keep=0.001)


def test_plans_print_within_80_columns_and_name_every_layer():
    text = str(plan_of(keep=0.5, exclude=["blocks.1.fc"]))
    assert max(map(len, text.splitlines())) <= 80
    assert "in exclude: blocks.1.fc" in text
    assert all(name in text for name in ("blocks.0.fc", "keep 0.", "rank "))


def test_plans_are_saved_and_loaded(tmp_path):
    plan = plan_of(keep=0.5, exclude=["blocks.1.fc"])
    plan.save(tmp_path / "plan.json")
    assert CompressionPlan.load(tmp_path / "plan.json") == plan
    with pytest.raises(CheckpointError, match="does not exist"):
        CompressionPlan.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("layers"),
        lambda value: value.update(format="other"),
        lambda value: value.update(rows="many"),
        lambda value: value.update(extra=1),
        lambda value: value["layers"][0].pop("name"),
        lambda value: value["layers"][0].update(name=3),
        lambda value: value["layers"][0].update(bonds=[1.5]),
        lambda value: value["layers"][0].update(unknown=3),
        lambda value: value["layers"][0]["layout"].update(unknown=3),
        lambda value: value["layers"][0].update(output_error="small"),
        lambda value: value["layers"][0].update(dense_weights=10**400),
        lambda value: value["layers"].append(value["layers"][0]),
        lambda value: value.update(layers=7),
    ],
)
def test_damaged_plans_are_refused(change):
    value = json.loads(plan_of(keep=0.5).to_json())
    change(value)
    with pytest.raises((CompressionError, ShapeError)):
        CompressionPlan.from_json(json.dumps(value))


def test_text_that_is_no_json_is_refused():
    with pytest.raises(CompressionError, match="damaged"):
        CompressionPlan.from_json("{")


def test_plans_are_edited():
    plan = plan_of(keep=0.5, structures=("low-rank",))
    name = plan.replaced[0].name
    smaller = plan.replace(name, bond=3)
    assert smaller[name].bonds == (3,)
    assert smaller[name].output_error is None
    assert smaller.loss is None
    assert smaller.keep < plan.keep
    back = smaller.replace(name, dense=True)
    assert back[name].reason == "left dense by hand"
    chain = plan.replace(name, input_dims=(6, 8), output_dims=(8, plan[name].shape.out_features // 8), bond=5)
    (found,) = [f for f in fitted(TARGETS, chain, CALIBRATION) if f.name == name]
    assert found.mpo.shape == chain[name].shape
    for changes, text in (
        ({}, "changes are none"),
        ({"rank": 3}, "changes are rank"),
        ({"input_dims": (6, 8)}, "only input_dims"),
        ({"input_dims": (6, 7), "output_dims": (6, 8), "bond": 2}, "multiply to"),
    ):
        with pytest.raises(CompressionError, match=text):
            plan.replace(name, **changes)
    with pytest.raises(CompressionError, match="no layer 'other'"):
        plan.replace("other", bond=3)


def test_a_plan_of_another_network_is_refused_before_anything_is_fitted():
    plan = plan_of(keep=0.5)
    others = [linear(target.name, np.zeros((10, 10))) for target in TARGETS]
    with pytest.raises(CompressionError, match="of another size"):
        next(fitted(others, plan, CALIBRATION))


def test_windows_of_convolutions_are_fitted_in_the_order_of_their_axes():
    rng = np.random.default_rng(3)
    kernel = rng.standard_normal((3, 3, 8, 16))
    target = linear("conv", kernel.reshape(72, 16), kind="convolution", input_dims=(3, 3, 8))
    inputs = correlated(rng, 800, 72, 0.5)
    calibration = calibrated([target], {"conv": inputs})
    for structures in (("window",), ("low-rank",)):
        plan = make_plan([target], CompressConfig(keep=0.5, min_weights=1, structures=structures), calibration)
        (layer,) = fitted([target], plan, calibration)
        error = np.linalg.norm(inputs @ (layer.matrix() - target.load())) / np.linalg.norm(inputs @ target.load())
        assert layer.output_error == pytest.approx(error, rel=1e-9)
        assert plan["conv"].output_error == pytest.approx(error, rel=0.05)


def test_rows_of_a_layer_plan_are_consistent():
    with pytest.raises(CompressionError, match="expected a layout"):
        LayerPlan(name="a", kind="linear", type_name="Linear", dense_weights=4, dense_multiplications=4)


def test_bonds_that_are_asked_for_save_weights_or_are_refused():
    with pytest.raises(CompressionError, match="expected fewer"):
        plan_of(keep=0.9, overrides={r".*0\.fc": Override(input_dims=(6, 8), output_dims=(6, 8), bond=36)})


# ---------------------------------------------------------------- healing


def test_where_healing_follows_layers_of_small_rank_become_balanced_operators():
    targets, inputs, gradients = network(sizes=((64, 64), (32, 32)))
    calibration = calibrated(targets, inputs, gradients)
    options = {"keep": 0.6, "structures": ("low-rank", "mpo"), "allocation": "uniform"}
    plans = [plan_of(targets, calibration, heal=heal, **options) for heal in (False, True)]
    ranks = [0.6 * target.in_features / 2 for target in targets]
    assert ranks[0] > LEAST_RANK > ranks[1]
    wide, narrow = (plan.replaced[-1].layout for plan in plans)
    assert wide.structure != "balanced" and narrow.structure == "balanced"
    assert plans[0].replaced[0].layout == plans[1].replaced[0].layout


def test_where_healing_follows_convolutions_of_small_rank_are_split_at_their_window():
    sizes = {"kind": "convolution", "type_name": "Conv2d", "in_features": 9 * 64, "out_features": 64}
    plain, pointwise = (
        Target(name="conv", input_dims=dims, load=lambda: None, **sizes) for dims in ((3, 3, 64), (1, 1, 576))
    )
    families = ("low-rank", "mpo", "window")
    assert offered_after_healing(plain, families, 0.9) == families
    assert offered_after_healing(plain, families, 0.05) == ("mpo", "window")
    assert offered_after_healing(plain, ("low-rank", "mpo"), 0.05) == ("low-rank", "mpo")
    assert offered_after_healing(pointwise, families, 0.05) == ("balanced",)


def test_what_the_user_names_is_offered_whether_healing_follows_or_not():
    for target in TARGETS:
        for structures in (("low-rank",), ("window", "low-rank")):
            assert offered_after_healing(target, structures, 0.01) == structures
        config = CompressConfig(keep=0.01, heal=True)
        assert config.offered(target, Override(structures=("mpo",))) == ("mpo",)
        assert config.offered(target, Override(keep=0.99)) == config.structures
    assert CompressConfig(error=0.1, heal=True).offered(TARGETS[0], Override()) == CompressConfig(error=0.1).structures
