"""Suites on a backend of numpy: cells and their folders, resuming, failures."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from core.suites import CELLS, OPTIONS, STEPS, TABLES, Breaking, make, tables
from core.toy import Killed, ToyBackend
from mponet.errors import CheckpointError, ModelError, RecipeError
from mponet.files.lock import locked
from mponet.training.run import run
from mponet.training.suite import plan, read, run_suite, states
from mponet.training.suite.folder import LOCK, is_locked
from mponet.training.suite.settings import DEFAULT, networks
from mponet.training.suite.write import markdown

# ---------------------------------------------------------------- cells


def test_cells_come_seed_by_seed_with_one_normal_network_per_model(suite):
    cells = suite.trainings()
    assert [str(cell) for cell in cells] == CELLS
    assert [(cell.variant, cell.settings.bond, cell.settings.seed) for cell in cells[:3]] == [
        ("dense", None, 0),
        ("mpo", None, 0),
        ("mpo", 1, 0),
    ]
    assert cells[0].settings.recipe.steps == STEPS


def test_every_network_is_trained_on_the_data_of_the_paper_unless_told_otherwise():
    images = {"mnist": 60_000, "cifar10": 50_000}
    cells = plan(DEFAULT, backend="toy", images=images, seeds=1).trainings()
    assert {cell.settings.model: cell.settings.data for cell in cells} == {
        "fc2": "mnist",
        "lenet5": "mnist",
        "vgg16": "cifar10",
        "resnet20": "cifar10",
        "densenet40-12": "cifar10",
    }
    other = plan(("fc2", "resnet20"), backend="toy", images={"digits": 1437}, data="digits", seeds=1)
    assert {cell.settings.data for cell in other.trainings()} == {"digits"}


def test_the_recipe_of_a_cell_is_that_of_its_bond():
    cells = plan(("fc2", "fc2:4"), backend="toy", images={"mnist": 60_000}, preset="paper", seeds=1).trainings()
    assert [cell.settings.recipe.clip for cell in cells] == [0.0, 0.0, 1.0]


def test_networks_are_read_once_under_their_own_names():
    assert list(map(str, networks(["fc2:4", " fc2", "resnet20-k4", "resnet20", "fc2:4", ""]))) == [
        "fc2:4",
        "fc2",
        "resnet20",
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("fc3", "model is 'fc3'"),
        ("fc2:", "bond of 'fc2:' is ''"),
        (":4", "model is ''"),
        ("fc2:x", "bond of 'fc2:x' is 'x'"),
        ("fc2:4:5", r"is .4:5.; expected NAME\[:BOND\]"),
        ("fc2:-4", "is '-4'"),
        ("fc2:0", "bond is 0"),
    ],
)
def test_an_entry_that_is_no_network_is_refused(entry, message):
    with pytest.raises(ModelError, match=message):
        networks([entry])


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"entries": ()}, "models is empty"),
        ({"epochs": 2}, "expected one of them"),
        ({"preset": "long"}, "preset is 'long'"),
        ({"variants": ("mpo", "sparse")}, "variants is .*; expected different ones of dense, mpo, low-rank"),
        ({"variants": ("mpo", "mpo")}, "variants is"),
        ({"variants": ()}, "variants is"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(others, message):
    with pytest.raises(RecipeError, match=message):
        make(**others)


# ---------------------------------------------------------------- running and resuming


def test_a_suite_leaves_a_run_folder_per_cell_and_its_tables(tmp_path, digits, suite):
    backend = ToyBackend()
    made = run_suite(suite, backend, digits, tmp_path)
    assert made.ok and backend.steps == len(CELLS) * STEPS
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*CELLS, *TABLES, "suite.json"])
    for cell in suite.trainings():
        config = json.loads((cell.run_folder(tmp_path) / "config.json").read_text())
        assert config["settings"] == cell.settings.as_dict()
    assert read(tmp_path) == suite


def test_finished_cells_are_not_trained_again(tmp_path, digits, suite):
    run_suite(suite, ToyBackend(), digits, tmp_path)
    before, again = tables(tmp_path), ToyBackend()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*")}
    run_suite(suite, again, digits, tmp_path)
    assert again.steps == 0 and tables(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/*")} == stamps


@pytest.mark.parametrize("kill_at", [0, 1, 59, 60, 61, 2 * 60 + 45, 5 * 60 + 59])
def test_a_killed_suite_goes_on_to_the_same_tables(tmp_path, digits, suite, kill_at):
    run_suite(suite, ToyBackend(), digits, tmp_path / "whole")
    with pytest.raises(Killed):
        run_suite(suite, ToyBackend(kill_at=kill_at), digits, tmp_path / "killed")
    later = ToyBackend()
    run_suite(suite, later, digits, tmp_path / "killed")
    assert later.steps == len(CELLS) * STEPS - kill_at // 20 * 20
    assert tables(tmp_path / "killed") == tables(tmp_path / "whole")


SCRIPT = """
import os, signal, sys
from dataclasses import replace
from importlib import import_module
from core.toy import FAMILY, RECIPE, ToyBackend, ToyTrainer
from mponet.models import FAMILIES
from mponet.recipe import PRESETS
from mponet.cli.group import mponet

