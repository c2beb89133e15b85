"""`mponet suite` as a user runs it, on a backend of numpy."""

import json
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

from core.suites import CELLS, OPTIONS, STEPS, Breaking
from core.toy import ToyBackend
from mponet.cli import run as run_command
from mponet.cli.group import mponet

COMMAND = import_module("mponet.cli.engines")


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run the command on a toy backend; gives exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments, backend=None):
        for module in (COMMAND, run_command):
            monkeypatch.setattr(module, "load", lambda _: backend or ToyBackend())
        outcome = CliRunner().invoke(mponet, arguments, prog_name="mponet")
        return outcome.exit_code, outcome.stdout, outcome.stderr

    return call


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
    assert "the same command continues" in err


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
