"""The cross-check: it passes on the frameworks that MPONET_BACKENDS names, and it would not pass on a wrong one."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest

import mponet
from mponet.backend import TRAINABLE, normalize
from mponet.crosscheck import Comparison, crosscheck, crosschecks, process
from mponet.crosscheck import case as cases
from mponet.crosscheck.bounds import bounds
from mponet.crosscheck.check import participants
from mponet.crosscheck.compare import compare
from mponet.crosscheck.margin import margins, widest
from mponet.crosscheck.worker import answers, cross_entropy
from mponet.errors import BackendError, InputError
from mponet.models import TABLE, build
from mponet.models.layers import Conv2D, Dense, Flatten, MaxPool, Model, ReLU
from mponet.shape import MPOShape

#: What the networks of the paper lack: SAME at stride 2, an even kernel, pooling windows that overlap and do not come
#: out even, a convolution without bias, an image with two channels, operators of three sites.
ODD = Model(
    "odd",
    "mpo",
    None,
    (11, 9, 2),
    (
        Conv2D("conv1", 5, (3, 3), stride=2),
        ReLU(),
        Conv2D("conv2", 4, (2, 4), bias=False),
        MaxPool(3, 2),
        Flatten(),
        Dense("fc1", 6, mpo=MPOShape.of((2, 2, 4), (1, 3, 2), 3)),
        ReLU(),
        Dense("fc2", 3),
    ),
    "a test",
)
MODELS = (ODD, *(build(name, variant) for name in TABLE for variant in ("dense", "mpo")))
QUANTITIES = ("forward", "loss", "gradients", "sgd", "momentum", "nesterov")

NAMED = [normalize(name) for name in os.environ.get("MPONET_BACKENDS", "").split(",") if name.strip()]
FRAMEWORKS = [name for name in NAMED if name in TRAINABLE]
with_frameworks = pytest.mark.skipif(not FRAMEWORKS, reason="MPONET_BACKENDS names no framework")


# ---------------------------------------------------------------- the frameworks agree


@pytest.fixture(scope="module", params=cases.DTYPES)
def reports(request):
    return crosschecks(MODELS, backends=FRAMEWORKS, dtype=request.param, batch=8)


@with_frameworks
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("index", range(len(MODELS)), ids=[f"{model.name}-{model.variant}" for model in MODELS])
def test_the_frameworks_agree(reports, index):
    report = reports[index]
    assert (report.model, report.variant) == (MODELS[index].name, MODELS[index].variant)
    assert report.ok, [found for found in report.comparisons if not found.ok]


@with_frameworks
@pytest.mark.timeout(1200)
def test_every_pair_is_compared_and_the_reference_on_logits_and_loss(reports):
    pairs = set(combinations(FRAMEWORKS, 2))
    reference = {(name, "numpy") for name in FRAMEWORKS}
    for report in reports:
        for quantity in QUANTITIES:
            found = {(c.first, c.second) for c in report.comparisons if c.quantity == quantity}
            assert found == pairs | (reference if quantity in ("forward", "loss") else set())
        assert set(report.backends) == {*FRAMEWORKS, "numpy"}
        assert all(facts["versions"] and facts["device"] for facts in report.backends.values())
        assert str(report).count("\n") == len(report.comparisons) + 1
    json.dumps([report.as_dict() for report in reports], allow_nan=False)


@with_frameworks
@pytest.mark.timeout(600)
def test_the_command_does_it_from_any_folder(tmp_path):
    (tmp_path / "random.py").write_text("raise SystemExit('the folder of the user was imported')")
    path = os.pathsep.join(entry for entry in sys.path if entry)
    options = f"--variant mpo --bond 2 --batch 2 --backends {FRAMEWORKS[0]} --json"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mponet", "crosscheck", "fc2", *options.split()],
        capture_output=True,
        cwd=tmp_path,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"]
    assert [(c["quantity"], c["second"]) for c in found["reports"][0]["comparisons"]] == [
        ("forward", "numpy"),
        ("loss", "numpy"),
    ]


# ---------------------------------------------------------------- a wrong one is found


def wrong_trainer(change_recipe=lambda recipe: recipe, change_rate=lambda rates: rates[-1]):
    """A backend whose training differs: another recipe, or another rate than the one that is asked for."""

    def trainer(backend, native, recipe):
        inner, rates = backend.trainer(native, change_recipe(recipe)), []

        def step(images, labels, rate):
            rates.append(rate)
            return inner.step(images, labels, change_rate(rates))

        return SimpleNamespace(step=step, state=inner.state, restore=inner.restore)

    return {"trainer": trainer}


def wrong_gradients(backend, native, images, labels):
    loss, slopes = backend.gradients(native, images, labels)
    return loss, slopes | {"fc1/kernel": slopes["fc1/kernel"] * 1.001}


def columns_first(backend, native, images):
    return backend.predict(native, images.transpose(0, 2, 1, 3))


def summed_loss(backend, native, images, labels):
    loss, slopes = backend.gradients(native, images, labels)
    return loss * len(labels), slopes


MISTAKES = {
    "another order of the pixels": ({"predict": columns_first}, {"forward"}),
    "the loss summed, not averaged": ({"gradients": summed_loss}, {"loss"}),
    "one gradient off by a thousandth": ({"gradients": wrong_gradients}, {"gradients"}),
    "no weight decay": (wrong_trainer(lambda r: replace(r, weight_decay=0.0)), {"sgd", "momentum", "nesterov"}),
    "momentum 0.89": (wrong_trainer(lambda r: replace(r, momentum=r.momentum and 0.89)), {"momentum", "nesterov"}),
    "Nesterov forgotten": (wrong_trainer(lambda r: replace(r, nesterov=False)), {"nesterov"}),
    "the new learning rate a step late": (
        wrong_trainer(change_rate=lambda rates: rates[max(len(rates) - 2, 0)]),
        {"sgd", "momentum", "nesterov"},
    ),
}


class Wrong:
    """A backend with some functions replaced."""

    def __init__(self, backend, changes):
        self.backend, self.changes = backend, changes

    def __getattr__(self, name):
        if name not in self.changes:
            return getattr(self.backend, name)
        return lambda *arguments: self.changes[name](self.backend, *arguments)


@pytest.fixture(scope="module")
def right():
    case = cases.make(build("fc2", "dense"), "float32", 0, 8)
    backend = mponet.load(FRAMEWORKS[0])
    return SimpleNamespace(case=case, backend=backend, answers=answers(backend, case))


@with_frameworks
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_breaks_its_bound_even_in_float32(mistake, right):
    changes, expected = MISTAKES[mistake]
    wrong = answers(Wrong(right.backend, changes), right.case)
    allowed = bounds(right.case.model, "float32", 8)
    found = compare({"right": by_quantity(right.answers), "wrong": by_quantity(wrong)}, allowed)
    assert {c.quantity for c in found if not c.ok} == expected


def by_quantity(flat):
    found = {}
    for key, value in flat.items():
        quantity, name = key.split(":")
        found.setdefault(quantity, {})[name] = value
    return found


# ---------------------------------------------------------------- comparing


def gradients(**tensors):
    return {"gradients": {name: np.array(value, dtype=np.float64) for name, value in tensors.items()}}


def compared(first, second, bound=1e-10):
    (found,) = compare({"torch": first, "jax": second}, {"gradients": bound})
    return found


def test_the_error_is_the_largest_difference_over_the_largest_value():
    found = compared(gradients(a=[1.0, -4.0], b=[1.0]), gradients(a=[1.0, -5.0], b=[1.1]))
    assert found == Comparison("gradients", "torch", "jax", 0.2, "a", 1e-10)
    assert not found.ok
    assert compared(gradients(a=[4.0]), gradients(a=[5.0]), bound=0.2).ok


def test_what_is_zero_but_for_rounding_has_no_relative_error():
    found = compared(gradients(large=[1.0], dead=[0.0]), gradients(large=[1.0], dead=[1e-17]))
    assert found.error == pytest.approx(1e-13)
    assert compared(gradients(dead=[0.0]), gradients(dead=[0.0])).error == 0.0


def test_small_tensors_are_not_hidden_by_large_ones():
    found = compared(gradients(large=[1.0], small=[1e-3]), gradients(large=[1.0], small=[2e-3]))
    assert (found.error, found.worst) == (0.5, "small")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_no_pass(value):
    with pytest.raises(BackendError, match="a of backend 'jax' is not finite"):
        compared(gradients(a=[1.0]), gradients(a=[value]))


def test_other_names_or_shapes_are_refused():
    with pytest.raises(BackendError, match=r"\['b'\]"):
        compared(gradients(a=[1.0]), gradients(a=[1.0], b=[1.0]))
    with pytest.raises(BackendError, match=r"\['a'\]"):
        compared(gradients(a=[1.0]), gradients(a=[[1.0]]))


def test_a_quantity_that_only_one_has_is_not_compared():
    assert compare({"torch": gradients(a=[1.0]), "numpy": {}}, {"gradients": 1.0}) == ()


# ---------------------------------------------------------------- bounds


def test_bounds_of_float64_are_the_contract():
    assert bounds(build("lenet5"), "float64", 16) == {
        "forward": 1e-12,
        "loss": 1e-12,
        "gradients": 1e-10,
        "sgd": 1e-8,
        "momentum": 1e-8,
        "nesterov": 1e-8,
    }


def test_bounds_of_float32_follow_from_the_longest_sums():
    dense = bounds(build("fc2", "dense"), "float32", 16)
    assert dense["forward"] == dense["gradients"] == pytest.approx(1e-6 * 28)  # 784 inputs
    lenet5 = bounds(build("lenet5", "dense"), "float32", 16)
    assert lenet5["forward"] == pytest.approx(1e-6 * 20)  # 5 x 5 x 16
    assert lenet5["gradients"] == pytest.approx(1e-6 * 112)  # 16 examples x 28 x 28 positions
    assert lenet5["momentum"] == lenet5["gradients"]
    operator = bounds(build("fc2"), "float32", 16)
    assert operator["gradients"] == pytest.approx(1e-6 * 56)  # 16 examples x 7 x 7 x 4 rows of core 1


# ---------------------------------------------------------------- the case


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_a_case_survives_its_files(model, dtype, tmp_path):
    case = cases.make(model, dtype, 7, 3)
    cases.save(case, tmp_path)
    back = cases.load(tmp_path)
    assert (back.model, back.dtype, len(back.legs)) == (model, dtype, len(case.legs))
    for leg, read in zip(case.legs, back.legs, strict=True):
        assert read.rates == leg.rates
        np.testing.assert_array_equal(read.images, leg.images)
        np.testing.assert_array_equal(read.labels, leg.labels)
        for written, found in ((leg.parameters, read.parameters), (leg.velocity, read.velocity)):
            assert set(found) == set(written)
            for name, value in written.items():
                assert found[name].dtype == dtype
                np.testing.assert_array_equal(found[name], value)


def test_a_case_follows_from_its_seed_and_tests_biases_too():
    first, again, other = (cases.make(ODD, "float64", seed, 4).legs[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)
    assert 0.0 <= first.images.min() <= first.images.max() < 1.0
    assert set(first.labels) <= {0, 1, 2}
    assert all(np.all(value != 0.0) for value in first.parameters.values())


def test_training_goes_on_end_in_float64_and_in_single_steps_from_other_states_in_float32():
    (leg,) = cases.make(ODD, "float64", 0, 2).legs
    assert len(leg.rates) == 20
    assert len(set(leg.rates)) == 2
    assert not leg.velocity
    legs = cases.make(ODD, "float32", 0, 2).legs
    assert [leg.rates for leg in legs] == [(0.01,), (0.01,), (0.001,), (0.001,)]
    assert all(set(leg.velocity) == {f"velocity/{name}" for name in leg.parameters} for leg in legs)
    assert not np.array_equal(legs[0].parameters["fc2/kernel"], legs[1].parameters["fc2/kernel"])


def test_the_margin_is_the_distance_from_the_nearest_jump():
    relu = Model("m", "dense", None, (1, 2, 1), (ReLU(),), "")
    images = np.array([[2.0, -0.5], [-4.0, 3.0], [1.0, 0.0]]).reshape(3, 1, 2, 1)
    np.testing.assert_array_equal(margins(relu, {}, images), [0.125, 0.75, 0.0])
    pool = Model("m", "dense", None, (2, 2, 1), (MaxPool(),), "")
    images = np.array([[8.0, 1.0, 7.0, 2.0], [3.0, 3.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]).reshape(3, 2, 2, 1)
    np.testing.assert_array_equal(margins(pool, {}, images), [0.125, 0.0, np.inf])
    np.testing.assert_array_equal(widest(pool, {}, images, 2), images[[0, 2]])
    smooth = Model("m", "dense", None, (2, 2, 1), (Flatten(), Dense("d", 1)), "")
    parameters = {"d/kernel": np.ones((4, 1)), "d/bias": np.zeros(1)}
    np.testing.assert_array_equal(margins(smooth, parameters, images), [np.inf] * 3)


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_gradients_keep_a_hundred_roundings_away_from_every_jump(model):
    for leg in cases.make(model, "float32", 0, 8).legs:
        assert margins(model, leg.parameters, leg.images).min() > 100 * 2**-24


@pytest.mark.parametrize("options", [{"dtype": "float16"}, {"seed": -1}, {"batch": 0}])
def test_a_case_that_makes_no_sense_is_refused(options, monkeypatch):
    monkeypatch.setattr("mponet.crosscheck.check.installed", lambda name: True)
    with pytest.raises(InputError, match="expected"):
        crosscheck(build("fc2"), backends=["torch"], **options)


# ---------------------------------------------------------------- who takes part, and in which process


def test_participants_are_canonical_once_and_the_reference_is_last(monkeypatch):
    monkeypatch.setattr("mponet.crosscheck.check.installed", lambda name: name != "tensorflow")
    assert participants(["numpy", " PyTorch", "'flax'", "torch"]) == ("torch", "jax", "numpy")
    assert participants(None) == ("torch", "jax", "numpy")
    with pytest.raises(BackendError, match=r"tensorflow are not installed.*mponet\[tensorflow\]"):
        participants(["torch", "tf"])
    with pytest.raises(BackendError, match="no framework to compare"):
        participants(["numpy"])


def test_the_reference_answers_logits_and_loss_in_its_process(tmp_path):
    cases.save(cases.make(ODD, "float64", 0, 4), tmp_path)
    process.run([process.worker("numpy", [tmp_path], "float64")])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"case.json", "case0.safetensors", "numpy.json", "numpy.safetensors"}
    case = cases.load(tmp_path)
    found = answers(mponet.load("numpy"), case)
    assert found["loss:loss"] == cross_entropy(found["forward:logits"], case.legs[0].labels)


def test_cross_entropy_is_the_mean_and_survives_large_logits():
    logits = np.array([[0.0, 0.0], [np.log(3.0), 0.0], [1e4, 0.0]])
    assert cross_entropy(logits, np.array([0, 0, 0])) == pytest.approx((np.log(2) + np.log(4 / 3)) / 3, rel=1e-15)


def test_a_job_that_fails_says_its_last_words():
    code = "import sys; [print(k, file=sys.stderr) for k in range(9)]; sys.exit(3)"
    with pytest.raises(BackendError, match=r"backend 'torch' stopped with status 3; .* it said: 6 / 7 / 8$"):
        process.run([process.Job("torch", ("-c", code))])


def test_a_worker_that_fails_passes_its_error_on(tmp_path):
    with pytest.raises(BackendError, match=r"backend 'numpy' stopped with status 1.*case\.json"):
        process.run([process.worker("numpy", [tmp_path], "float64")])


def test_a_job_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(process, "SECONDS", 0.5)
    with pytest.raises(BackendError, match="'jax' gave no answer"):
        process.run([process.Job("jax", ("-c", "import time; time.sleep(60)"))])


def test_only_float64_makes_jax_wide(tmp_path):
    assert process.worker("jax", [tmp_path], "float64").environment == (("JAX_ENABLE_X64", "1"),)
    assert process.worker("jax", [tmp_path], "float32").environment == ()
