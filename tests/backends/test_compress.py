"""What every framework's end of compression promises, one suite for all of them.

A framework is one more file: ``contract/compress_<name>.py``, see `contract.compression`.
"""

from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest

from contract import compression
from contract.compression import BIASES, SHAPES, Network, planted, tokens, weights
from mponet.compress import CompressConfig, CompressionPlan, HealConfig, Override, make_plan
from mponet.errors import CheckpointError, CompressionError

pytestmark = pytest.mark.usefixtures("double_precision")
CONFIG = CompressConfig(keep=0.5, min_weights=1000, structures=("low-rank",))
#: All kinds of layers that some framework has.
KINDS = (
    *("linear", "einsum", "linear-general", "linear-general-first"),
    *("convolution-1d", "convolution-2d", "embedding"),
)
EXACT = {"float64": (1e-9, 1e-12), "float32": (1e-4, 1e-5)}


@pytest.fixture
def lab(backend_name):
    """The framework's part of the contract."""
    if find_spec(f"contract.compress_{backend_name}") is None:
        pytest.skip(f"the contract of compression is not written for {backend_name}")
    lab = import_module(f"contract.compress_{backend_name}")
    assert set(lab.CASES) <= set(KINDS)
    return lab


@pytest.fixture
def numbers():
    return weights()


@pytest.fixture
def model(lab, numbers):
    return lab.network(numbers, "float64")


@pytest.fixture
def data():
    return tokens()


def replaced(lab, small):
    """Layers of a model that are operators, by name."""
    return {name: lab.layer(small, name) for name in SHAPES if hasattr(lab.layer(small, name), "to_mpo")}


def same(first, second):
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


# ---------------------------------------------------------------- every kind of layer


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("name", KINDS)
def test_a_matrix_of_low_rank_is_found_and_replaced_exactly(lab, name, dtype):
    if name not in lab.CASES:
        pytest.skip(f"{lab.package.__name__} has no {name}")
    case = lab.CASES[name]
    matrix, bias = planted(case, 3)
    error, bound = EXACT[dtype]
    dense = case.make(matrix, bias, dtype)
    batches = [case.batch(np.random.default_rng(seed), dtype) for seed in range(4)]
    config = CompressConfig(error=error, min_weights=1, structures=("low-rank",))
    small, report = lab.package.compress(dense, config, batches)
    assert [layer.bonds for layer in report.plan.replaced] == [(3,)]
    expected, found = lab.run(dense, batches[0]), lab.run(small, batches[0])
    assert found.dtype == expected.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound * np.abs(expected).max())
    np.testing.assert_allclose(lab.layer(small, "layer").to_matrix().shape, matrix.shape)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_loses_what_the_plan_says(lab, name):
    if name not in lab.CASES:
        pytest.skip(f"{lab.package.__name__} has no {name}")
    case = lab.CASES[name]
    matrix, _ = planted(case, min(case.shape), seed=2)
    dense = case.make(matrix, None, "float64")
    batches = [case.batch(np.random.default_rng(seed), "float64") for seed in range(4)]
    for structures in (("low-rank",), ("mpo",), ("low-rank", "mpo", "window")):
        config = CompressConfig(keep=0.6, min_weights=1, structures=structures)
        if name.startswith("convolution") and structures == ("mpo",):
            config = CompressConfig(keep=0.6, min_weights=1, structures=("window",))
        small, report = lab.package.compress(dense, config, batches)
        expected, found = (np.stack([lab.run(one, batch) for batch in batches]) for one in (dense, small))
        error = np.linalg.norm(expected - found) / np.linalg.norm(expected)
        assert report.output_errors["layer"] == pytest.approx(error, rel=1e-6)
        assert report.plan["layer"].output_error == pytest.approx(error, rel=0.05)


# ---------------------------------------------------------------- a network


def test_the_original_is_untouched_and_the_copy_has_operators(lab, model, data):
    before = lab.numbers(model)
    lab.train(model)
    small, report = lab.package.compress(model, CONFIG, data)
    same(before, lab.numbers(model))
    assert small is not model
    assert lab.trains(model)
    assert lab.trains(small)
    assert {layer.name for layer in report.plan.replaced} == set(replaced(lab, small)) != set()
    assert report.plan.network_weights == sum(values.size for values in lab.numbers(small).values())
    assert report.plan.dense_network_weights == sum(values.size for values in before.values())
    assert report.deviation < 0.05


