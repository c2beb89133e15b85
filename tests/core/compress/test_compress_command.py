"""``mponet compress``, ``merge`` and ``inspect`` as a user runs them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

RNG = np.random.default_rng(0)
TENSORS = {
    "a.weight": (RNG.normal(size=(96, 8)) @ RNG.normal(size=(8, 128))).astype(np.float32),
    "a.bias": RNG.normal(size=96).astype(np.float32),
    "c_attn.weight": RNG.normal(size=(128, 96)).astype(np.float16),
    "norm.weight": np.ones(96, np.float32),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    save_file(TENSORS, tmp_path / "in" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "in" / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path


def run(*arguments, cwd):
    code = f"import sys; sys.path[:0] = {sys.path!r}; from mponet.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)


def test_compress_then_merge_gives_the_network_back(folder):
    done = run("compress", "in", "small", "--error", "1e-5", "--exclude", "c_attn", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["replaced"]) == ["a"]
    assert set(load_file(folder / "small" / "model.safetensors")) >= {"a.core1", "a.core2", "c_attn.weight"}
    merged = run("merge", "small", "dense", cwd=folder)
    assert merged.returncode == 0, merged.stderr
    back = load_file(folder / "dense" / "model.safetensors")
    assert set(back) == set(TENSORS)
    for name, value in TENSORS.items():
        np.testing.assert_allclose(back[name], value, rtol=0, atol=1e-4)
    assert json.loads((folder / "dense" / "config.json").read_text()) == {"model_type": "llama"}


def test_a_dry_run_prints_the_plan_and_writes_nothing(folder):
    done = run("compress", "in", "small", "--keep", "0.5", "--dry-run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "keep 0.4" in done.stdout or "keep 0.5" in done.stdout
    assert "nothing was written" in done.stdout
    assert not (folder / "small").exists()


def test_inspect_shows_matrices(folder):
    done = run("inspect", "in", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["weights"] == sum(value.size for value in TENSORS.values())
    rows = {row["name"]: row for row in facts["matrices"]}
    assert (rows["a"]["rows"], rows["a"]["columns"], rows["a"]["dtype"]) == (128, 96, "F32")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("in", "small"), "expected exactly one of keep"),
        (("in", "small", "--keep", "2"), "expected a share"),
        (("in", "small", "--keep", "0.5", "--include", "lm_hed"), "lm_hed"),
        (("nowhere", "small", "--keep", "0.5"), "neither a file nor a folder"),
        (("broken.safetensors", "small", "--keep", "0.5"), "expected a whole safetensors file"),
        (("nan.safetensors", "small", "--keep", "0.5"), "not finite"),
    ],
)
def test_bad_input_is_one_line_status_2_and_nothing_left(folder, arguments, said):
    (folder / "broken.safetensors").write_bytes((folder / "in" / "model.safetensors").read_bytes()[:-1])
    save_file({"a.weight": np.full((96, 128), np.nan, np.float32)}, folder / "nan.safetensors")
    before = sorted(path.name for path in folder.iterdir())
    done = run("compress", *arguments, cwd=folder)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir()) == before
