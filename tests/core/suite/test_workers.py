"""Several workers on one suite: claims, takeovers, and the tables of one process in the end."""

import os
import time
from threading import Event, Thread

import pytest

from core.suites import CELLS, STEPS, Breaking, make, tables
from core.toy import ToyBackend
from mponet.errors import InUseError, RecipeError
from mponet.training.lock import locked
from mponet.training.suite import claim, run_suite, work
from mponet.training.suite.folder import LOCK


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
                owners.append(names(tmp_path))
                time.sleep(0.5)

    threads = [Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    ready.set()
    for thread in threads:
        thread.join()
    assert owners == [["claim-1", "claim-2"]] and names(tmp_path) == []


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
