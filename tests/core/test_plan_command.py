"""``mponet plan`` and ``mponet tune`` as a user runs them, on numpy."""

import json

import pytest

import mponet.contraction.calibrate
from core.command import facts, failing, run
from mponet.contraction.machine import DEFAULT_COSTS, Machine, machine_of
from mponet.contraction.planner import PURPOSES, PlanRequest, PlanSet, _plans_for, plans_for, rounded
from mponet.operators.shape import MPOShape
from mponet_numpy.ops.planning import planner, versions

SHAPE = MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 8)
FC2 = ("plan", "4,7,7,4", "4,4,4,4", "--bond", "8", "--backend", "numpy")
SMALL = ("plan", "4,4", "2,3", "--bond", "3", "--batch", "8", "--backend", "numpy")
PARTS = ("merging", "products", "moving", "calls")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """An empty cache, and no choices of other tests."""
    monkeypatch.delenv("MPONET_PLAN", raising=False)
    monkeypatch.setenv("MPONET_CACHE", str(tmp_path / "cache"))
    _plans_for.cache_clear()
    yield tmp_path / "cache"
    _plans_for.cache_clear()


@pytest.fixture
def quick(monkeypatch):
    """The smallest of the samples: really timed, but in a moment."""
    few = [one for one in mponet.contraction.calibrate.samples() if one.plan.shape.dense_parameters <= 4096]
    monkeypatch.setattr(mponet.contraction.calibrate, "samples", lambda times=1: iter(few))
    return len(few)


# ---------------------------------------------------------------- mponet plan


@pytest.mark.parametrize("purpose", PURPOSES)
def test_plan_shows_what_a_layer_would_say(purpose):
    result = run(*FC2, "--batch", "100", "--purpose", purpose, "--top", "3")
    assert result.exit_code == 0
    plans = plans_for(SHAPE, 100, "float32", planner())
    assert result.stdout == f"numpy: {plans.explain(purpose, 3)}\n"


def test_plan_tells_programs_the_same():
    found = facts(*FC2, "--batch", "100", "--top", "5")
    request = PlanRequest(SHAPE, rounded(100))
    options, chosen = request.ranked("training"), PlanSet.of(request).training
    assert (found["backend"], found["shape"], found["batch"]) == ("numpy", str(SHAPE), rounded(100))
    assert found["purpose"] == "training"
    assert [one["plan"] for one in found["candidates"]] == [str(plan) for plan in options[:5]]
    assert found["chosen"] == found["candidates"][0]
    assert found["chosen"]["plan"] == str(chosen)
    assert found["memory_limit_bytes"] > 0
    assert (found["chosen"]["saves_states"], found["chosen"]["saved_bytes"]) == (True, request.saved_bytes(chosen))
    short = facts(*FC2, "--batch", "100", "--memory", "500000")
    assert (short["chosen"]["saves_states"], short["memory_limit_bytes"]) == (False, 500_000)
    assert short["chosen"]["saved_bytes"] == 0 < short["chosen"]["workspace_bytes"] <= 500_000
    for one in found["candidates"]:
        assert one["predicted_seconds"] == pytest.approx(sum(one[part] for part in PARTS), rel=1e-12)
        assert one["measured_seconds"] is None
        assert one["workspace_bytes"] > 0


def test_one_bond_for_all_or_one_for_each():
    each = facts("plan", "4,4,4", "4,4,4", "--bond", "3,5", "--backend", "numpy")
    both = facts("plan", "4,4,4", "4,4,4", "--bond", "3", "--backend", "numpy")
    assert (each["shape"], both["shape"]) == ("M^{4,4,4}_{4,4,4}(3,5)", "M^{4,4,4}_{4,4,4}(3)")


def test_wider_numbers_are_predicted_to_take_longer():
    times = {
        dtype: facts(*FC2, "--dtype", dtype)["chosen"]["predicted_seconds"]
        for dtype in ("float16", "float32", "float64")
    }
    assert times["float16"] < times["float32"] < times["float64"]


def test_measured_times_are_shown_and_decide():
    found = facts(*SMALL, "--measure")
    times = [one["measured_seconds"] for one in found["candidates"] if one["measured_seconds"] is not None]
    assert times
    assert found["chosen"]["measured_seconds"] == min(times)
    assert "was the fastest of those that were timed here" in run(*SMALL, "--measure").stdout


