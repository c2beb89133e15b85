"""Several workers on one suite: claims, takeovers, and the tables of one process in the end."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from threading import Event, Thread

import pytest

from core.suites import CELLS, OPTIONS, STEPS, Breaking, make, tables
from core.toy import ToyBackend
from mponet.errors import InUseError, RecipeError
from mponet.files import claim
from mponet.files.lock import locked
from mponet.training import suite as suites
from mponet.training.suite import run_suite, work
from mponet.training.suite.folder import LOCK
from mponet.training.suite.settings import swept


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def watch():
    return claim.Watch()


def test_a_folder_has_one_owner_and_is_free_afterwards(tmp_path, watch):
    with claim.claimed(tmp_path, watch) as mine, claim.claimed(tmp_path, claim.Watch()) as theirs:
        assert mine is not None and theirs is None
        assert claim.is_claimed(tmp_path)
    assert names(tmp_path) == [] and not claim.is_claimed(tmp_path)
    with claim.claimed(tmp_path, watch) as again:
        assert again is not None


@pytest.mark.parametrize("content", [b"", b"{", b'{"machine": "another", "host": "h", "process": 1}'])
def test_the_claim_of_another_machine_is_stale_when_it_is_not_touched(tmp_path, monkeypatch, content):
    clock = [1000.0]
    monkeypatch.setattr(claim, "monotonic", lambda: clock[0])
    watch = claim.Watch(stale=60)
    path = tmp_path / "claim-3"
    path.write_bytes(content)

    def free():
        with claim.claimed(tmp_path, watch) as mine:
            return mine is not None

    assert not free()
    clock[0] += 59
    assert not free()
    os.utime(path, ns=(1, 1))  # a touch; the time that it says does not matter
    clock[0] += 59
    assert not free()
    clock[0] += 59
    assert not free()
    clock[0] += 2
    assert free() and names(tmp_path) == []


def test_of_many_that_find_a_stale_claim_one_takes_it_over(tmp_path):
    (tmp_path / "claim-1").write_bytes(b"")
    owners, ready = [], Event()

    def take():
        ready.wait()
        with claim.claimed(tmp_path, claim.Watch(stale=0)) as mine:
            if mine is not None:
                owners.append([name for name in names(tmp_path) if not name.startswith(".")])
                time.sleep(0.5)

    threads = [Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    ready.set()
    for thread in threads:
        thread.join()
    assert owners == [["claim-1", "claim-2"]] and names(tmp_path) == []


def test_an_interruption_at_any_line_of_a_claim_leaves_none(tmp_path):
    def interrupted_at(line):
        """Whether entering a claim was interrupted at the given line that it runs."""
        seen, entered = [], []

        def trace(frame, event, _):
            if frame.f_code.co_filename != claim.__file__:
                return None
            if event == "line" and not entered:
                seen.append(frame.f_lineno)
                if len(seen) == line:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with claim.claimed(tmp_path / f"cell-{line}", claim.Watch()):
                entered.append(True)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    line = 1
    while interrupted_at(line):
        assert not list(tmp_path.glob("*/claim-*"))
        line += 1
    assert line > 20


def test_an_owner_learns_that_its_claim_was_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "HEARTBEAT", 0.02)
    with claim.claimed(tmp_path, claim.Watch()) as lost:
        touched = (tmp_path / "claim-1").stat().st_mtime_ns
        time.sleep(0.2)
        assert (tmp_path / "claim-1").stat().st_mtime_ns > touched and not lost.is_set()
        (tmp_path / "claim-2").write_bytes(b"")
        assert lost.wait(5)
    assert names(tmp_path) == ["claim-2"]


def test_a_worker_does_what_a_single_process_does(tmp_path, digits):
    run_suite(make(), ToyBackend(), digits, tmp_path / "one")
    backend = ToyBackend()
    made = work(make(), backend, digits, tmp_path / "two")
    assert made.ok and backend.steps == len(CELLS) * STEPS
    assert tables(tmp_path / "one") == tables(tmp_path / "two")
    assert names(tmp_path / "two") == sorted([*CELLS, "suite.json", *tables(tmp_path / "two")])


def test_a_claim_that_a_killed_worker_left_on_a_finished_cell_is_removed(tmp_path, digits):
    work(make(), ToyBackend(), digits, tmp_path)
    left = tmp_path / CELLS[0] / "claim-1"
    left.write_text(json.dumps({"machine": claim._machine(), "host": "here", "process": 1}))
    living = tmp_path / CELLS[1]
    with claim.claimed(living, claim.Watch()):
        work(make(), ToyBackend(), digits, tmp_path)
        assert not left.exists() and (living / "claim-1").exists()


def test_a_worker_leaves_cells_of_living_workers_alone(tmp_path, digits):
    taken = tmp_path / CELLS[0]
    with claim.claimed(taken, claim.Watch()):
        made = work(make(), ToyBackend(), digits, tmp_path, wait=False)
    assert made.waiting == (CELLS[0],)
    assert work(make(), ToyBackend(), digits, tmp_path).ok


def test_a_worker_that_loses_its_claim_leaves_the_cell_to_the_other(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(claim, "HEARTBEAT", 0.01)
    cell, backend = tmp_path / CELLS[0], ToyBackend()

    class Slow:
        def watching(self, training, number, count):
            from contextlib import nullcontext

            class Reporter:
                def started(self, *_):
                    if str(training) == CELLS[0]:
                        (cell / "claim-2").write_bytes(b"")
                        time.sleep(0.5)

                def advanced(self, _):
                    pass

                def finished(self, *_):
                    pass

            return nullcontext(Reporter())

        def finished(self, training, _):
            done.append(str(training))

        def failed(self, training, message):
            raise AssertionError(message)

    done = []
    made = work(make(), backend, digits, tmp_path, observer=Slow(), wait=False)
    assert made.waiting == (CELLS[0],) and CELLS[0] not in done and len(done) == len(CELLS) - 1


def test_a_cell_that_fails_is_tried_once_and_again_by_a_later_worker(tmp_path, digits):
    suite, backend = make(), Breaking()
    made = work(suite, backend, digits, tmp_path)
    assert set(made.failed) == {name for name in CELLS if "D1" in name} and backend.steps == 4 * STEPS
    assert work(suite, ToyBackend(), digits, tmp_path).ok


def test_workers_and_a_single_process_keep_each_other_out(tmp_path, digits):
    with locked(tmp_path, LOCK), pytest.raises(InUseError, match="in use"):
        work(make(), ToyBackend(), digits, tmp_path)
    with locked(tmp_path, LOCK, shared=True), pytest.raises(InUseError, match="in use"):
        run_suite(make(), ToyBackend(), digits, tmp_path)
    with locked(tmp_path, LOCK, shared=True), locked(tmp_path, LOCK, shared=True):
        pass
    assert names(tmp_path) == []


def test_workers_of_another_suite_are_refused(tmp_path, digits):
    work(make(), ToyBackend(), digits, tmp_path)
    with pytest.raises(RecipeError, match="seeds is 3, was 2"):
        work(make(seeds=3), ToyBackend(), digits, tmp_path)


# ---------------------------------------------------------------- processes

#: A worker on the toy network, whose steps take a while so that it can be killed in the middle.
SCRIPT = """
import sys, time
from dataclasses import replace
from importlib import import_module
from core.toy import FAMILY, RECIPE, ToyBackend, ToyTrainer
from mponet.models import FAMILIES
from mponet.recipe import PRESETS
from mponet.cli import main