def test_the_model_is_what_its_operators_say(lab, model, numbers, data):
    small, report = lab.package.compress(model, CONFIG, data)
    found = dict(numbers)
    for name, layer in replaced(lab, small).items():
        found[name] = layer.to_matrix()
        if name in BIASES:
            found[f"{name}.bias"] = layer._to_numpy(layer.bias)
    np.testing.assert_allclose(lab.run(small, data[0]), Network(found)(data[0]), rtol=1e-10, atol=1e-10)
    assert not np.allclose(lab.run(small, data[0]), lab.run(model, data[0]), atol=1e-3)
    assert report.plan.replaced


@pytest.mark.parametrize("keep", [0.7, 0.45, 0.25])
def test_the_budget_is_met(lab, model, data, keep):
    _, report = lab.package.compress(model, CompressConfig(keep=keep, min_weights=1000), data)
    assert 0.99 * keep <= report.plan.keep <= keep  # one more bond is 0.4 % of these weights


def test_in_place_changes_the_model_itself(lab, model, data):
    small, _ = lab.package.compress(model, CONFIG, data, in_place=True)
    assert small is model
    assert replaced(lab, model)


# ---------------------------------------------------------------- calibration


def test_the_pass_gives_the_sums_of_numpy(lab, model, numbers, data):
    """So all frameworks give the same, to rounding."""
    found = lab.package.calibrate(model, CONFIG, data, loss=lab.cubic_loss)
    expected = Network(numbers).calibration(data)
    readers = {frozenset(n for n in found.inputs if found.inputs[n] == key) for key in found.inputs.values()}
    assert readers == {frozenset({"query", "key", "value"}), frozenset({"output"}), frozenset({"embed"})}
    assert set(found.sums) == set(found.inputs.values())
    for name in SHAPES:
        mine, theirs = found.of(name), expected.of(name)
        assert mine.count == theirs.count
        for part in ("products", "total"):
            scale = np.abs(getattr(theirs, part)).max()
            np.testing.assert_allclose(getattr(mine, part), getattr(theirs, part), rtol=0, atol=1e-10 * scale)
        assert found.gradients[name] == pytest.approx(expected.gradients[name], rel=1e-10)
        assert found.gradient_rows[name] == expected.gradient_rows[name]
        mine, theirs = (sums.gradient_products[name].full() for sums in (found, expected))
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max())


@pytest.mark.parametrize("keep", [0.7, 0.3])
def test_the_plan_is_that_of_the_core(lab, model, numbers, data, keep):
    """Same data, same plan in every framework: all equal that of numpy's own sums."""
    config = CompressConfig(keep=keep, min_weights=1000)
    found = lab.package.plan(model, config, data, loss=lab.cubic_loss)
    network = Network(numbers)
    biases = sum(values.size for name, values in numbers.items() if name.endswith(".bias"))
    expected = make_plan(network.targets(), config, network.calibration(data), other_weights=biases)
    assert {layer.name for layer in found} >= set(SHAPES)
    for layer in expected:
        assert found[layer.name].layout == layer.layout
        assert found[layer.name].bonds == layer.bonds
        assert found[layer.name].output_error == pytest.approx(layer.output_error, rel=1e-6)
    assert found.network_weights == expected.network_weights


def test_gradient_products_are_gathered_for_kfac_only(lab, model, data):
    config = CompressConfig(keep=0.5, min_weights=1000, metric="covariance")
    sums = lab.package.calibrate(model, config, data, loss=lab.cubic_loss)
    assert sums.gradients
    assert not sums.gradient_products
    config = CompressConfig(keep=0.5, min_weights=1000, metric="covariance", allocation="output")
    assert not lab.package.calibrate(model, config, data).gradients


def test_sums_gathered_once_serve_several_budgets(lab, model, data):
    sums = lab.package.calibrate(model, CONFIG, data, loss=lab.cubic_loss)
    for keep in (0.6, 0.3):
        config = CompressConfig(keep=keep, min_weights=1000, structures=("low-rank",))
        assert lab.package.plan(model, config, sums) == lab.package.plan(model, config, data, loss=lab.cubic_loss)


def test_measured_losses_correct_what_the_plan_predicts(lab, model, data):
    """The oracle: outputs of models in which one layer is compressed and the others are left."""
    config = CompressConfig(keep=0.3, min_weights=1000, structures=("low-rank",))
    first, before = lab.package.plan(model, config, data), lab.numbers(model)
    plan = lab.package.plan(model, config, data, correct=data)
    same(before, lab.numbers(model))
    (note,) = (note for note in plan.notes if "corrected by measured losses" in note)
    said = dict(entry.rsplit(" ", 1) for entry in note.partition(": ")[2].split(", "))
    ratios = {}
    for layer in first.replaced:
        alone = first
        for other in first.replaced:
            alone = alone if other is layer else alone.replace(other.name, dense=True)
        small, _ = lab.package.compress(model, alone, data)
        moved = sum(np.sum((lab.run(small, batch) - lab.run(model, batch)) ** 2) / 2 for batch in data)
        ratios[layer.name] = moved / sum(map(len, data)) / layer.loss
    mean = np.exp(np.mean(np.log(list(ratios.values()))))
    assert said.keys() == ratios.keys() and len(ratios) > 2
    for name, ratio in ratios.items():
        assert float(said[name]) == pytest.approx(np.clip(ratio / mean, 1 / 8, 8), rel=0.06)
    assert abs(plan.keep - 0.3) < 0.01
    small, report = lab.package.compress(model, config, data, correct=data)
    assert report.plan == plan and replaced(lab, small)


