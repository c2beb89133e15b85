"""Watchers that fail and Ctrl-C: the training goes on, or ends with one line."""

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from core.faults import toys
from core.suites import tables
from core.toy import ToyBackend
from mponet.training import checkpoint
from mponet.training.data import load
from mponet.training.run import Settings, run
from mponet.training.suite import read, run_suite

pytestmark = pytest.mark.usefixtures("toy_runs")


class Broken:
    """A reporter that fails in one method, as a narrow terminal or a closed pipe would make it."""

    def __init__(self, method, error):
        self.method, self.error, self.calls = method, error, 0

    def __getattr__(self, name):
        def call(*_):
            self.calls += 1
            if name == self.method:
                raise self.error

        return call


@pytest.mark.parametrize("method", ["started", "advanced", "finished"])
@pytest.mark.parametrize("error", [IndexError("list index out of range"), BrokenPipeError(), SystemExit(1)])
def test_a_watcher_that_fails_is_said_once_and_stops_nothing(tmp_path, caplog, method, error):
    reporter = Broken(method, error)
    settings = Settings("toy", None, "digits", toys.SHORT, 0)
    with caplog.at_level(logging.WARNING):
        results = run(settings, ToyBackend(), load("digits"), tmp_path, reporter=reporter)
    assert all(result.steps == 40 for result in results.values())
    assert len(caplog.messages) == 1 and "the work continues without it" in caplog.text


class BrokenObserver:
    """An observer of a suite whose every method fails."""

    @contextmanager
    def watching(self, *_):
        yield Broken("advanced", ValueError("no room"))
        raise OSError("the terminal is gone")

    def finished(self, *_):
        raise OSError("the terminal is gone")

    failed = finished


def test_an_observer_that_fails_is_said_once_and_stops_no_suite(tmp_path, caplog):
    toys.suite_in(tmp_path / "whole")()
    suite = read(tmp_path / "whole")
    assert run_suite(suite, ToyBackend(), {"digits": load("digits")}, tmp_path / "own", observer=BrokenObserver()).ok
    assert tables(tmp_path / "own") == tables(tmp_path / "whole")
    assert len(caplog.messages) == 1


SCRIPT = """
import sys, time
import numpy as np
from core.faults import toys
from core.toy import ToyBackend, ToyTrainer
import mponet.cli.run, mponet.training.data
from mponet.training.data import Dataset

class Trainer(ToyTrainer):
    def step(self, *arguments, **named):
        time.sleep(pause)
        return super().step(*arguments, **named)

class Backend(ToyBackend):
    def trainer(self, native, recipe, group=None):
        print("training", flush=True)
        return Trainer(self, native, recipe)

toys.known()
pause = float(sys.argv[1])
images, labels = np.zeros((200, 8, 8, 1), np.uint8), np.arange(200) % 10
mponet.training.data.load = lambda name: Dataset("digits", images, labels, images, labels, tuple("0123456789"), "zeros")
mponet.cli.run.load = lambda _: Backend()
from mponet.cli import main
sys.argv[1:] = ["run", "toy", "--backend", "numpy", *sys.argv[2:]]
main()
"""


def started(program, *arguments, env=(), **options):
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), **dict(env)}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], env=paths, stdout=subprocess.PIPE, text=True, **options
    )


def closed_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("how", ["closed pipe", "full disk", "no descriptor", "twenty columns"])
def test_training_goes_on_whatever_standard_error_is(tmp_path, how):
    variables = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "20", "LINES": "30"} if how == "twenty columns" else {}
    sink = (
        closed_pipe()
        if how == "closed pipe"
        else os.open("/dev/full" if how == "full disk" else os.devnull, os.O_WRONLY)
    )
    closing = (lambda: os.close(2)) if how == "no descriptor" else None
    process = started(SCRIPT, "0", "--out", str(tmp_path / "run"), env=variables, stderr=sink, preexec_fn=closing)
    os.close(sink)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "checkpoints, metrics and results" in out
    assert checkpoint.load(tmp_path / "run" / "mpo" / checkpoint.NAME).step == 40


SLOW_IMPORTS = """
import sys, time

class Slow:
    def find_spec(self, name, *others):
        if name.startswith("mponet."):
            time.sleep(0.05)

sys.meta_path.insert(0, Slow())
import signal
from mponet_command import main
answer = signal.signal
def told(*arguments):
    answer(*arguments)
    print("here", flush=True)
    signal.signal = answer
signal.signal = told
main()
"""


@pytest.mark.parametrize("delay", [0.01, 0.1, 0.3, 1.0])
def test_ctrl_c_while_the_command_loads_ends_with_130_and_one_line(delay):
    process = started(SLOW_IMPORTS, "info", stderr=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n")


def test_ctrl_c_in_a_training_says_how_to_continue(tmp_path):
    process = started(SCRIPT, "0.05", "--out", str(tmp_path / "run"), stderr=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("stopped; ") and "Traceback" not in err
    process = started(SCRIPT, "0", "--resume", "--out", str(tmp_path / "run"), stderr=subprocess.DEVNULL)
    process.communicate(timeout=60)
    assert process.returncode == 0
