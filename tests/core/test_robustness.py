"""Faults that are injected: damaged files, odd folders, kills, two owners, broken watchers, Ctrl-C.

Seconds here; ``benchmarks/robustness.py`` does the same by the hundred thousand, and
``MPONET_FUZZ=1000 pytest`` a thousand mutations at each door.
"""

import logging
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from core.faults import arguments, crash, doors, folders, toys
from core.suites import tables
from core.toy import FAMILY, ToyBackend
from mponet.errors import CheckpointError, MPONetError
from mponet.models import FAMILIES
from mponet.recipe import PRESETS
from mponet.report import report
from mponet.report.experiments import experiments
from mponet.report.sources import find
from mponet.training import checkpoint
from mponet.training.data import load
from mponet.training.run import Settings, metrics, run
from mponet.training.suite import read, run_suite, states

FUZZ = int(os.environ.get("MPONET_FUZZ", "40"))
NAMES = (
    *("config", "result", "metrics", "spectra", "suite", "failed", "folder", "crosscheck", "bench", "tuning"),
    "checkpoint",
)


@pytest.fixture(autouse=True)
def _a_toy_network(monkeypatch):
    monkeypatch.setitem(FAMILIES, "toy", FAMILY)
    monkeypatch.setitem(PRESETS, "toy", {"short": toys.SHORT, "paper": toys.SHORT})


@pytest.fixture(scope="module")
def all_doors(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPONET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield {door.name: door for door in doors.doors(tmp_path_factory.mktemp("doors"))}


# ---------------------------------------------------------------- files that lie


@pytest.mark.parametrize("name", NAMES)
def test_a_mutated_document_is_read_or_refused_in_one_line(all_doors, name):
    assert set(all_doors) == set(NAMES)
    counts = doors.fuzz(all_doors[name], FUZZ, random.Random(name))
    assert counts.faults == () and counts.documents == FUZZ


@pytest.mark.parametrize("name", NAMES)
def test_every_door_takes_what_mponet_writes(all_doors, name):
    all_doors[name].read()


@pytest.mark.parametrize("kind", folders.KINDS)
def test_whatever_stands_in_place_of_a_file_is_a_line_at_once(tmp_path, kind):
    for number, target in enumerate(folders.targets(tmp_path)):
        folders.replaced(target, kind)
        if number % 3 == 2 or target.name == "check.json":
            began = time.monotonic()
            for call in (
                lambda: experiments(find(tmp_path)),
                lambda: states(read(tmp_path / "suite"), tmp_path / "suite"),
            ):
                try:
                    call()
                except MPONetError as error:
                    assert "\n" not in str(error)
            assert time.monotonic() - began < 5


def test_a_report_leaves_out_what_is_not_ours_and_names_it(tmp_path, caplog):
    folders.targets(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"architectures": ["GPT2"]}')
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_bytes((tmp_path / "run" / "config.json").read_bytes())
    (tmp_path / "suite" / "suite.json").write_text("{")
    (tmp_path / "check.json").write_text('{"reports": [{"comparisons": [{"quantity": 1}]}]}')
    page = report(tmp_path)
    assert "Left out" in page and "4 runs" in page  # those of the damaged suite count as runs
    for name in ("model: config.json", "begun: has not begun", "suite: suite.json", "check.json cannot be used"):
        assert name in page and name in caplog.text


def test_a_run_that_has_not_begun_is_said_to_be_one(tmp_path):
    folders.targets(tmp_path / "all")
    (tmp_path / "config.json").write_bytes((tmp_path / "all" / "run" / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="no training that has begun"):
        report(tmp_path)


def test_numbers_at_the_edges_are_drawn_or_left_out(tmp_path):
    folders.extreme(tmp_path, random.Random(3))
    assert "<svg" in report(tmp_path)


def test_a_large_checkpoint_of_wrong_names_is_refused_by_its_header(tmp_path, monkeypatch):
    toys.run_in(tmp_path)()
    path = tmp_path / "dense" / checkpoint.NAME
    payload = path.read_bytes()
    size = int.from_bytes(payload[:8], "little")
    header = (
        payload[8 : 8 + size]
        .replace(b'{"parameters/fc1/bias"', b'{"parameters/fc1/biaz"')
        .replace(b',"parameters/fc1/bias"', b',"parameters/fc1/biaz"')
    )
    assert header != payload[8 : 8 + size]
    path.write_bytes(payload[:8] + header + payload[8 + size :])

    def unread(*_):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(checkpoint, "_check_numbers", unread)
    with pytest.raises(CheckpointError, match="biaz"):
        checkpoint.load(path)


def test_equal_checkpoints_are_equal_files(tmp_path):
    for name in ("a", "b"):
        toys.run_in(tmp_path / name)()
    assert crash.content(tmp_path / "a") == crash.content(tmp_path / "b")


def test_metrics_whose_steps_do_not_rise_are_refused(tmp_path):
    toys.run_in(tmp_path)()
    path = tmp_path / "dense" / metrics.NAME
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(CheckpointError, match=r"line 3 .*step is 20 after step 40"):
        metrics.read(path)


@pytest.mark.parametrize("seed", range(2))
def test_odd_arguments_are_refused_in_words(tmp_path, seed):
    counts = arguments.fuzz(FUZZ, random.Random(seed), tmp_path)
    assert counts.faults == ()


# ---------------------------------------------------------------- kills and owners


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills are of forks")
@pytest.mark.parametrize(("make", "stride"), [(toys.run_in, 9), (toys.suite_in, 17)])
def test_a_kill_at_a_file_operation_changes_nothing_in_the_end(tmp_path, make, stride):
    crash.finished(make(tmp_path / "whole"))
    whole = crash.content(tmp_path / "whole")
    points = crash.count_points(make(tmp_path / "count"), tmp_path / "count")
    for point in range(0, points, stride):
        folder = tmp_path / str(point)
        assert crash.killed_at(make(folder), folder, point), point
        crash.finished(make(folder))
        assert crash.content(folder) == whole, point


@pytest.mark.skipif(not hasattr(os, "fork"), reason="owners are forks")
@pytest.mark.parametrize("make", [toys.run_in, toys.suite_in])
def test_two_who_start_together_leave_the_files_of_one(tmp_path, make):
    crash.finished(make(tmp_path / "whole"))
    for number in range(3):
        assert crash.together(make(tmp_path / str(number)), 2) == [0, 0]
        assert crash.content(tmp_path / str(number)) == crash.content(tmp_path / "whole")


# ---------------------------------------------------------------- watchers


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
    def trainer(self, native, recipe):
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


# ---------------------------------------------------------------- Ctrl-C


SLOW_IMPORTS = """
import sys, time

class Slow:
    def find_spec(self, name, *others):
        if name.startswith("mponet."):
            time.sleep(0.05)

sys.meta_path.insert(0, Slow())
from mponet_command import main
print("here", flush=True)
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