@pytest.mark.parametrize(
    ("options", "batches", "text"),
    [
        ({"allocation": "output"}, 1, "allocation is 'output'"),
        ({}, 0, "correct holds no batch"),
    ],
)
def test_plans_that_cannot_be_corrected_are_refused(lab, model, data, options, batches, text):
    config = CompressConfig(keep=0.3, min_weights=1000, structures=("low-rank",), **options)
    with pytest.raises(CompressionError, match=text):
        lab.package.plan(model, config, data, correct=data[:batches])
    plan = lab.package.plan(model, CONFIG, data)
    with pytest.raises(CompressionError, match="correct is set and a plan is given"):
        lab.package.compress(model, plan, data, correct=data)


def test_layers_that_make_other_rows_of_an_array_have_sums_of_their_own(lab):
    model, batch = lab.branches()
    sums = lab.package.calibrate(model, CompressConfig(keep=0.5, min_weights=1), [batch])
    assert sums.inputs["wide"] != sums.inputs["narrow"]
    assert len(sums.of("wide").total) != len(sums.of("narrow").total)


def test_the_pass_leaves_mode_and_state_as_they_were(lab, model, data):
    lab.train(model)
    before = lab.numbers(model)
    first = lab.package.calibrate(model, CONFIG, data)
    assert lab.trains(model)
    same(before, lab.numbers(model))
    second = lab.package.calibrate(model, CONFIG, data)  # a dropout that was left on would differ
    np.testing.assert_array_equal(first.of("output").products, second.of("output").products)


def test_batches_have_every_form(lab):
    array = np.random.default_rng(0).normal(size=(40, 16))
    for model, batch in lab.batches(array).values():
        sums = lab.package.calibrate(model, CompressConfig(keep=0.5, min_weights=1), iter([batch]))
        (found,) = sums.sums.values()
        np.testing.assert_allclose(found.products, array.T @ array, rtol=1e-5)


# ---------------------------------------------------------------- what is left alone


def test_layers_that_cannot_be_replaced_are_left_with_the_reason(lab):
    model, batch, reasons = lab.left_alone()
    made = lab.package.plan(model, CompressConfig(keep=0.6, min_weights=1), [batch])
    assert reasons
    for name, text in reasons.items():
        assert text in made[name].reason
    small, _ = lab.package.compress(model, CompressConfig(keep=0.6, min_weights=1), [batch])
    assert np.isfinite(lab.run(small, batch)).all()


def test_a_shared_weight_becomes_one_operator(lab, tmp_path):
    for model, batch, owner, other in lab.tied().values():
        small, report = lab.package.compress(model, CompressConfig(keep=0.5, min_weights=1), [batch])
        assert report.plan[owner].replaced
        assert report.plan[other].tied_to == owner
        assert {owner, other} <= set(report.output_errors)
        assert report.plan.network_weights == sum(values.size for values in lab.numbers(small).values())
        assert np.isfinite(lab.run(small, batch)).all()
        lab.package.save_compressed(small, report.plan, tmp_path)
        again = lab.package.load_compressed(model, tmp_path)
        np.testing.assert_array_equal(lab.run(again, batch), lab.run(small, batch))
        assert len(lab.numbers(again)) == len(lab.numbers(small))


def test_a_layer_used_twice_is_replaced_in_both_places(lab):
    model, batch = lab.shared()
    small, report = lab.package.compress(model, CompressConfig(keep=0.5, min_weights=1), [batch])
    assert len(report.plan.replaced) == 1
    assert len(lab.numbers(small)) < 2 * len(lab.numbers(model)) + 2
    assert report.plan.network_weights == sum(values.size for values in lab.numbers(small).values())


# ---------------------------------------------------------------- plans, mistakes


def test_plans_are_carried_out_after_editing_and_saving(lab, model, data, tmp_path):
    made = lab.package.plan(model, CONFIG, data)
    made.replace("query", bond=3).save(tmp_path / "plan.json")
    small, report = lab.package.compress(model, CompressionPlan.load(tmp_path / "plan.json"), data)
    assert lab.layer(small, "query").shape.bond_dims == (1, 3, 1)
    assert set(report.output_errors) >= {layer.name for layer in report.plan.replaced}


