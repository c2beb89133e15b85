"""Suites on a backend of numpy: cells and their folders, resuming, tables, status, and the command line around them."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from core.toy import FAMILY, RECIPE, Killed, ToyBackend
from mponet.cli import run as run_command
from mponet.cli.group import mponet
from mponet.data import load
from mponet.errors import CheckpointError, ModelError, RecipeError
from mponet.models import TABLE
from mponet.recipe import PRESETS
from mponet.run import run
from mponet.suite import execute, plan, read, report, run_suite, states
from mponet.suite.cells import DEFAULT, networks
from mponet.suite.folder import at_work, working
from mponet.suite.published import Figure
from mponet.suite.table import figure
from mponet.suite.write import comma_separated, markdown, percent

COMMAND = import_module("mponet.cli.suite")
STEPS = 60  # an evaluation, and so a checkpoint, every 20 of them
CELLS = [
    f"toy-{kind}-seed{seed}" for seed in (0, 1) for kind in ("dense", "mpo", "mpo-D1")
]  # seed by seed: whole rows first
TABLES = ("tables.md", "tables.csv", "tables.json")


@pytest.fixture(autouse=True)
def _a_toy_network(monkeypatch):
    recipe = replace(RECIPE, evaluate_every=20)
    monkeypatch.setitem(TABLE, "toy", FAMILY)
    monkeypatch.setitem(PRESETS, "toy", {"short": recipe, "paper": recipe})


@pytest.fixture(scope="module")
def digits():
    return {"digits": load("digits")}


@pytest.fixture
def suite():
    return make()


def make(entries=("toy", "toy:1"), **others):
    settings = {"backend": "toy", "images": {"digits": 1437}, "seeds": 2, "data": "digits", "steps": STEPS}
    return plan(entries, **settings | others)


def tables(home):
    return {name: (home / name).read_bytes() for name in TABLES}


class Breaking(ToyBackend):
    """Cannot train operators of bond 1."""

    def build(self, model, *others, **named):
        if model.bond == 1:
            raise ZeroDivisionError("no such\noperator")
        return super().build(model, *others, **named)


# ---------------------------------------------------------------- cells


def test_cells_come_seed_by_seed_with_one_normal_network_per_model(suite):
    cells = suite.cells()
    assert [str(cell) for cell in cells] == CELLS
    assert [(cell.variant, cell.settings.bond, cell.settings.seed) for cell in cells[:3]] == [
        ("dense", None, 0),
        ("mpo", None, 0),
        ("mpo", 1, 0),
    ]
    assert cells[0].settings.recipe.steps == STEPS


def test_every_network_is_trained_on_the_data_of_the_paper_unless_told_otherwise():
    images = {"mnist": 60_000, "cifar10": 50_000}
    cells = plan(DEFAULT, backend="toy", images=images, seeds=1).cells()
    assert {cell.settings.model: cell.settings.data for cell in cells} == {
        "fc2": "mnist",
        "lenet5": "mnist",
        "vgg16": "cifar10",
        "resnet20": "cifar10",
        "densenet40-12": "cifar10",
    }
    other = plan(("fc2", "resnet20"), backend="toy", images={"digits": 1437}, data="digits", seeds=1)
    assert {cell.settings.data for cell in other.cells()} == {"digits"}


def test_the_recipe_of_a_cell_is_that_of_its_bond():
    cells = plan(("fc2", "fc2:4"), backend="toy", images={"mnist": 60_000}, preset="paper", seeds=1).cells()
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
        ("fc2:4:5", "is '4:5'; expected NAME or NAME:BOND"),
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
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*CELLS, *TABLES, "suite.json", "suite.lock"])
    for cell in suite.cells():
        config = json.loads((cell.folder(tmp_path) / "config.json").read_text())
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
from mponet.models import TABLE
from mponet.recipe import PRESETS
from mponet.cli.group import mponet

class Trainer(ToyTrainer):
    def step(self, *arguments, **named):
        if self.backend.steps == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(*arguments, **named)

class Backend(ToyBackend):
    def trainer(self, native, recipe):
        return Trainer(self, native, recipe)

TABLE["toy"], PRESETS["toy"] = FAMILY, {"short": replace(RECIPE, evaluate_every=20)}
backend = Backend()
import_module("mponet.cli.suite").load = lambda _: backend
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
    cell = suite.cells()[2]
    run(cell.settings, ToyBackend(), digits["digits"], cell.folder(tmp_path), variants=("mpo",))
    backend = ToyBackend()
    assert run_suite(suite, backend, digits, tmp_path).ok
    assert backend.steps == (len(CELLS) - 1) * STEPS


def test_a_run_of_other_settings_in_the_place_of_a_cell_is_a_failure(tmp_path, digits, suite):
    cell = suite.cells()[2]
    other = replace(cell.settings, recipe=replace(cell.settings.recipe, steps=20))
    result = run(other, ToyBackend(), digits["digits"], cell.folder(tmp_path), variants=("mpo",))["mpo"]
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
    monkeypatch.setattr("mponet.suite.folder.WAIT", 0.1)
    with working(tmp_path):
        assert at_work(tmp_path)
        with pytest.raises(RecipeError, match="worked on by another process"):
            run_suite(suite, ToyBackend(), digits, tmp_path)
    assert at_work(tmp_path) is False
    assert run_suite(suite, ToyBackend(), digits, tmp_path).ok


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"format": "mponet-suite", "format_version": 2}', b'{"settings": {"models": 3}}']
)
def test_a_damaged_suite_is_named(tmp_path, digits, suite, content):
    (tmp_path / "suite.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"suite\.json cannot be used"):
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


# ---------------------------------------------------------------- status


class Spy(execute.Silent):
    """Looks at the status whenever a cell is finished, and in the middle of the third."""

    def __init__(self, suite, home):
        self.suite, self.home, self.seen = suite, home, []

    def watching(self, cell, number, count):
        from contextlib import nullcontext

        return nullcontext(self if number == 3 else None)

    def started(self, variant, steps, per_epoch, earlier):
        self.seen.append(states(self.suite, self.home))

    def advanced(self, record):
        self.seen.append(states(self.suite, self.home))

    def finished(self, *_):
        pass


def test_the_status_of_a_suite_at_work(tmp_path, digits, suite):
    spy = Spy(suite, tmp_path)
    run_suite(suite, ToyBackend(), digits, tmp_path, observer=spy)
    begun, first = spy.seen[0], spy.seen[1]
    assert [state.state for state in begun] == ["done", "done", "running", *["waiting"] * 3]
    assert [(state.step, state.steps) for state in first][1:4] == [(60, 60), (20, 60), (0, 60)]
    running, waiting = first[2], first[3]
    assert running.accuracy == running.best_accuracy > 0 and running.age >= 0
    assert running.left == pytest.approx(running.seconds / 20 * 40)
    assert waiting.left == pytest.approx(first[0].seconds)  # as long as the same network took with seed 0
    assert first[0].left == 0.0
    assert {state.state for state in states(suite, tmp_path)} == {"done"}


def test_the_status_of_a_suite_that_was_killed_writes_nothing(tmp_path, digits, suite):
    with pytest.raises(Killed):
        run_suite(suite, ToyBackend(kill_at=2 * STEPS + 25), digits, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    found = states(suite, tmp_path)
    assert [state.state for state in found] == ["done", "done", "stopped", *["waiting"] * 3]
    assert found[2].step == 20 and found[2].age >= 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_status_says_what_failed(tmp_path, digits, suite):
    run_suite(suite, Breaking(), digits, tmp_path)
    found = {state.name: state for state in states(suite, tmp_path)}
    assert found["toy-mpo-D1-seed1"].state == "failed"
    assert "ZeroDivisionError" in found["toy-mpo-D1-seed1"].message
    (tmp_path / "toy-mpo-D1-seed0" / "failed.json").write_text("{")
    (tmp_path / "toy-dense-seed0" / "result.json").write_text("{")
    found = {state.name: state for state in states(suite, tmp_path)}
    for name, file in (("toy-mpo-D1-seed0", "failed.json"), ("toy-dense-seed0", "result.json")):
        assert found[name].state == "failed" and file in found[name].message


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("count", [2, 3, 5])
def test_means_and_deviations_are_those_of_numpy(count):
    values = np.random.default_rng(count).random(count).tolist()
    found = figure(values)
    # Sums of at most 5 numbers below 1 are right to a few units in the last place, below 1e-15, and so are differences
    # from the mean; the root of the mean of their squares is as right as they are.
    assert found.mean == pytest.approx(np.mean(values), abs=1e-14)
    assert found.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-14)


def test_one_value_has_no_deviation_and_none_no_mean():
    assert (figure([0.5]), figure([])) == (Figure(0.5, None), None)
    assert [percent(one) for one in (Figure(0.98351, 0.002), figure([0.5]), None)] == ["98.35 ± 0.20", "50.00", "-"]


def test_the_tables_hold_the_figures_of_the_runs(tmp_path, digits, suite):
    made = run_suite(suite, ToyBackend(), digits, tmp_path)
    results = {
        name: json.loads((tmp_path / name / "result.json").read_text())["variants"] for name in CELLS if "mpo" in name
    }
    for bond, row in (("", made.rows[0]), ("-D1", made.rows[1])):
        ours = [results[f"toy-mpo{bond}-seed{seed}"]["mpo"] for seed in (0, 1)]
        assert row.mpo.best.mean == pytest.approx(np.mean([one["best_accuracy"] for one in ours]), abs=1e-14)
        assert row.mpo.last.deviation == pytest.approx(np.std([one["accuracy"] for one in ours], ddof=1), abs=1e-14)
        assert (row.rho, row.whole_ratio) == (ours[0]["rho"], ours[0]["whole_ratio"])
    written = json.loads((tmp_path / "tables.json").read_text())
    assert written["rows"][1]["mpo"]["last"]["mean"] == made.rows[1].mpo.last.mean


def test_markdown_and_csv_can_be_read_back(tmp_path, digits, suite):
    made = run_suite(suite, ToyBackend(), digits, tmp_path)
    head, rule, *lines = markdown(made).split("\n\n")[0].splitlines()
    assert {line.count("|") for line in (head, rule, *lines)} == {15}
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [line[:3] for line in cells] == [["toy", "published", "digits"], ["toy", "1", "digits"]]
    assert cells[1][4] == percent(made.rows[1].mpo.best) and " ± " in cells[1][4]
    parsed = list(csv.DictReader(StringIO(comma_separated(made))))
    assert [row["bond"] for row in parsed] == ["", "1"]
    assert float(parsed[1]["mpo_best_deviation"]) == made.rows[1].mpo.best.deviation
    assert parsed[0]["paper_mpo"] == ""
    assert "The paper's figures are the best over all evaluations on the test set" in markdown(made)


def test_the_tables_are_there_while_cells_wait(tmp_path, digits, suite):
    with pytest.raises(Killed):
        run_suite(suite, ToyBackend(kill_at=2 * STEPS + 5), digits, tmp_path)
    written = json.loads((tmp_path / "tables.json").read_text())
    assert written["waiting"] == CELLS[2:]
    assert (written["rows"][0]["mpo"]["seeds"], written["rows"][1]["mpo"]["best"]) == (1, None)
    assert f"Not finished: {', '.join(CELLS[2:])}." in (tmp_path / "tables.md").read_text()


def test_the_figures_of_the_paper_stand_beside_ours(tmp_path):
    images = {"mnist": 60_000, "cifar10": 50_000}
    text = markdown(report(plan(("fc2:4", "resnet56-unit"), backend="toy", images=images), tmp_path))
    assert "| 98.35 ± 0.20 | 97.80 ± 0.34 | 0.0087 | PRR 2, 023300 (2020), Fig. 2 |" in text
    assert "| 94.33 ± 0.49 | the same accuracy | - |" in text


# ---------------------------------------------------------------- the command


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The command line on a backend of our own; gives its exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments, backend=None):
        for module in (COMMAND, run_command):
            monkeypatch.setattr(module, "load", lambda _: backend or ToyBackend())
        outcome = CliRunner().invoke(mponet, arguments, prog_name="mponet")
        return outcome.exit_code, outcome.stdout, outcome.stderr

    return call


OPTIONS = ("suite", "--backend", "numpy", "--models", "toy,toy:1", "--data", "digits", "--steps", "60", "--seeds", "2")


def test_the_command_prints_the_table_and_a_line_per_cell(command):
    status, out, err = command(*OPTIONS, "--out", "here")
    assert status == 0
    assert "toy D=1" in out and " ± " in out and "runs and tables: here" in out
    lines = err.splitlines()
    assert [sum(line.startswith(f"{name}: test accuracy best") for line in lines) for name in CELLS] == [1] * len(CELLS)
    assert "3/6 toy-mpo-D1-seed0: starts; 60 steps" in err
    assert Path("here/tables.md").exists()
    assert "goes on" not in command(*OPTIONS, "--out", "here")[2]


def test_a_run_of_the_other_command_is_a_cell_and_a_cell_is_a_run(command):
    run_options = ("--backend", "numpy", "--data", "digits", "--steps", "60", "--out", "here/toy-mpo-D1-seed0")
    assert command("run", "toy", "--variant", "mpo", "--bond", "1", *run_options)[0] == 0
    backend = ToyBackend()
    assert command(*OPTIONS, "--out", "here", backend=backend)[0] == 0
    assert backend.steps == (len(CELLS) - 1) * STEPS
    again = ToyBackend()
    cell = ("--seed", "1", *run_options[:-1], "here/toy-dense-seed1", "--resume")
    assert command("run", "toy", "--variant", "dense", *cell, backend=again)[0] == 0
    assert again.steps == 0


def test_json_is_one_object_of_what_tables_json_holds(command):
    status, out, _ = command(*OPTIONS, "--out", "here", "--json")
    assert status == 0
    assert json.loads(out) == json.loads(Path("here/tables.json").read_text()) | {"folder": "here"}


def test_failures_are_told_at_the_end_with_exit_status_1(command):
    status, out, err = command(*OPTIONS, "--out", "here", backend=Breaking())
    assert status == 1 and "toy D=1" in out
    assert err.splitlines()[-1] == "error: toy-mpo-D1-seed1: ZeroDivisionError: no such operator"
    status, _, err = command(*OPTIONS, "--out", "there", backend=ToyBackend(nan_at=5))
    assert status == 1
    assert err.splitlines()[-1].startswith("error: toy-dense-seed0: training diverged")
    assert "toy-dense-seed0: diverged after" in err


def test_the_status_of_a_folder(command):
    command(*OPTIONS, "--out", "here", backend=Breaking())
    status, out, _ = command("suite", "--status", "here")
    assert status == 0
    assert "4 of 6 cells are finished" in out and "toy-mpo-D1-seed0 failed: ZeroDivisionError" in out
    status, out, _ = command("suite", "--status", "here", "--json")
    told = json.loads(out)
    assert status == 0
    assert [cell["name"] for cell in told["cells"]] == CELLS
    assert [cell["state"] for cell in told["cells"][:3]] == ["done", "done", "failed"]
    assert told["left"] is None  # nobody knows how long bond 1 takes


def test_stopping_by_hand_says_how_to_go_on(command):
    class Stopped(ToyBackend):
        def build(self, *_, **__):
            raise KeyboardInterrupt

    status, _, err = command(*OPTIONS, "--out", "here", backend=Stopped())
    assert status == 130
    assert "the same command goes on" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--models", "toyy"), "model is 'toyy'"),
        (("--models", "toy:x"), "bond of 'toy:x'"),
        (("--models", ","), "models is empty"),
        (("--models", "toy", "--data", "x"), "unknown data set 'x'"),
        (("--models", "toy", "--data", "digits", "--preset", "x"), "preset is 'x'"),
        (("--models", "toy", "--data", "digits", "--epochs", "1", "--steps", "1"), "expected one of them"),
        (("--status", "."), "holds no suite.json; expected the folder of a suite"),
        (("--status", "nowhere"), "nowhere holds no suite.json"),
    ],
)
def test_a_wrong_option_is_one_line(command, arguments, message):
    backend = () if "--status" in arguments else ("--backend", "numpy")
    status, out, err = command("suite", *arguments, *backend)
    assert (status, out) == (1, "")
    assert err.count("\n") == 1 and err.startswith("error: ") and message in err