class Trainer(ToyTrainer):
    def step(self, *arguments, **named):
        if self.backend.steps == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(*arguments, **named)

class Backend(ToyBackend):
    def trainer(self, native, recipe, group=None):
        return Trainer(self, native, recipe)

FAMILIES["toy"], PRESETS["toy"] = FAMILY, {"short": replace(RECIPE, evaluate_every=20)}
backend = Backend()
import_module("mponet.cli.engines").load = lambda _: backend
try:
    mponet(sys.argv[2:], prog_name="mponet")
finally:
    print("steps", backend.steps, file=sys.stderr)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_process_killed_by_the_system_leaves_what_the_next_goes_on_with(tmp_path):
    def process(kill_at, folder):
        options = ("suite", "--backend", "numpy", *OPTIONS[3:], "--out")
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, str(kill_at), *options, str(tmp_path / folder)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            timeout=120,
        )

    assert process(-1, "whole").returncode == 0
    assert process(145, "killed").returncode == -signal.SIGKILL
    assert [state.state for state in states(read(tmp_path / "killed"), tmp_path / "killed")] == [
        *("done", "done", "stopped"),
        *["waiting"] * 3,
    ]
    later = process(-1, "killed")
    assert later.returncode == 0
    assert f"steps {len(CELLS) * STEPS - 140}" in later.stderr
    assert tables(tmp_path / "killed") == tables(tmp_path / "whole")


def test_a_run_of_the_same_settings_counts_as_its_cell(tmp_path, digits, suite):
    cell = suite.trainings()[2]
    run(cell.settings, ToyBackend(), digits["digits"], cell.run_folder(tmp_path), variants=("mpo",))
    backend = ToyBackend()
    assert run_suite(suite, backend, digits, tmp_path).ok
    assert backend.steps == (len(CELLS) - 1) * STEPS


def test_a_run_of_other_settings_in_the_place_of_a_cell_is_a_failure(tmp_path, digits, suite):
    cell = suite.trainings()[2]
    other = replace(cell.settings, recipe=replace(cell.settings.recipe, steps=20))
    result = run(other, ToyBackend(), digits["digits"], cell.run_folder(tmp_path), variants=("mpo",))["mpo"]
    made = run_suite(suite, ToyBackend(), digits, tmp_path)
    assert list(made.failed) == ["toy-mpo-D1-seed0"]
    assert "recipe.steps is 60, was 20" in made.failed["toy-mpo-D1-seed0"]
    assert made.rows[1].mpo.seeds == 1 and made.rows[1].mpo.best.mean != result.best_accuracy


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"seeds": 3}, "seeds is 3, was 2"),
        ({"entries": ("toy",)}, r"models is \['toy'\], was \['toy', 'toy:1'\]"),
        ({"steps": 61}, "steps is 61, was 60"),
        ({"backend": "other"}, "backend is 'other', was 'toy'"),
        ({"preset": "paper"}, "preset is 'paper', was 'short'"),
        ({"steps": None, "epochs": 1}, "epochs is 1, was None; steps is None, was 60"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path, digits, suite, others, message):
    with pytest.raises(Killed):
        run_suite(suite, ToyBackend(kill_at=0), digits, tmp_path)
    with pytest.raises(RecipeError, match=message):
        run_suite(make(**others), ToyBackend(), digits, tmp_path)


