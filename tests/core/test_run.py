"""Runs in their folders, on a NumPy backend: files, results, resuming, the command line."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from core.toy import FAMILY, RECIPE, Killed, ToyBackend, make
from mponet.cli import evaluate as evaluate_command
from mponet.cli import run as run_command
from mponet.cli.group import mponet
from mponet.errors import CheckpointError, RecipeError
from mponet.models import FAMILIES, registry
from mponet.recipe import PRESETS
from mponet.training import checkpoint
from mponet.training.data import load
from mponet.training.run import Settings, metrics, run

STEPS = RECIPE.steps


@pytest.fixture(autouse=True)
def _a_toy_network(monkeypatch):
    monkeypatch.setitem(FAMILIES, "toy", FAMILY)
    monkeypatch.setitem(PRESETS, "toy", {"short": RECIPE, "paper": RECIPE})


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture
def settings():
    return Settings("toy", None, "digits", replace(RECIPE, evaluate_every=20), 0)


def parameters(folder, variant="dense"):
    return checkpoint.load(folder / variant / checkpoint.NAME).parameters


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def timeless(path):
    """The records without what depends on the clock."""
    return [replace(record, images_per_s=None, seconds=0.0) for record in metrics.read(path)]


def test_a_run_leaves_its_settings_metrics_checkpoints_and_result(tmp_path, digits, settings):
    results = run(settings, ToyBackend(), digits, tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "config.json",
        "dense/checkpoint.safetensors",
        "dense/metrics.jsonl",
        "mpo/checkpoint.safetensors",
        "mpo/metrics.jsonl",
        "mpo/spectra.jsonl",
        "result.json",
    ]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["settings"] == settings.as_dict()
    assert config["starts"][0]["backend"] == "toy"
    assert {"mponet", "python", "numpy", "toy"} <= set(config["starts"][0]["versions"])
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["variants"]["mpo"]["accuracy"] == results["mpo"].accuracy
    assert checkpoint.load(tmp_path / "mpo" / checkpoint.NAME).step == STEPS


def test_a_run_does_not_read_the_name_of_its_network_again(tmp_path, digits, settings, monkeypatch):
    monkeypatch.setattr(registry, "_read", lambda name: pytest.fail(f"{name} is read once more"))
    assert run(settings, ToyBackend(), digits, tmp_path)["mpo"].steps == STEPS


def test_a_result_says_what_the_metrics_say(tmp_path, digits, settings):
    results = run(settings, ToyBackend(), digits, tmp_path)
    for variant, result in results.items():
        records = metrics.read(tmp_path / variant / metrics.NAME)
        measured = [record.accuracy for record in records if record.accuracy is not None]
        assert (result.accuracy, result.best_accuracy) == (measured[-1], max(measured))
        assert (result.steps, result.loss, result.seconds) == (STEPS, records[-1].loss, records[-1].seconds)
        assert result.step_ms > 0
    assert (results["dense"].parameters, results["dense"].rho, results["dense"].parameter_ratio) == (650, None, 1.0)
    mpo = results["mpo"]
    assert (mpo.parameters, mpo.rho, mpo.parameter_ratio) == (8 * 5 * 2 + 2 * 8 * 2 + 10, 112 / 640, 122 / 650)


@pytest.mark.parametrize("kill_at", [0, 1, 19, 20, 21, 77, STEPS - 1])
@pytest.mark.parametrize("variant", ["dense", "mpo"])
def test_a_killed_run_resumes_to_the_same_result(tmp_path, digits, settings, variant, kill_at):
    whole = run(settings, ToyBackend(), digits, tmp_path / "whole", variants=(variant,))[variant]
    with pytest.raises(Killed):
        run(settings, ToyBackend(kill_at=kill_at), digits, tmp_path / "killed", variants=(variant,))
    later = ToyBackend()
    result = run(settings, later, digits, tmp_path / "killed", variants=(variant,), resume=True)[variant]
    assert later.steps == STEPS - kill_at // 20 * 20
    assert same(parameters(tmp_path / "killed", variant), parameters(tmp_path / "whole", variant))
    assert timeless(tmp_path / "killed" / variant / metrics.NAME) == timeless(
        tmp_path / "whole" / variant / metrics.NAME
    )
    assert (result.accuracy, result.best_accuracy) == (whole.accuracy, whole.best_accuracy)


def test_the_best_accuracy_survives_a_kill(tmp_path, digits, settings):
    with pytest.raises(Killed):
        run(settings, ToyBackend(kill_at=70), digits, tmp_path, variants=("dense",))
    path = tmp_path / "dense" / metrics.NAME
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["accuracy"] = 0.999
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 70, "half a li')
    assert (
        run(settings, ToyBackend(), digits, tmp_path, variants=("dense",), resume=True)["dense"].best_accuracy == 0.999
    )


def test_a_run_killed_between_its_last_checkpoint_and_its_result_resumes_to_it(tmp_path, digits, settings):
    results = run(settings, ToyBackend(), digits, tmp_path)
    (tmp_path / "result.json").unlink()
    later = ToyBackend()
    assert run(settings, later, digits, tmp_path, resume=True) == results
    assert later.steps == 0


def test_a_finished_run_resumes_to_its_result_at_once_wherever_its_folder_is(tmp_path, digits, settings):
    results = run(settings, ToyBackend(), digits, tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    later = ToyBackend()
    again = run(settings, later, digits, tmp_path / "b", resume=True)
    assert later.steps == later.evaluations == 0
    assert again["dense"].checkpoint == str(tmp_path / "b" / "dense" / checkpoint.NAME)
    assert replace(again["mpo"], checkpoint="") == replace(results["mpo"], checkpoint="")


def test_every_start_is_noted(tmp_path, digits, settings):
    with pytest.raises(Killed):
        run(settings, ToyBackend(kill_at=50), digits, tmp_path)
    run(settings, ToyBackend(), digits, tmp_path, resume=True, device="other")
    starts = json.loads((tmp_path / "config.json").read_text())["starts"]
    assert [start["device"] for start in starts] == ["cpu", "other"]


def test_slow_evaluations_do_not_keep_checkpoints_away(tmp_path, digits, settings, monkeypatch):
    monkeypatch.setattr("mponet.training.run.execute.SAVE_EVERY", 0.0)
    rare = replace(settings, recipe=replace(settings.recipe, evaluate_every=1000))
    with pytest.raises(Killed):
        run(rare, ToyBackend(kill_at=70), digits, tmp_path)
    assert checkpoint.load(tmp_path / "dense" / checkpoint.NAME).step == 50


def test_an_existing_run_is_not_overwritten(tmp_path, digits, settings):
    run(settings, ToyBackend(), digits, tmp_path)
    with pytest.raises(RecipeError, match=r"already holds dense and mpo .* --resume"):
        run(settings, ToyBackend(), digits, tmp_path)


def test_a_variant_may_join_later(tmp_path, digits, settings):
    one = run(settings, ToyBackend(), digits, tmp_path, variants=("dense",))
    run(settings, ToyBackend(), digits, tmp_path, variants=("mpo",))
    both = run(settings, ToyBackend(), digits, tmp_path, resume=True)
    assert list(both) == ["dense", "mpo"]
    assert both["dense"] == one["dense"]


def test_a_run_of_other_settings_is_refused_with_the_difference(tmp_path, digits, settings):
    run(settings, ToyBackend(), digits, tmp_path, variants=("dense",))
    others = (
        (replace(settings, seed=1), "seed is 1, was 0"),
        (replace(settings, bond=1), "bond is 1, was None"),
        (replace(settings, recipe=RECIPE), "recipe.evaluate_every is 0, was 20"),
    )
    for other, message in others:
        for resume in (False, True):
            with pytest.raises(RecipeError, match=message):
                run(other, ToyBackend(), digits, tmp_path, resume=resume)


def test_a_checkpoint_of_another_run_is_refused(tmp_path, digits, settings):
    run(settings, ToyBackend(), digits, tmp_path / "a", variants=("dense",))
    run(replace(settings, seed=1), ToyBackend(), digits, tmp_path / "b", variants=("dense",))
    (tmp_path / "a" / "result.json").unlink()
    (tmp_path / "b" / "dense" / checkpoint.NAME).replace(tmp_path / "a" / "dense" / checkpoint.NAME)
    with pytest.raises(RecipeError, match="seed is 0, was 1"):
        run(settings, ToyBackend(), digits, tmp_path / "a", variants=("dense",), resume=True)


def test_a_start_that_failed_before_its_first_step_binds_nobody(tmp_path, digits, settings):
    class Broken(ToyBackend):
        def build(self, *_, **__):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run(settings, Broken(), digits, tmp_path)
    run(replace(settings, seed=1), ToyBackend(), digits, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["settings"]["seed"] == 1


def test_data_other_than_that_of_the_settings_is_refused(tmp_path, digits, settings):
    with pytest.raises(RecipeError, match="data set is 'digits'; expected 'mnist'"):
        run(replace(settings, data="mnist"), ToyBackend(), digits, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"{", "is damaged"),
        ("config.json", b'{"format": "mponet-run", "format_version": 2}', "format_version"),
        ("result.json", b"[]", "Expected `object`"),
        ("result.json", b'{"variants": {"dense": {"accuracy": 1}}}', "missing required field"),
        ("dense/metrics.jsonl", b"", "ends at step 0; expected 60"),
        ("dense/metrics.jsonl", b"\xff\n", "line 1"),
        ("dense/metrics.jsonl", b'{"step": 20}\n', "line 1"),
        ("dense/metrics.jsonl", None, "is absent"),
        ("dense/checkpoint.safetensors", b"", "cannot be read"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, digits, settings, name, content, message):
    with pytest.raises(Killed):
        run(settings, ToyBackend(kill_at=70), digits, tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        run(settings, ToyBackend(), digits, tmp_path, resume=True)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, digits, settings):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        run(settings, ToyBackend(), digits, tmp_path / "file" / "folder")


@pytest.mark.parametrize("nan_at", [0, 30, 40, STEPS - 1])
def test_a_divergence_is_recorded_and_the_other_variant_still_runs(tmp_path, digits, settings, nan_at):
    results = run(settings, ToyBackend(nan_at=nan_at), digits, tmp_path)
    dense = results["dense"]
    assert (dense.diverged, dense.accuracy, dense.best_accuracy, results["mpo"].diverged) == (True, None, None, False)
    assert results["mpo"].accuracy > 0.5
    assert "diverged" in dense.message
    lines = (tmp_path / "dense" / metrics.NAME).read_text().splitlines()
    assert [json.loads(line).get("diverged", False) for line in lines] == [False] * (len(lines) - 1) + [True]
    assert "NaN" not in (tmp_path / "result.json").read_text()
    if dense.checkpoint is not None:
        checkpoint.load(tmp_path / "dense" / checkpoint.NAME)  # the last good one
    assert run(settings, ToyBackend(), digits, tmp_path, resume=True) == results


def test_parameters_that_overflow_in_the_last_step_are_a_divergence(tmp_path, digits, settings):
    class Overflowing(ToyBackend):
        def parameters(self, native):
            return {name: value * np.float32("inf" if self.steps == 40 else 1) for name, value in native.values.items()}

    with np.errstate(invalid="ignore"):
        result = run(settings, Overflowing(), digits, tmp_path, variants=("mpo",))["mpo"]
    assert result.diverged and "parameters are not finite after step 40" in result.message


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run the command on a toy backend; gives exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, backend=None):
        for module in (run_command, evaluate_command):
            monkeypatch.setattr(module, "load", lambda _: backend or ToyBackend())
        outcome = CliRunner().invoke(mponet, [*arguments, "--backend", "numpy"], prog_name="mponet")
        return outcome.exit_code, outcome.stdout, outcome.stderr

    return call


def test_the_command_prints_a_table_and_where_the_files_are(command):
    status, out, err = command("run", "toy", "--steps", "60")
    assert status == 0
    assert "accuracy" in out and "650" in out and "0.1750" in out
    assert "runs/toy-digits-numpy-short-60steps-seed0" in out
    assert "data: digits" in err and "backend: numpy" in err
    assert "dense: test accuracy" in err


def test_json_is_one_object_and_nothing_else(command):
    status, out, _ = command("run", "toy", "--epochs", "5", "--seed", "3", "--bond", "1", "--json", "--out", "here")
    told = json.loads(out)
    assert status == 0
    assert (told["model"], told["data"], told["backend"], told["preset"], told["seed"]) == (
        "toy",
        "digits",
        "numpy",
        "short",
        3,
    )
    assert told["variants"]["dense"]["rho"] is None
    assert told["variants"]["mpo"]["steps"] == 70
    status, out, _ = command("evaluate", "here", "--json")
    rows = json.loads(out)["checkpoints"]
    assert [row["variant"] for row in rows] == ["dense", "mpo"]
    assert [row["accuracy"] for row in rows] == [told["variants"][variant]["accuracy"] for variant in ("dense", "mpo")]


def test_evaluate_takes_a_file_a_variant_or_a_run(command):
    command("run", "toy", "--steps", "20", "--variant", "mpo", "--out", "here")
    for path in ("here", "here/mpo", "here/mpo/checkpoint.safetensors"):
        status, out, _ = command("evaluate", path)
        assert status == 0 and "toy" in out and "%" in out
    status, _, err = command("evaluate", "nowhere")
    assert (status, err) == (
        1,
        "error: nowhere is not a file; expected a checkpoint; look for checkpoint.safetensors in the folder of a run\n",
    )
    (run_command.Path("empty")).mkdir()
    assert "expected the folder of a run" in command("evaluate", "empty")[2]


def test_a_divergence_is_exit_status_1_and_no_accuracy(command):
    status, out, err = command("run", "toy", "--steps", "60", backend=ToyBackend(nan_at=5))
    assert status == 1
    assert "diverged" in out and "error: dense: training diverged" in err


def test_an_existing_run_is_one_line_and_exit_status_1(command):
    command("run", "toy", "--steps", "60")
    status, out, err = command("run", "toy", "--steps", "60")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: runs/toy-digits-numpy-short-60steps-seed0 already holds")
    assert command("run", "toy", "--steps", "60", "--resume")[0] == 0


def test_stopping_by_hand_says_how_to_go_on(command):
    class Stopped(ToyBackend):
        def build(self, *_, **__):
            raise KeyboardInterrupt

    status, _, err = command("run", "toy", backend=Stopped())
    assert status == 130
    assert "--resume continues" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "toyy"), "model is 'toyy'"),
        (("run", "toy", "--variant", "dense", "--bond", "3"), "bond is 3 for the dense variant"),
        (("run", "toy", "--preset", "x"), "preset is 'x'"),
        (("run", "toy", "--data", "x"), "unknown data set 'x'"),
        (("run", "toy", "--epochs", "1", "--steps", "1"), "expected one of them"),
    ],
)
def test_a_wrong_option_is_one_line(command, arguments, message):
    status, out, err = command(*arguments)
    assert (status, out) == (1, "")
    assert err.count("\n") == 1 and err.startswith("error: ") and message in err


def test_an_operator_of_the_toy_is_what_its_graph_says():
    backend, model = ToyBackend(), make("mpo", 2)
    from mponet.models.init import start
    from mponet.operators.mpo import MPO, to_matrix

    values = start(model, 0)
    cores = MPO(model.layers[1].mpo, (values["fc1/core1"], values["fc1/core2"]))
    images = np.random.default_rng(0).random((3, 8, 8, 1))
    native = backend.build(model, values, dtype="float64")
    assert np.allclose(backend.predict(native, images), images.reshape(3, 64) @ to_matrix(cores), atol=1e-14)
