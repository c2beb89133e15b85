"""Commands in processes of their own: a run is killed, resumed, and used by other frameworks."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mponet.backend import TRAINABLE
from mponet.training import checkpoint

ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def command(*arguments):
    return [sys.executable, "-m", "mponet", *map(str, arguments), "--json"]


def told(*arguments):
    """What a command prints, which must be one JSON object."""
    done = subprocess.run(command(*arguments), env=ENV, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def parameters(folder):
    return checkpoint.load(folder / "mpo" / checkpoint.NAME).parameters


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_run_killed_in_the_middle_resumes_to_the_same_numbers(tmp_path, name):
    arguments = ("run", "fc2", "--variant", "mpo", "--backend", name, "--steps", 300, "--out")
    process = subprocess.Popen(command(*arguments, tmp_path / "killed"), env=ENV, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / "killed" / "mpo" / checkpoint.NAME).exists():
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    at = checkpoint.load(tmp_path / "killed" / "mpo" / checkpoint.NAME).step
    assert 0 < at < 300
    whole = told(*arguments, tmp_path / "whole")["variants"]["mpo"]
    resumed = told(*arguments, tmp_path / "killed", "--resume")["variants"]["mpo"]
    clock = {"seconds": 0, "step_ms": 0, "checkpoint": 0}
    assert {**resumed, **clock} == {**whole, **clock}
    here, there = parameters(tmp_path / "whole"), parameters(tmp_path / "killed")
    assert all(np.array_equal(here[key], there[key]) for key in here)


def test_a_checkpoint_serves_every_framework(tmp_path):
    """One backend begins, another goes on, a third measures."""
    first, second, third = TRAINABLE
    arguments = ("run", "lenet5", "--variant", "mpo", "--steps", 150, "--out", tmp_path)
    process = subprocess.Popen(command(*arguments, "--backend", first), env=ENV, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / "mpo" / checkpoint.NAME).exists():
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    result = told(*arguments, "--backend", second, "--resume")["variants"]["mpo"]
    measured = told("evaluate", tmp_path, "--backend", third)["checkpoints"]
    assert [row["accuracy"] for row in measured] == pytest.approx([result["accuracy"]], abs=1 / 360)  # a tie at most
    starts = json.loads((tmp_path / "config.json").read_text())["starts"]
    assert [start["backend"] for start in starts] == [first, second]
