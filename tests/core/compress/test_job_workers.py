"""Several processes compress one checkpoint to the bytes of one, whichever of them are killed."""

import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np
import pytest
from safetensors.numpy import save_file

from mponet.compress import CompressConfig
from mponet.compress.stream.job import LOCK, PARTS, run_job
from mponet.compress.stream.output import DESCRIPTION
from mponet.compress.stream.worker import Order, work
from mponet.errors import CheckpointError, InUseError
from mponet.files.claim import Watch, claimed
from mponet.files.lock import locked

CONFIG = CompressConfig(keep=0.5, min_weights=1000, structures=("low-rank",))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
OPTIONS = ("--keep", "0.5", "--min-weights", "1000", "--structure", "low-rank")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("dense")
    save_file(
        {f"l{k}.weight": rng.normal(size=(96, 80)).astype(np.float32) for k in range(12)}, folder / "a.safetensors"
    )
    return folder


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    run_job(Order(source, out, CONFIG).open())
    return contents(out)


def started(source, out, *options):
    command = [sys.executable, "-m", "mponet", "compress", str(source), str(out), *OPTIONS, *options]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_worker_gives_the_bytes_of_a_job_and_one_that_is_late_does_nothing(source, whole, tmp_path):
    order = Order(source, tmp_path / "out", CONFIG)
    plan = work(order.open())
    assert contents(tmp_path / "out") == whole
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert work(order.open()) == plan
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


def test_a_late_worker_of_another_order_is_refused(source, tmp_path):
    work(Order(source, tmp_path / "out", CONFIG).open())
    other = CompressConfig(keep=0.3, min_weights=1000, structures=("low-rank",))
    with pytest.raises(CheckpointError, match="holds another compressed network"):
        work(Order(source, tmp_path / "out", other).open())


def test_a_job_and_workers_keep_each_other_out(source, tmp_path):
    job = Order(source, tmp_path / "out", CONFIG).open()
    with locked(job.out, LOCK), pytest.raises(InUseError, match="in use"):
        work(job)
    with locked(job.out, LOCK, shared=True), pytest.raises(InUseError, match="in use"):
        run_job(job)


def test_a_part_of_a_living_worker_is_left_to_it(source, whole, tmp_path):
    out = tmp_path / "out"
    with claimed(out / PARTS / "000003", Watch()) as mine:
        other = started(source, out, "--worker")
        while not (out / PARTS / "000011.safetensors").exists():
            assert other.poll() is None
            time.sleep(0.02)
        assert mine is not None and not (out / PARTS / "000003.safetensors").exists()
    _, err = other.communicate(timeout=60)
    assert other.returncode == 0, err
    assert contents(out) == whole


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_workers_that_are_killed_at_random_give_the_bytes_of_one_process(source, whole, tmp_path):
    out, rng, kills = tmp_path / "out", random.Random(0), 0
    workers = [started(source, out, "--worker") for _ in range(3)]
    deadline = time.monotonic() + 200
    while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.002)
        number = rng.randrange(3)
        if kills < 4 and not (out / DESCRIPTION).exists() and len(list(out.glob(f"{PARTS}/*.safetensors"))) > 2 * kills:
            workers[number].kill()
            workers[number].communicate()
            workers[number] = started(source, out, "--worker")
            kills += 1
    ends = [worker.communicate(timeout=60)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], ends
    assert contents(out) == whole and kills >= 2


def test_bad_orders_are_one_line_and_status_2(source, tmp_path):
    for options in (("--worker", "--dry-run"), ("--worker", "--engine", "ray")):
        done = started(source, tmp_path / "out", *options)
        _, err = done.communicate(timeout=60)
        assert done.returncode == 2 and "exclude one another" in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_an_impossible_order_of_a_worker_leaves_nothing(source, tmp_path):
    done = started(source, tmp_path / "out", "--worker", "--include", "nothing")
    _, err = done.communicate(timeout=60)
    assert done.returncode == 2 and "Traceback" not in err and err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not find_spec("ray"), reason="Ray is not installed")
def test_tasks_of_ray_give_the_bytes_of_one_process(source, whole, tmp_path):
    done = started(source, tmp_path / "out", "--engine", "ray", "--jobs", "2")
    _, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    assert contents(tmp_path / "out") == whole and err.count("12 matrices are compressed") == 2
