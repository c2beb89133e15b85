"""Compression of checkpoint files: what comes out, resuming, refusals."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from core.compress.planted import calibrated
from core.faults import checkpoints
from mponet import to_matrix
from mponet.compress import CompressConfig, fitted
from mponet.compress.stream.job import PARTS, affordable, open_job, plan_job, run_job
from mponet.compress.stream.output import DESCRIPTION
from mponet.compress.stream.sources import INDEX
from mponet.errors import CheckpointError
from mponet.operators.mpo import MPO

RNG = np.random.default_rng(0)


def decaying(rows, columns, rank=8):
    left, right = RNG.normal(size=(rows, rank)), RNG.normal(size=(rank, columns))
    return (left @ right / rank + 0.05 * RNG.normal(size=(rows, columns))).astype(np.float32)


FIRST = {f"a{k}.weight": decaying(48, 96) for k in range(2)} | {"a0.bias": np.ones(48, np.float32)}
SECOND = {"b.weight": decaying(96, 64), "embed.weight": decaying(100, 48), "norm.weight": np.ones(48, np.float32)}
CONFIG = CompressConfig(keep=0.5, min_weights=1000)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "in"
    path.mkdir()
    save_file(FIRST, path / "one.safetensors")
    save_file(SECOND, path / "two.safetensors")
    places = dict.fromkeys(FIRST, "one.safetensors") | dict.fromkeys(SECOND, "two.safetensors")
    (path / INDEX).write_text(json.dumps({"weight_map": places}))
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "tokenizer.json").write_text("{}")
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def tensors(folder):
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


def test_cores_take_the_place_of_weights_and_the_rest_is_copied(folder, tmp_path):
    plan = run_job(open_job(folder, tmp_path / "out", CONFIG))
    written, dense = tensors(tmp_path / "out"), FIRST | SECOND
    assert {row.name for row in plan.replaced} == {"a0", "a1", "b"}
    for name in ("embed.weight", "norm.weight", "a0.bias"):
        np.testing.assert_array_equal(written[name], dense[name])
    for row in plan.replaced:
        cores = [written[f"{row.name}.core{k}"].astype(np.float64) for k in range(1, row.shape.sites + 1)]
        matrix = to_matrix(MPO(row.shape, tuple(cores)))
        error = np.linalg.norm(matrix - dense[f"{row.name}.weight"].T) / np.linalg.norm(dense[f"{row.name}.weight"])
        assert error == pytest.approx(row.output_error, rel=0.05)
        assert f"{row.name}.weight" not in written
    entry = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert entry["quant_method"] == "mponet"
    assert {name: tuple(row["bonds"]) for name, row in entry["layers"].items()} == {
        r.name: r.bonds for r in plan.replaced
    }
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    assert not (tmp_path / "out" / PARTS).exists()


def test_planning_writes_nothing(folder, tmp_path):
    before = contents(folder)
    plan_job(open_job(folder, tmp_path / "out", CONFIG))
    assert contents(folder) == before
    assert not (tmp_path / "out").exists()


def test_processes_give_the_same_bytes(folder, tmp_path):
    run_job(open_job(folder, tmp_path / "one", CONFIG))
    run_job(open_job(folder, tmp_path / "two", CONFIG), processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_killed_job_goes_on_to_the_same_bytes(folder, tmp_path):
    run_job(open_job(folder, tmp_path / "whole", CONFIG))
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\nfrom pathlib import Path\n"
        "from mponet.compress import CompressConfig\n"
        "from mponet.compress.stream.job import open_job, run_job\n"
        "config = CompressConfig(keep=0.5, min_weights=1000)\n"
        f"run_job(open_job(Path({str(folder)!r}), Path({str(tmp_path / 'out')!r}), config))"
    )
    rng = np.random.default_rng(1)
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.2, 1.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (tmp_path / "out" / DESCRIPTION).exists():
            break
    out = tmp_path / "out"
    if not (out / DESCRIPTION).exists() or (out / PARTS).exists():
        run_job(open_job(folder, out, CONFIG))
    assert not (out / PARTS).exists()
    made = contents(out)
    assert made == contents(tmp_path / "whole")


def test_a_job_killed_after_its_last_file_only_clears_its_parts(folder, tmp_path):
    out = tmp_path / "out"
    plan = run_job(open_job(folder, out, CONFIG))
    whole = contents(out)
    (out / PARTS).mkdir()
    assert run_job(open_job(folder, out, CONFIG)) == plan
    assert contents(out) == whole


def test_parts_of_another_job_are_refused(folder, tmp_path):
    out = tmp_path / "out"
    (out / PARTS).mkdir(parents=True)
    (out / PARTS / "job.json").write_text('{"fingerprint": "x"}')
    with pytest.raises(CheckpointError, match="parts of another job"):
        run_job(open_job(folder, out, CONFIG))


def test_a_compressed_checkpoint_is_not_compressed_again(folder, tmp_path):
    run_job(open_job(folder, tmp_path / "out", CONFIG))
    with pytest.raises(CheckpointError, match="compressed already"):
        open_job(tmp_path / "out", tmp_path / "again", CONFIG)
    with pytest.raises(CheckpointError, match="holds a compressed network"):
        run_job(open_job(folder, tmp_path / "out", CONFIG))


def test_processes_fit_with_weighted_outputs_and_other_weights_are_another_job(folder, tmp_path):
    found = open_job(folder, tmp_path / "out", CONFIG).targets
    inputs = {target.name: RNG.normal(size=(200, target.in_features)) for target in found}
    slopes = {target.name: RNG.normal(size=(50, target.out_features)) ** 3 for target in found}
    plain, calibration = calibrated(found, inputs), calibrated(found, inputs)
    for name, rows in slopes.items():
        calibration.add_gradient(name, float((rows**2).mean()), len(rows), rows.T @ rows)
    config = CompressConfig(keep=0.3, min_weights=1000, structures=("low-rank",))
    job = open_job(folder, tmp_path / "out", config, calibration)
    assert job.fingerprint != open_job(folder, tmp_path / "out", config, plain).fingerprint
    plan = run_job(job, processes=2)
    written = tensors(tmp_path / "out")
    others = {layer.name: layer.matrix() for layer in fitted(found, plan, plain)}
    for layer in fitted(found, plan, calibration):
        cores = [written[f"{layer.name}.core{k}"].astype(np.float64) for k in range(1, layer.mpo.shape.sites + 1)]
        got = to_matrix(MPO.from_cores(cores))
        np.testing.assert_allclose(got, to_matrix(layer.mpo), atol=1e-5)
        assert np.abs(got - others[layer.name]).max() > 1e-3
    assert len(plan.replaced) > 1


def test_a_mutated_checkpoint_is_used_or_refused_and_leaves_nothing(tmp_path):
    counts = checkpoints.fuzz(tmp_path / "fuzz", int(os.environ.get("MPONET_FUZZ", "200")), random.Random(0))
    assert counts["faults"] == [] and counts["files"] >= 200
    assert counts["used"] and counts["refused"]


def test_processes_are_as_many_as_have_memory():
    assert affordable(4, 0) == 4
    assert affordable(4, 1 << 60) == 1
    assert 1 <= affordable(2, 10**6) <= 2