def test_a_second_process_in_the_same_folder_is_refused(tmp_path, digits, suite, monkeypatch):
    monkeypatch.setattr("mponet.files.lock.WAIT", 0.1)
    with locked(tmp_path, LOCK):
        assert is_locked(tmp_path)
        with pytest.raises(RecipeError, match="in use by another process"):
            run_suite(suite, ToyBackend(), digits, tmp_path)
    assert is_locked(tmp_path) is False
    assert run_suite(suite, ToyBackend(), digits, tmp_path).ok


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"format": "mponet-suite", "format_version": 2}', b'{"settings": {"models": 3}}']
)
def test_a_damaged_suite_is_named(tmp_path, digits, suite, content):
    (tmp_path / "suite.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"suite\.json is damaged"):
        run_suite(suite, ToyBackend(), digits, tmp_path)


# ---------------------------------------------------------------- failures


def test_a_cell_that_breaks_is_recorded_and_the_rest_is_done(tmp_path, digits, suite):
    made = run_suite(suite, Breaking(), digits, tmp_path)
    names = ["toy-mpo-D1-seed0", "toy-mpo-D1-seed1"]
    assert made.failed == dict.fromkeys(names, "ZeroDivisionError: no such\noperator")
    assert not made.ok and made.waiting == ()
    assert [(row.normal.seeds, row.mpo.seeds) for row in made.rows] == [(2, 2), (2, 0)]
    assert made.rows[1].mpo.best is None
    noted = json.loads((tmp_path / names[0] / "failed.json").read_text())
    assert any("in build" in line for line in noted["traceback"])
    assert "- toy-mpo-D1-seed0: ZeroDivisionError: no such operator\n" in (tmp_path / "tables.md").read_text()


def test_a_cell_that_broke_is_tried_again_to_the_tables_of_an_undisturbed_suite(tmp_path, digits, suite):
    run_suite(suite, ToyBackend(), digits, tmp_path / "whole")
    run_suite(suite, Breaking(), digits, tmp_path / "broken")
    later = ToyBackend()
    assert run_suite(suite, later, digits, tmp_path / "broken").ok
    assert later.steps == 2 * STEPS
    assert tables(tmp_path / "broken") == tables(tmp_path / "whole")
    assert not list(tmp_path.rglob("failed.json"))


def test_a_cell_that_diverged_is_finished_and_in_no_mean(tmp_path, digits, suite):
    made = run_suite(suite, ToyBackend(nan_at=STEPS + 45), digits, tmp_path)
    assert list(made.diverged) == ["toy-mpo-seed0"] and not made.ok
    assert "training diverged" in made.diverged["toy-mpo-seed0"]
    assert made.rows[0].mpo.seeds == 1 and made.rows[0].mpo.best.deviation is None
    assert "| 2, 1 |" in markdown(made) and "Diverged, in no mean:" in markdown(made)
    again = ToyBackend()
    run_suite(suite, again, digits, tmp_path)
    assert again.steps == 0
    (state,) = [state for state in states(suite, tmp_path) if state.state == "diverged"]
    assert (state.name, state.accuracy, state.best_accuracy) == ("toy-mpo-seed0", None, None)