def test_the_variable_makes_the_command_measure_as_it_makes_layers():
    assert facts(*SMALL, MPONET_PLAN="measure")["chosen"]["measured_seconds"] is not None
    assert facts(*SMALL, MPONET_PLAN="model")["chosen"]["measured_seconds"] is None
    failing(run(*SMALL, MPONET_PLAN="guess"), "MPONET_PLAN", "'guess'", "model or measure")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("4,4", "4,4,4", "--bond", "2"), ("2 factors", "3")),
        (("4,0", "4,4", "--bond", "2"), ("(4, 0)", "at least 1")),
        (("4,-1", "4,4", "--bond", "2"), ("(4, -1)", "at least 1")),
        (("4,4", "4,4", "--bond", "2,3,4"), ("(2, 3, 4)", "each inner bond")),
        (("4,4", "4,4", "--bond", "0"), ("0", "bond")),
        (("4,4", "4,4", "--bond", "2", "--dtype", "bfloat16", "--measure"), ("'bfloat16'", "float64, float32")),
    ],
)
def test_factors_that_do_not_fit_are_one_line(arguments, parts):
    failing(run("plan", *arguments, "--backend", "numpy"), *parts)


def test_a_backend_that_there_is_not_is_one_line():
    failing(run("plan", "4,4", "4,4", "--bond", "2", "--backend", "abacus"), "'abacus'", "torch, jax, tensorflow")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("4,x", "4,4", "--bond", "2"), "'4,x' is not a list of whole numbers; expected for example 4,7,7,4"),
        (("", "4,4", "--bond", "2"), "not a list of whole numbers"),
        (("4;4", "4,4", "--bond", "2"), "not a list of whole numbers"),
        (("4,4", "4,4", "--bond", "2.5"), "not a list of whole numbers"),
        (("4,4", "4,4"), "--bond"),
        (("4,4", "4,4", "--bond", "2", "--batch", "-1"), "-1"),
        (("4,4", "4,4", "--bond", "2", "--purpose", "speed"), "speed"),
        (("4,4", "4,4", "--bond", "2", "--top", "0"), "0"),
    ],
)
def test_words_that_are_no_factors_are_a_mistake_of_usage(arguments, part):
    result = run("plan", *arguments, "--backend", "numpy")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: mponet plan" in result.stderr
    assert part in result.stderr


def test_a_batch_of_nothing_has_a_plan():
    assert facts(*FC2, "--batch", "0")["chosen"]["predicted_seconds"] > 0


# ---------------------------------------------------------------- mponet tune


def test_tune_keeps_what_it_measured_and_plans_make_use_of_it(folder, quick):
    found = facts("tune", "--backend", "numpy")
    file = folder / "machine-numpy.json"
    assert found["file"] == str(file)
    assert found["backend"] == "numpy"
    assert json.loads(file.read_text())["machine"] == found["machine"]
    assert machine_of("numpy", versions()) == Machine(**found["machine"]) != DEFAULT_COSTS
    assert min(found["error"], found["error_before"]) >= 1.0
    assert plans_for(SHAPE, 8, "float32", planner()).request.machine == Machine(**found["machine"])


def test_tune_tells_people(folder, quick):
    text = run("tune", "--backend", "numpy").stdout
    first, *constants, error, last = text.splitlines()
    assert first == f"numpy, {quick} passes timed"
    assert len(constants) == 7
    for unit in ("GFLOP/s", "GB/s", "us"):
        assert any(line.endswith(unit) for line in constants)
    assert error.startswith("predictions are off by a factor of ")
    assert last == f"kept in {folder / 'machine-numpy.json'}"


def test_a_dry_run_keeps_nothing(folder, quick):
    assert facts("tune", "--backend", "numpy", "--dry-run")["file"] is None
    text = run("tune", "--backend", "numpy", "--dry-run").stdout
    assert text.splitlines()[-1] == f"not kept; without --dry-run they go to {folder / 'machine-numpy.json'}"
    assert not folder.exists()


def test_a_broken_file_of_constants_is_warned_of_and_tune_mends_it(folder, quick, caplog):
    folder.mkdir()
    (folder / "machine-numpy.json").write_text("{")
    assert run(*SMALL).exit_code == 0
    assert str(folder / "machine-numpy.json") in caplog.text and "mponet tune" in caplog.text
    caplog.clear()
    assert run("tune", "--backend", "numpy").exit_code == 0
    assert run(*SMALL).exit_code == 0
    assert not caplog.text


def test_a_cache_that_cannot_be_written_is_one_line(folder, quick):
    folder.write_text("")
    failing(run("tune", "--backend", "numpy"), str(folder), "cannot be written")
