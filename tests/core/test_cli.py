"""The `mponet` command as people and programs use it.  Needs click and rich, and no framework."""

import json
import os
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest

import mponet
from core.command import facts, failing, run
from mponet import backend, cli
from mponet.cli.group import COMMANDS
from mponet.crosscheck import Comparison, Report
from mponet.errors import BackendError, MPONetError
from mponet.models import spellings

#: The module; its command has the same name.
CHECK = import_module("mponet.cli.crosscheck")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("MPONET_BACKEND", "MPONET_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def only(monkeypatch):
    """Pretend that only these import names are installed."""
    return lambda *names: monkeypatch.setattr(backend, "find_spec", lambda name: object() if name in names else None)


def in_a_shell(*arguments, python=(), **variables):
    """The command in a process of its own, as ``python -m mponet``."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.run(
        [sys.executable, *python, "-m", "mponet", *arguments],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **variables},
        timeout=120,
    )


# ---------------------------------------------------------------- the frame


def test_help_lists_every_command_run_first():
    text = run("--help").stdout
    places = [text.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)
    assert next(iter(COMMANDS)) == "run"
    assert "Examples:" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_teaches_by_example_and_speaks_json(name):
    text = run(name, "--help").stdout
    assert " ".join(text.split()).count(COMMANDS[name]) == 1  # the line in the list is the first of its own help
    assert 2 <= text.count(f"\n    mponet {name}") + text.count(f" mponet {name} --json\n") <= 5
    assert "--json" in text


def test_version():
    assert run("--version").stdout == f"mponet, version {mponet.__version__}\n"


def test_help_loads_no_command():
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; sys.argv = ['mponet', '--help']\n"
        "from mponet.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(*(name for name in sys.modules if name.startswith('mponet.cli.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines()[-1].split() == ["mponet.cli.output", "mponet.cli.group"]


def test_it_runs_as_a_module():
    done = in_a_shell("--version")
    assert (done.returncode, done.stdout) == (0, f"mponet, version {mponet.__version__}\n")


def test_an_error_in_a_shell_is_one_line_and_status_1():
    done = in_a_shell("info", "nope")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: model is 'nope'; expected one of {spellings()}\n"


def test_a_terminal_without_box_characters_gets_the_words():
    done = in_a_shell("draw", "fc2", PYTHONIOENCODING="latin-1")
    assert done.returncode == 0
    assert "core1 ?? 16 ?? core2" in done.stdout
    done = in_a_shell("draw", "fc2", "--json", PYTHONIOENCODING="latin-1")
    assert "├─ 16 ─┤" in json.loads(done.stdout)["text"]


def test_a_traceback_only_when_asked_for():
    done = in_a_shell("info", "nope", MPONET_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_an_error_is_red_on_a_terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    failed = run("info", "nope", FORCE_COLOR="1")
    assert failed.stderr.startswith("\x1b[31merror: model is 'nope'")


@pytest.mark.parametrize("arguments", [["nope"], ["draw"], ["info", "fc2", "--bond", "x"], ["info", "fc2", "--nope"]])
def test_usage_errors_are_status_2(arguments):
    assert run(*arguments).exit_code == 2


def test_without_click_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "click" else object())
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == "error: the mponet command needs click; pip install 'mponet[experiments]'"


def test_nothing_outside_the_command_needs_click():
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; sys.modules['click'] = sys.modules['rich'] = None\n"
        "import mponet.crosscheck, mponet.draw, mponet.models, mponet.cli"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("command", ["info", "draw"])
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["resnet20", "--k", "2", "--unit"], "resnet20-k2-unit"),
        (["resnet20-unit", "--k", "4"], "resnet20-unit"),
        (["densenet40-12", "--conv"], "densenet40-12-conv"),
        (["resnet20-k4"], "resnet20"),
    ],
)
def test_options_complete_the_name_of_a_network(command, arguments, name):
    found = facts(command, *arguments)
    assert found == facts(command, name)
    assert found["model"] == name


def test_options_complete_the_name_for_every_command_with_one_model():
    assert facts("draw", "resnet14", "--k", "1", "--unit")["model"] == "resnet14-k1-unit"
    for name in ("info", "draw", "run"):
        failing(run(name, "vgg16", "--unit"), "unit is given for vgg16; expected a network of the resnet family")
        failing(run(name, "fc2", "--k", "2"), "k is given for fc2")
        failing(run(name, "resnet20", "--conv"), "conv is given for resnet20", "densenet family")
        failing(run(name, "resnet20-k2", "--k", "3"), "k is 3 for resnet20-k2; expected 2")


@pytest.mark.parametrize("name", ["info", "draw", "crosscheck"])
def test_what_people_get_wrong(name):
    failing(run(name, "resnet"), "model is 'resnet'; expected one of fc2", "lenet5", "resnet<6n+2>")
    failing(run(name, "resnet21"), "resnet21 has depth 21", "6n + 2")
    failing(run(name, "densenet40-24-conv"), "expected densenet40-12-conv")
    failing(run(name, "fc2", "--bond", "0"), "bond is 0; expected", "at least 1")
    failing(run(name, "fc2", "--variant", "dense", "--bond", "4"), "bond is 4 for the dense variant")


# ---------------------------------------------------------------- draw


def test_draw_prints_the_diagram():
    text = run("draw", "fc2").stdout
    assert "│ core1 ├─ 16 ─┤ core2 ├" in text


def test_draw_gives_programs_every_site():
    found = facts("draw", "lenet5", "--bond", "3")
    assert found["operators"]["fc2"][0] == {"name": "core1", "output_dim": 1, "input_dim": 2, "bond_dim": 2}
    assert found["operators"]["fc2"][-1]["bond_dim"] is None
    assert found["text"] == run("draw", "lenet5", "--bond", "3").stdout.rstrip("\n")


def test_draw_gives_programs_the_operators_inside_blocks():
    found = facts("draw", "resnet14", "--unit")["operators"]
    assert list(found) == ["group3_block2_conv1", "group3_block2_conv2", "fc"]
    assert len(found["group3_block2_conv1"]) == 8


# ---------------------------------------------------------------- backends


def test_backends_without_any_framework(only):
    only("numpy")
    found = facts("backends")
    assert found["active"] is None
    assert "no framework is installed" in found["why"]
    rows = {row["name"]: row for row in found["backends"]}
    assert rows["numpy"]["installed"]
    assert rows["jax"]["missing"] == ["jax", "flax", "optax"]
    assert rows["jax"]["install"] == "pip install 'mponet[jax]'"
    text = run("backends").stdout
    assert "None is in use: no framework is installed" in text
    assert "pip install 'mponet[tensorflow]'" in text


def test_backends_shows_which_is_active_and_why(only):
    only("numpy", "torch", "jax", "flax", "optax")
    assert facts("backends")["active"] == "torch"
    found = facts("backends", MPONET_BACKEND=" 'flax' ")
    assert (found["active"], found["why"], found["value"]) == ("jax", "MPONET_BACKEND=flax", " 'flax' ")
    assert "In use: jax (MPONET_BACKEND=flax)" in run("backends", MPONET_BACKEND="flax").stdout


def test_backends_shows_a_choice_that_cannot_be_had(only):
    only("numpy", "torch")
    assert "not installed" in facts("backends", MPONET_BACKEND="tf")["why"]
    found = facts("backends", MPONET_BACKEND="theano")
    assert found["active"] is None
    assert "'theano'" in found["why"]


def test_versions_start_no_framework():
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from mponet.cli.backends import describe\n"
        "rows = describe()['backends']\n"
        "assert all(set(row['versions']) for row in rows if row['installed']), rows\n"
        "assert not {'torch', 'jax', 'tensorflow', 'keras', 'flax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_devices_are_asked_for_in_processes_of_their_own(only):
    only("numpy")
    rows = {row["name"]: row for row in facts("backends", "--devices")["backends"]}
    assert (rows["numpy"]["devices"], rows["torch"]["devices"]) == (["cpu"], None)
    assert "cpu" in run("backends", "--devices").stdout


def test_a_backend_brought_by_others_is_listed(monkeypatch):
    point = SimpleNamespace(name="mlx", value="mponet_mlx", dist=SimpleNamespace(name="mponet-mlx", version="3"))
    monkeypatch.setattr("mponet.cli.backends.entry_points", lambda group: [point])
    assert facts("backends")["backends"][-1]["versions"] == {"mponet-mlx": "3"}


# ---------------------------------------------------------------- crosscheck


def report(error):
    found = Comparison("gradients", "torch", "jax", error, "fc1/core3", 1e-10)
    return Report("fc2", "mpo", None, "float64", 0, 16, {"torch": {"versions": {}, "device": "cpu"}}, (found,))


@pytest.fixture
def checked(monkeypatch):
    """Replace the cross-check itself: what it was asked, and what it says."""
    asked = SimpleNamespace(error=1e-15)

    def fake(models, **options):
        asked.names = [m.name for m in models]
        asked.variants, asked.bonds, asked.options = [m.variant for m in models], [m.bond for m in models], options
        return (report(asked.error),)

    monkeypatch.setattr(CHECK, "crosschecks", fake)
    monkeypatch.setattr(CHECK, "participants", lambda names: tuple(names or "ab"))
    return asked


def test_crosscheck_within_bounds_is_status_0(checked):
    result = run("crosscheck", "fc2", "--backends", "torch, jax", "--dtype", "float32", "--seed", "3", "--bond", "4")
    assert result.exit_code == 0
    assert "All 1 within bounds" in result.stdout
    assert (checked.variants, checked.bonds) == (["dense", "mpo"], [None, 4])
    assert checked.options["dtype"] == "float32"
    assert checked.options["seed"] == 3


def test_a_broken_bound_is_status_1_and_names_the_worst(checked):
    checked.error = 1e-3
    result = run("crosscheck", "fc2", "--variant", "mpo")
    assert result.exit_code == 1
    assert "fc1/core3" in result.stdout
    assert "1 of 1 beyond their bounds" in result.stdout
    result = run("crosscheck", "fc2", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert not found["ok"]
    assert found["reports"][0]["comparisons"][0]["ok"] is False


def test_crosscheck_without_a_framework_says_what_to_install(only):
    only("numpy")
    failing(run("crosscheck", "fc2"), "no framework to compare", "pip install 'mponet[torch]'")
    failing(run("crosscheck", "fc2", "--backends", "jax"), "jax", "not installed", "pip install 'mponet[jax]'")
    failing(run("crosscheck", "fc2", "--backends", "theano"), "'theano'")


def test_errors_of_ours_are_caught_wherever_they_come_from(monkeypatch, only):
    only("numpy", "torch")

    def broken(*_, **__):
        raise BackendError("backend 'torch' stopped with status 1")

    monkeypatch.setattr(CHECK, "crosschecks", broken)
    failing(run("crosscheck", "fc2"), "backend 'torch' stopped")
    assert issubclass(BackendError, MPONetError)
