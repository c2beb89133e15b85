"""The cross-check passes on the frameworks in MPONET_BACKENDS, and fails on a wrong one."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from math import prod
from types import SimpleNamespace

import numpy as np
import pytest

import mponet
from mponet.backend import TRAINABLE, normalize
from mponet.cli.crosscheck import small_recipes
from mponet.crosscheck import case as cases
from mponet.crosscheck import crosscheck, crosschecks, process
from mponet.crosscheck.bounds import bounds
from mponet.crosscheck.check import participants
from mponet.crosscheck.compare import compare
from mponet.crosscheck.worker import answers, cross_entropy
from mponet.errors import BackendError, InputError
from mponet.models import build, miniatures
from mponet.models.shapes import leaves, statistic_shapes
from mponet.models.spec import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool, Model, ReLU
from mponet.operators.shape import MPOShape

#: What the networks of the paper lack: SAME at stride 2 on sides that are odd, an even kernel,
#: pooling windows that overlap and do not come out even, an image with two channels, operators of
#: three sites.
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
        Dense("fc1", 6, mpo=MPOShape.from_factors((2, 2, 4), (1, 3, 2), 3)),
        ReLU(),
        Dense("fc2", 3),
    ),
    "a test",
)
#: Dense networks of the second wiring have no kind of layer that the others lack; compiling them
#: would take an eighth of the time.
MODELS = (
    ODD,
    *(model for model in miniatures.networks("dense") if model.name not in ("vgg-small-late", "resnet-small-unit")),
    *miniatures.networks("mpo"),
)
BATCH = 8
NORMED = miniatures.networks("mpo")[3]  # a VGG: a norm over single values, dropouts, pooling
RESNET = miniatures.networks("dense")[4]


def test_every_kind_of_layer_is_compared():
    """Networks left out of `MODELS` have no layer, and no setting of one, that the others lack."""
    left_out = [model for model in miniatures.networks("dense") if model not in MODELS]
    assert kinds(left_out) <= kinds(MODELS)


def kinds(models):
    """Layers without their names and sizes, and what they are within."""
    found = set()
    for model in models:
        for info in leaves(model):
            layer = info.layer
            settings = (getattr(layer, name, None) for name in ("kernel", "stride", "padding", "bias", "size", "rate"))
            found.add((info.kind, len(info.input_shape), bool(info.operators), *settings))
    return found


NAMED = [normalize(name) for name in os.environ.get("MPONET_BACKENDS", "").split(",") if name.strip()]
FRAMEWORKS = [name for name in NAMED if name in TRAINABLE]
with_frameworks = pytest.mark.skipif(not FRAMEWORKS, reason="MPONET_BACKENDS names no framework")


def title(model):
    return f"{model.name}-{model.variant}"


def of_kind(model, kind):
    return [info for info in leaves(model) if isinstance(info.layer, kind)]


# ---------------------------------------------------------------- the frameworks agree


@pytest.fixture(scope="module", params=cases.DTYPES)
def reports(request):
    recipes = small_recipes(MODELS)
    return crosschecks(MODELS, backends=FRAMEWORKS, dtype=request.param, batch=BATCH, recipes=recipes)


@with_frameworks
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("index", range(len(MODELS)), ids=map(title, MODELS))
def test_the_frameworks_agree(reports, index):
    report = reports[index]
    assert (report.model, report.variant) == (MODELS[index].name, MODELS[index].variant)
    assert report.ok, [found for found in report.comparisons if not found.ok]
    assert {found.norm for found in report.comparisons} == {"largest"}  # no jump within reach


@with_frameworks
@pytest.mark.timeout(3600)
def test_every_pair_is_compared_and_the_reference_on_passes_forward(reports):
    pairs = set(combinations(FRAMEWORKS, 2))
    reference = {(name, "numpy") for name in FRAMEWORKS}
    for model, report in zip(MODELS, reports, strict=True):
        passes = {"forward", "loss"}
        passes |= {"dropout"} if of_kind(model, Dropout) else set()
        passes |= {"statistics"} if of_kind(model, BatchNorm) else set()
        found = {}
        for one in report.comparisons:
            found.setdefault(one.quantity, set()).add((one.first, one.second))
        trained = {"sgd", "momentum", "nesterov"} if model.name == "fc2" else {"nesterov"}
        assert {quantity for quantity in found if quantity in passes} == passes
        assert all(found[quantity] == pairs | reference for quantity in passes)
        assert {q: f for q, f in found.items() if q not in passes} == (
            dict.fromkeys({"gradients"} | trained, pairs) if pairs else {}
        )
        assert set(report.backends) == {*FRAMEWORKS, "numpy"}
        assert all(facts["versions"] and facts["device"] for facts in report.backends.values())
        assert str(report).count("\n") == len(report.comparisons) + 1
    json.dumps([report.as_dict() for report in reports], allow_nan=False)


@with_frameworks
@pytest.mark.timeout(600)
def test_the_command_does_it_from_any_folder(tmp_path):
    (tmp_path / "random.py").write_text("raise SystemExit('the folder of the user was imported')")
    path = os.pathsep.join(entry for entry in sys.path if entry)
    options = f"--full --variant mpo --bond 2 --batch 2 --dtype float64 --backends {FRAMEWORKS[0]} --json"
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


class Wrong:
    """A backend with some functions replaced."""

    def __init__(self, backend, changes):
        self.backend, self.changes = backend, changes

    def __getattr__(self, name):
        if name not in self.changes:
            return getattr(self.backend, name)
        return lambda *arguments, **options: self.changes[name](self.backend, *arguments, **options)


def wrong_trainer(change_recipe=lambda recipe: recipe, change_step=lambda steps: steps[-1]):
    """A backend that trains differently: with another recipe, or with another step."""

    def trainer(backend, native, recipe):
        inner, steps = backend.trainer(native, change_recipe(recipe)), []

        def step(images, labels, rate, masks, share):
            steps.append({"learning_rate": rate, "masks": masks, "share": share})
            return inner.step(images, labels, **change_step(steps))

        def restore(state):
            inner.restore(state if change_recipe(recipe).momentum else {})

        return SimpleNamespace(step=step, state=inner.state, restore=restore)

    return {"trainer": trainer}


def wrong_recipe(**changes):
    return wrong_trainer(lambda recipe: replace(recipe, **changes))


def wrong_layer(kind, **changes):
    """A backend that reads a layer of the vocabulary in another way."""

    def changed(backend, model, parameters, **options):
        chain = [replace(layer, **changes) if isinstance(layer, kind) else layer for layer in model.layers]
        return backend.build(replace(model, layers=tuple(chain)), parameters, **options)

    return {"build": changed}


def wrong_gradients(backend, native, images, labels, masks):
    loss, slopes = backend.gradients(native, images, labels, masks)
    return loss, slopes | {"fc1/kernel": slopes["fc1/kernel"] * 1.001}


def columns_first(backend, native, images):
    return backend.predict(native, images.transpose(0, 2, 1, 3))


def summed_loss(backend, native, images, labels, masks):
    loss, slopes = backend.gradients(native, images, labels, masks)
    return loss * len(labels), slopes


def nothing_dropped(backend, native, images, masks=()):
    return backend.predict(native, images)


ALL = {"sgd", "momentum", "nesterov"}
MISTAKES = {
    "another order of the pixels": ({"predict": columns_first}, {"forward"}),
    "the loss summed, not averaged": ({"gradients": summed_loss}, {"loss"}),
    "one gradient off by a thousandth": ({"gradients": wrong_gradients}, {"gradients"}),
    "no weight decay": (wrong_recipe(weight_decay=0.0), ALL),
    "momentum 0.89": (wrong_trainer(lambda r: replace(r, momentum=r.momentum and 0.89)), {"momentum", "nesterov"}),
    "Nesterov forgotten": (wrong_recipe(nesterov=False), {"nesterov"}),
    "never clipped": (wrong_recipe(clip=0.0), {"nesterov"}),
    "the new learning rate a step late": (
        wrong_trainer(change_step=lambda steps: steps[-1] | {"learning_rate": steps[-2:][0]["learning_rate"]}),
        ALL,
    ),
    "an average that moves by a constant share": (
        wrong_trainer(change_step=lambda steps: steps[-1] | {"share": 0.1}),
        {"nesterov"},
    ),
}
#: On a network with batch norms and dropouts, trained by the last recipe.
MISTAKES_WITH_NORMS = {
    "dropout forgotten": ({"predict": nothing_dropped}, {"dropout"}),
    "masks of the first step in all": (
        wrong_trainer(change_step=lambda steps: steps[-1] | {"masks": steps[0]["masks"]}),
        {"nesterov"},
    ),
    "what is kept is not divided by its share": (
        wrong_layer(Dropout, rate=0.0),
        {"dropout", "loss", "gradients", "nesterov"},
    ),
    "the epsilon of PyTorch": (
        wrong_layer(BatchNorm, epsilon=1e-5),
        {"forward", "dropout", "loss", "gradients", "nesterov"},
    ),
    "a quicker running average": (wrong_layer(BatchNorm, decay=0.9), {"statistics", "nesterov"}),
}


def answered(model, recipes, backend):
    case = cases.make(model, "float32", 0, BATCH, recipes)
    return SimpleNamespace(case=case, backend=backend, answers=answers(backend, case))


@pytest.fixture(scope="module")
def plain():
    return answered(build("fc2", "dense"), cases.RECIPES, mponet.load(FRAMEWORKS[0]))


@pytest.fixture(scope="module")
def normed():
    return answered(NORMED, [cases.NESTEROV], mponet.load(FRAMEWORKS[0]))


def broken(right, wrong):
    """The quantities of which a bound does not hold between two answers."""
    found = compare({"right": by_quantity(right.answers), "wrong": by_quantity(wrong)}, bounds(right.case))
    return {c.quantity for c in found if not c.ok}


def by_quantity(flat):
    found = {}
    for key, value in flat.items():
        quantity, name = key.split(":")
        found.setdefault(quantity, {})[name] = value
    return found


@with_frameworks
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_breaks_its_bound_even_in_float32(mistake, plain):
    changes, expected = MISTAKES[mistake]
    assert broken(plain, answers(Wrong(plain.backend, changes), plain.case)) == expected


@with_frameworks
@pytest.mark.parametrize("mistake", MISTAKES_WITH_NORMS)
def test_a_mistake_in_norms_or_dropouts_does_so_too(mistake, normed):
    changes, expected = MISTAKES_WITH_NORMS[mistake]
    assert expected <= broken(normed, answers(Wrong(normed.backend, changes), normed.case))


def test_an_unbiased_running_variance_is_found():
    """What PyTorch does by itself: the variance divided by one value less than there are."""
    right = answered(NORMED, (), mponet.load("numpy"))
    wrong = dict(right.answers)
    for info in of_kind(NORMED, BatchNorm):
        name, decay, count = f"{info.layer.name}/variance", info.layer.decay, BATCH * prod(info.input_shape[:-1])
        moved = wrong[f"statistics:{name}"]
        of_batch = (moved - decay * right.case.starts[0].parameters[name]) / (1 - decay)
        wrong[f"statistics:{name}"] = moved + (1 - decay) * of_batch / (count - 1)
    assert broken(right, wrong) == {"statistics"}


def test_symmetric_padding_is_found(monkeypatch):
    """PyTorch's ``padding=1`` at stride 2: as many positions, shifted by a pixel up and left."""
    right = answered(RESNET, (), mponet.load("numpy"))
    asymmetric = Conv2D.pads

    def symmetric(layer, shape):
        return tuple((sum(pads) + 1) // 2 * np.ones(2, int) for pads in asymmetric(layer, shape))

    monkeypatch.setattr(Conv2D, "pads", symmetric)
    assert broken(right, answers(right.backend, right.case)) == {"forward", "loss", "statistics"}


# ---------------------------------------------------------------- who takes part, and in which
# process


def test_participants_are_canonical_once_and_the_reference_is_last(monkeypatch):
    monkeypatch.setattr("mponet.crosscheck.check.installed", lambda name: name != "tensorflow")
    assert participants(["numpy", " PyTorch", "'flax'", "torch"]) == ("torch", "jax", "numpy")
    assert participants(None) == ("torch", "jax", "numpy")
    with pytest.raises(BackendError, match=r"tensorflow are not installed.*mponet\[tensorflow\]"):
        participants(["torch", "tf"])
    with pytest.raises(BackendError, match="no framework to compare"):
        participants(["numpy"])


@pytest.mark.parametrize("options", [{"dtype": "float16"}, {"seed": -1}, {"batch": 1}])
def test_a_case_that_makes_no_sense_is_refused(options, monkeypatch):
    monkeypatch.setattr("mponet.crosscheck.check.installed", lambda name: True)
    with pytest.raises(InputError, match="expected"):
        crosscheck(build("fc2"), backends=["torch"], **options)


def test_the_reference_answers_passes_forward_in_its_process(tmp_path):
    cases.save(cases.make(NORMED, "float64", 0, 4), tmp_path)
    process.run([process.worker("numpy", [tmp_path], "float64")])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"case.json", "case0.safetensors", "numpy.json", "numpy.safetensors"}
    found = by_quantity(answers(mponet.load("numpy"), cases.load(tmp_path)))
    assert set(found) == {"forward", "dropout", "loss", "statistics"}
    assert not np.array_equal(found["forward"]["logits"], found["dropout"]["logits"])
    assert set(found["statistics"]) == set(statistic_shapes(NORMED))


def test_the_loss_of_the_reference_is_that_of_its_logits_where_training_changes_nothing():
    case = cases.make(ODD, "float64", 0, 4)
    found = answers(mponet.load("numpy"), case)
    assert found["loss:loss"] == cross_entropy(found["forward:logits"], case.starts[0].labels)


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


def test_a_job_that_hangs_is_ended():
    with pytest.raises(BackendError, match=r"'jax' gave no answer for 0\.5 seconds"):
        process.run([process.Job("jax", ("-c", "import time; time.sleep(60)"), seconds=0.5)])


def test_a_worker_has_time_for_each_network(tmp_path):
    one, three = (process.worker("jax", [tmp_path] * count, "float32").seconds for count in (1, 3))
    assert three == 3 * one


def test_only_float64_makes_jax_wide(tmp_path):
    assert process.worker("jax", [tmp_path], "float64").environment == (("JAX_ENABLE_X64", "1"),)
    assert process.worker("jax", [tmp_path], "float32").environment == ()
