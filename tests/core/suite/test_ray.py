"""A suite as tasks of Ray: with a stand-in everywhere, with Ray itself where it is installed."""

import os
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from core.suites import CELLS, make, tables
from core.toy import ToyBackend
from mponet.errors import BackendError
from mponet.training import on_ray
from mponet.training.suite import on_ray as cells_on_ray
from mponet.training.suite import run_suite
from mponet.training.suite.folder import claim_folder


class RayError(Exception):
    """What Ray raises if a task's process dies."""


class RayTaskError(RayError):
    """What Ray raises if a task's function raises."""

    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


def stand_in(deaths):
    """The functions of Ray that mponet uses; a task runs when it is asked for.

    Tasks die before they begin as often as ``deaths`` says by name.
    """

    def remote(**options):
        assert options["max_retries"] == 0 and options["num_cpus"] == 2

        def decorate(function):
            return SimpleNamespace(remote=lambda *arguments: (function, arguments, object()))

        return decorate

    def get(task):
        function, arguments, _ = task
        if deaths.get(arguments[0], 0):
            deaths[arguments[0]] -= 1
            raise RayError
        try:
            return function(*arguments)
        except Exception as error:
            raise RayTaskError(error) from error

    return SimpleNamespace(
        is_initialized=lambda: True,
        remote=remote,
        wait=lambda tasks, num_returns: (tasks[:num_returns], tasks[num_returns:]),
        get=get,
        exceptions=SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError),
    )


@pytest.fixture
def ray(monkeypatch, digits):
    deaths = {}
    monkeypatch.setattr(on_ray, "_ray", lambda: stand_in(deaths))
    monkeypatch.setattr(cells_on_ray, "load", lambda _: ToyBackend())
    monkeypatch.setattr(cells_on_ray.data, "load", digits.get)
    return deaths


def train(folder):
    told = []
    claim_folder(folder, make())
    calls = {name: (name, str(folder), None) for name in CELLS}
    on_ray.run_on_ray(cells_on_ray.run_cell, calls, lambda *line: told.append(line), address=None, cpus=2, gpus=0)
    return told


def test_tasks_give_the_cells_of_one_process(tmp_path, digits, ray):
    (tmp_path / "tasks").mkdir()
    told = train(tmp_path / "tasks")
    assert [name for name, _ in told] == CELLS and all(line.startswith("test accuracy best") for _, line in told)
    run_suite(make(), ToyBackend(), digits, tmp_path / "one")
    run_suite(make(), ToyBackend(), digits, tmp_path / "tasks")
    assert tables(tmp_path / "one") == tables(tmp_path / "tasks")


def test_a_task_whose_process_dies_is_submitted_again_a_few_times(tmp_path, ray):
    ray |= {CELLS[0]: 2, CELLS[1]: on_ray.ATTEMPTS}
    told = train(tmp_path)
    assert [line for name, line in told if name == CELLS[0]][:2] == [
        "its process died (RayError); it goes on in another"
    ] * 2
    assert [line for name, line in told if name == CELLS[1]][-1].startswith(f"its process died {on_ray.ATTEMPTS} times")
    assert (tmp_path / CELLS[0] / "result.json").exists() and not (tmp_path / CELLS[1]).exists()


def test_a_task_that_raises_is_told_once_and_the_others_go_on(tmp_path, ray):
    def run(name):
        if name == "b":
            raise ValueError("no\nway")
        return "done"

    told = []
    on_ray.run_on_ray(run, {k: (k,) for k in "abc"}, lambda *line: told.append(line), address=None, cpus=2, gpus=0)
    assert told == [("a", "done"), ("b", "failed: no way"), ("c", "done")]


def test_without_ray_one_line_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendError, match=r"pip install 'mponet\[ray\]'"):
        on_ray.run_on_ray(str, {}, print, address=None, cpus=1, gpus=0)


@pytest.mark.skipif(not (find_spec("ray") and find_spec("torch")), reason="Ray and PyTorch are not both installed")
def test_ray_itself_gives_the_tables_of_one_process(tmp_path):
    common = ("suite", "--backend", "torch", "--models", "fc2:2", "--data", "digits", "--steps", "30", "--seeds", "2")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def call(folder, *options):
        command = [sys.executable, "-m", "mponet", *common, "--out", str(tmp_path / folder), *options]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)

    assert call("one").returncode == 0
    done = call("ray", "--engine", "ray", "--cpus", "1")
    assert done.returncode == 0, done.stderr
    assert tables(tmp_path / "one") == tables(tmp_path / "ray")
    assert done.stderr.count("test accuracy best") == 4