class Trainer(ToyTrainer):
    def step(self, *arguments, **named):
        time.sleep(0.002)
        return super().step(*arguments, **named)

class Backend(ToyBackend):
    def trainer(self, native, recipe, group=None):
        return Trainer(self, native, recipe)

FAMILIES["toy"], PRESETS["toy"] = FAMILY, {"short": replace(RECIPE, evaluate_every=20)}
import_module("mponet.cli.engines").load = lambda _: Backend()
main()
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def started(folder, *options):
    command = [sys.executable, "-c", SCRIPT, *OPTIONS, "--seeds", "4", "--out", str(folder), *options]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def owner(path, workers):
    """The number of the worker that made a claim; None if the claim is gone."""
    try:
        process = json.loads(path.read_text())["process"]
    except FileNotFoundError:
        return None
    return next((number for number, worker in enumerate(workers) if worker.pid == process), None)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_three_workers_with_random_kills_give_the_tables_of_one_process(tmp_path):
    assert started(tmp_path / "one").wait(120) == 0
    folder, rng, killed = tmp_path / "many", random.Random(0), set()
    workers = [started(folder, "--worker") for _ in range(3)]
    deadline = time.monotonic() + 240
    while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.002)
        for path in set(folder.glob("*/claim-*")) - killed:
            number = owner(path, workers)
            if number is not None and len(killed) < 5:
                time.sleep(rng.uniform(0.0, 0.2))
                workers[number].kill()
                workers[number].wait()
                workers[number] = started(folder, "--worker")
                killed.add(path)
    assert [worker.wait(60) for worker in workers] == [0, 0, 0] and len(killed) >= 3
    assert tables(tmp_path / "one") == tables(folder)
    assert not [path for path in folder.rglob("*") if path.name.startswith((".mponet", "claim", "suite.lock"))]


def test_an_interrupted_worker_ends_with_130_and_lets_its_cell_go(tmp_path):
    worker = started(tmp_path, "--worker")
    while not list(tmp_path.glob("*/claim-1")):
        time.sleep(0.05)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(60) == 130
    assert not list(tmp_path.glob("*/claim-*"))


# ---------------------------------------------------------------- sweeps


def test_a_sweep_is_every_combination_in_names_folders_and_table(tmp_path, digits):
    entries = swept(["toy"], ["bond=1,2", "rate=0.05,0.2"])
    suite = make(entries, seeds=1)
    assert [str(network) for network in suite.networks] == ["toy:1@0.05", "toy:1@0.2", "toy:2@0.05", "toy:2@0.2"]
    made = run_suite(suite, ToyBackend(), digits, tmp_path)
    assert [(row.bond, row.rate) for row in made.rows] == [(1, 0.05), (1, 0.2), (2, 0.05), (2, 0.2)]
    assert {row.normal.last.mean for row in made.rows} == {row.normal.last.mean for row in made.rows[:2]}
    rates = {t.settings.recipe.learning_rate for t in suite.trainings()}
    assert rates == {0.05, 0.2} and (tmp_path / "toy-mpo-D2-rate0.2-seed0").is_dir()
    assert suites.read(tmp_path) == suite
    heading = (tmp_path / "tables.md").read_text().splitlines()[0]
    assert "| bond | rate |" in heading and (tmp_path / "tables.csv").read_text().count("0.05") == 2


@pytest.mark.parametrize("axes", [["seed=1"], ["bond"], ["bond=1", "bond=2"], ["rate= ,"]])
def test_a_sweep_of_something_else_is_refused(axes):
    with pytest.raises(RecipeError, match="expected bond="):
        swept(["toy"], axes)


@pytest.mark.parametrize("rate", ["0", "-1", "x", "nan", "inf", "1e400", ""])
def test_a_rate_that_is_no_positive_number_is_refused(rate):
    with pytest.raises(RecipeError, match="rate of"):
        make([f"toy@{rate}"])