def test_given_factors_and_bonds(lab, model, data):
    overrides = {"query": Override(input_dims=(8, 12), output_dims=(12, 8), bond=6)}
    config = CompressConfig(keep=0.6, min_weights=1000, overrides=overrides)
    small, _ = lab.package.compress(model, config, data)
    assert str(lab.layer(small, "query").shape) == "M^{12,8}_{8,12}(6)"


@pytest.mark.parametrize(
    ("config", "batches", "text"),
    [
        (CONFIG, [], "holds no batch"),
        (CompressConfig(keep=0.5, include=["quary"]), None, "query"),
        (CompressConfig(keep=0.0001, min_weights=1000), None, "budget"),
        (CompressConfig(keep=0.5, min_weights=10**9), None, "no layer may be replaced"),
        (CompressConfig(keep=0.5, overrides={"nothing": Override(keep=0.1)}), None, "nothing"),
    ],
)
def test_mistakes_leave_the_model_as_it_was(lab, model, data, config, batches, text):
    lab.train(model)
    before = lab.numbers(model)
    with pytest.raises(CompressionError, match=text):
        lab.package.compress(model, config, data if batches is None else batches, in_place=True)
    same(before, lab.numbers(model))
    assert lab.trains(model)


def test_models_of_other_frameworks_are_refused_in_one_line(lab, model, data, tmp_path):
    small, report = lab.package.compress(model, CONFIG, data)
    lab.package.save_compressed(small, report.plan, tmp_path / "small")

    class Stranger:
        """No network of any framework."""

    other = Stranger()
    doors = {
        "compress": lambda: lab.package.compress(other, CONFIG, data),
        "plan": lambda: lab.package.plan(other, CONFIG, data),
        "calibrate": lambda: lab.package.calibrate(other, CONFIG, data),
        "heal": lambda: lab.package.heal(other, model, data, HealConfig(steps=1)),
        "heal from": lambda: lab.package.heal(small, other, data, HealConfig(steps=1)),
        "load_compressed": lambda: lab.package.load_compressed(other, tmp_path / "small"),
    }
    for name, door in doors.items():
        with pytest.raises(CompressionError, match=r"Stranger; expected a .*; take the functions of"):
            door()
            pytest.fail(name)


def test_numbers_that_are_not_finite_are_refused(lab, numbers, data):
    numbers["query"][0, 0] = np.nan
    model = lab.network(numbers, "float64")
    before = lab.numbers(model)
    with pytest.raises(CompressionError, match="not finite"):
        lab.package.compress(model, CONFIG, data, in_place=True)
    same(before, lab.numbers(model))


# ---------------------------------------------------------------- files


def test_compressed_models_are_saved_and_loaded(lab, model, data, tmp_path):
    small, report = lab.package.compress(model, CONFIG, data)
    lab.package.save_compressed(small, report.plan, tmp_path / "small")
    again = lab.package.load_compressed(lab.network(weights(9), "float64"), tmp_path / "small")
    np.testing.assert_array_equal(lab.run(again, data[0]), lab.run(small, data[0]))
    same(lab.numbers(again), lab.numbers(small))


def test_files_that_do_not_fit_are_refused(lab, model, data, tmp_path):
    small, report = lab.package.compress(model, CONFIG, data)
    folder = tmp_path / "small"
    lab.package.save_compressed(small, report.plan, folder)
    with pytest.raises(CompressionError, match="network and the plan of the same compression"):
        lab.package.save_compressed(model, report.plan, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(CompressionError, match=r"embed|query|key|value|output"):
        lab.package.load_compressed(lab.CASES[next(iter(lab.CASES))].make(*stranger(lab), "float64"), folder)
    with pytest.raises(CheckpointError):
        lab.package.load_compressed(lab.network(weights(), "float64"), tmp_path / "nothing")
    damage(folder)
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        lab.package.load_compressed(lab.network(weights(), "float64"), folder)


def stranger(lab):
    case = next(iter(lab.CASES.values()))
    return planted(case, 2)


def damage(folder):
    """Cut the file of the weights."""
    (path,) = (path for path in folder.iterdir() if path.suffix != ".json")
    path.write_bytes(path.read_bytes()[:-100])


def test_the_contract_has_a_file_for_the_framework(lab):
    wanted = [
        line.split("``")[1].split("(")[0].split(":")[0]
        for line in compression.__doc__.splitlines()
        if line[:4] == "- ``"
    ]
    assert wanted
    assert [name for name in wanted if not hasattr(lab, name)] == []
