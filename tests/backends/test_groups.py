"""Several processes that train together give what one gives."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import group_run
from mponet.backend import load
from mponet.models.shapes import parameter_count
from mponet.training.launch import group_environments

SCRIPT = Path(group_run.__file__)
STEPS = 50
BOUND = 1e-10  # float64, 50 steps: sums of the parts of a batch round otherwise than its sum
pytestmark = pytest.mark.timeout(900)  # several processes, each of which imports and compiles
BACKENDS = [name for name in os.environ.get("MPONET_BACKENDS", "").split(",") if name]


def results(backend, count, folder, *options):
    file = folder / f"{count}{options}.npz"
    running = group_run.processes(backend, count, [str(SCRIPT), backend, str(file), str(STEPS), *options])
    said = [process.communicate(timeout=900)[0] for process in running]
    assert [process.returncode for process in running] == [0] * count, said
    with np.load(file) as found:
        return dict(found)


@pytest.fixture(scope="module", params=BACKENDS)
def alone(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, results(request.param, 1, folder)


@pytest.mark.parametrize(("count", "options"), [(4, ()), (2, ("shard",)), (2, ("change",))])
def test_parameters_losses_and_statistics_are_those_of_one_process(alone, count, options):
    backend, folder, expected = alone
    if options and not load(backend).shards:
        pytest.skip(f"{backend} keeps all parameters in every process")
    found = results(backend, count, folder, *options)
    trained = tuple(name for name, _ in group_run.models(options))
    expected = {name: value for name, value in expected.items() if name.startswith(trained)}
    assert found.keys() == expected.keys() and any("variance" in name for name in expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=BOUND * max(np.abs(value).max(), 1.0), err_msg=name)


def started(backend, folder, *options, steps="20", **variables):
    path = os.pathsep.join(filter(None, sys.path))
    words = ("run", "fc2", "--backend", backend, "--bond", "2", "--data", "digits", "--steps", steps)
    return subprocess.Popen(
        [sys.executable, "-m", "mponet", *words, "--out", str(folder), *options],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(backend, folder, *options, **named):
    process = started(backend, folder, *options, **named)
    out, err = process.communicate(timeout=900)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.mark.parametrize("shard", [(), ("--shard",)], ids=["whole", "sharded"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_of_two_processes_has_one_writer_and_resumes_on_any_number(backend, shard, tmp_path):
    if shard and not load(backend).shards:
        pytest.skip(f"{backend} keeps all parameters in every process")
    done = command(backend, tmp_path / "two", "--processes", "2", *shard, "--json")
    assert done.returncode == 0, done.stderr
    variants = json.loads(done.stdout)["variants"]
    assert {name: one["processes"] for name, one in variants.items()} == {"dense": 2, "mpo": 2}
    begun = json.loads((tmp_path / "two" / "config.json").read_text())["starts"][0]
    assert (begun["processes"], begun["sharded"]) == (2, bool(shard))
    again = command(backend, tmp_path / "two", "--resume", "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["variants"] == variants
    alone = command(backend, tmp_path / "one", "--json")
    for name, one in json.loads(alone.stdout)["variants"].items():
        assert one["processes"] == 1
        assert one["loss"] == pytest.approx(variants[name]["loss"], rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_shares_are_refused_in_one_line(backend, tmp_path):
    several = [] if load(backend).shards else ["--processes", "2"]
    done = command(backend, tmp_path, "--shard", *several)
    assert done.returncode == 1 and done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
    assert ("keeps all parameters in every process" if several else "one process trains") in done.stderr


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_lost_process_ends_the_other_with_one_line_and_the_run_resumes_alone(backend, tmp_path):
    variant = ("--variant", "mpo")
    shard = ("--shard",) if load(backend).shards else ()
    environments = group_environments(backend, 2)
    first, second = (started(backend, tmp_path, *variant, *shard, steps="6000", **own) for own in environments)
    while first.poll() is None and not (tmp_path / "mpo" / "checkpoint.safetensors").exists():
        time.sleep(0.02)
    second.kill()
    second.communicate()
    _, err = first.communicate(timeout=300)
    assert first.returncode == 1, err
    assert [line for line in err.splitlines() if line.startswith("error: ")] == err.splitlines()[-1:]
    assert "another process of this training ended" in err and "Traceback" not in err
    done = command(backend, tmp_path, *variant, "--resume", "--json", steps="6000")
    found = json.loads(done.stdout)["variants"]["mpo"]
    assert done.returncode == 0 and found["steps"] == 6000 and found["processes"] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_that_does_not_divide_is_refused(backend, tmp_path):
    done = command(backend, tmp_path, "--processes", "3")
    assert done.returncode == 1 and "does not divide among 3 processes" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif("tensorflow" not in BACKENDS, reason="MPONET_BACKENDS does not name tensorflow")
def test_a_graph_sums_the_bytes_of_the_parameters_and_of_the_loss(tmp_path):
    found = results("tensorflow", 2, tmp_path, "bytes")
    for name, model in group_run.models():
        if model.name == "fc2":  # no batch norm, whose statistics are summed, too
            assert found[f"{name}:bytes"] == 8 * (parameter_count(model) + 1)


@pytest.mark.skipif("torch" not in BACKENDS, reason="MPONET_BACKENDS does not name torch")
@pytest.mark.parametrize("variant", ["dense", "mpo"])
def test_a_step_sums_the_bytes_of_the_parameters_and_no_more(variant):
    import torch
    from torch import distributed as dist

    from mponet.models import build
    from mponet.models.init import start
    from mponet_torch.ops.group import data_parallel

    model, summed = build("fc2", variant), []

    def counting(_, bucket):
        summed.append(bucket.buffer().nbytes)
        # done at once: a future of Gloo that calls Python may block the end of its process group
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        shared = data_parallel(load("torch").build(model, start(model, 0)))
        shared.register_comm_hook(None, counting)
        shared(torch.zeros(4, 1, 28, 28)).sum().backward()
    finally:
        dist.destroy_process_group()
    assert sum(summed) == 4 * parameter_count(model)
