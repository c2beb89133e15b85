"""Checkpoints: what is written is read back, writes are atomic, other files are refused."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from mponet import files
from mponet.errors import CheckpointError
from mponet.models import build
from mponet.models.init import start
from mponet.recipe import PAPER_MNIST, SHORT_MNIST
from mponet.training import checkpoint as checkpoints
from mponet.training.checkpoint import Checkpoint, load, save


def a_checkpoint(model=None, **changes):
    model = model or build("fc2", "mpo", 3)
    parameters = {name: value.astype(np.float32) for name, value in start(model, 0).items()}
    optimizer = {f"velocity/{name}": value + 1 for name, value in parameters.items()}
    return replace(Checkpoint(model, parameters, optimizer, SHORT_MNIST, "digits", 7, 1234), **changes)


@pytest.fixture
def path(tmp_path):
    save(tmp_path / "a.safetensors", a_checkpoint())
    return tmp_path / "a.safetensors"


def equal(one, other):
    return set(one) == set(other) and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


def rewrite(path, tensors=None, **metadata):
    """The file with other metadata (None: without that key) or other tensors."""
    with checkpoints.safe_open(path, framework="numpy") as stream:
        kept = {**stream.metadata(), **metadata}
    save_file(
        {**load_file(path), **(tensors or {})}, path, {key: value for key, value in kept.items() if value is not None}
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "variant", "bond"), [("fc2", "dense", None), ("fc2", "mpo", 3), ("lenet5", "mpo", None)]
)
def test_what_is_saved_comes_back(tmp_path, name, variant, bond, dtype):
    written = a_checkpoint(build(name, variant, bond))
    written = replace(written, parameters={key: value.astype(dtype) for key, value in written.parameters.items()})
    save(tmp_path / "a", written)
    read = load(tmp_path / "a")
    assert equal(read.parameters, written.parameters)
    assert equal(read.optimizer, written.optimizer)
    empty = {"parameters": {}, "optimizer": {}}
    assert replace(read, **empty) == replace(written, **empty)


def test_a_recipe_without_momentum_has_no_optimizer_state(tmp_path):
    save(tmp_path / "a", a_checkpoint(optimizer={}, recipe=PAPER_MNIST))
    assert load(tmp_path / "a").optimizer == {}


def test_memory_order_is_no_matter(tmp_path):
    written = a_checkpoint(build("fc2", "dense"))
    turned = {name: np.asfortranarray(value) for name, value in written.parameters.items()}
    save(tmp_path / "a", replace(written, parameters=turned))
    assert equal(load(tmp_path / "a").parameters, written.parameters)


def test_the_layout_is_the_documented_one(path):
    with checkpoints.safe_open(path, framework="numpy") as stream:
        assert {"parameters/fc1/core1", "optimizer/velocity/fc1/core1"} <= set(stream.keys())
        metadata = stream.metadata()
    assert (metadata["format"], metadata["format_version"]) == ("mponet-checkpoint", "1")
    assert (metadata["model"], metadata["variant"], metadata["bond"], metadata["step"]) == ("fc2", "mpo", "3", "1234")


def refused(path, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "expected" in str(caught.value)


def test_an_absent_file_is_refused(tmp_path):
    refused(tmp_path / "none", "is not a file")
    refused(tmp_path, "is not a file")


@pytest.mark.parametrize("content", [b"", b"\0", b"hello world, hello world", pickle.dumps({"a": 1}), b"\xff" * 64])
def test_what_is_no_safetensors_file_is_refused(path, content):
    path.write_bytes(content)
    refused(path, "cannot be read")


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(tmp_path_factory, share):
    path = tmp_path_factory.mktemp("cut") / "a"
    save(path, a_checkpoint())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "cannot be read")


def test_a_safetensors_file_of_somebody_else_is_refused(path):
    save_file({"a": np.ones(3)}, path)
    refused(path, "has the format None")


def test_another_format_version_is_refused(path):
    rewrite(path, format_version="2", mponet="9.0")
    refused(path, r"format version 2; expected 1; read it with the mponet that wrote it, 9\.0")


@pytest.mark.parametrize(
    "metadata",
    [
        {"model": "fc3"},
        {"model": None},
        {"variant": "dense"},
        {"bond": "many"},
        {"bond": None},
        {"recipe": "{}"},
        {"recipe": '{"steps": "x"}'},
        {"recipe": "["},
        {"seed": "1.5"},
        {"step": None},
        {"mponet": None},
    ],
)
def test_metadata_that_makes_no_sense_is_refused(path, metadata):
    rewrite(path, **metadata)
    refused(path, "unusable metadata")


@pytest.mark.parametrize("step", [-1, SHORT_MNIST.steps + 1])
def test_a_step_outside_the_recipe_is_refused(path, step):
    rewrite(path, step=str(step))
    refused(path, f"is at step {step}" if step > 0 else "unusable metadata")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"parameters/fc3/kernel": np.ones(3)}, "differ in the names"),
        ({"parameters/fc1/bias": np.ones(3, np.float32)}, r"fc1/bias of fc2 \(mpo\) has the shape \(3,\)"),
        ({"optimizer/velocity/fc1/bias": np.ones(3, np.float32)}, r"differs in \['velocity/fc1/bias'\]"),
        ({"optimizer/adam/fc1/bias": np.ones(256, np.float32)}, r"differs in \['adam/fc1/bias'\]"),
        ({"stray": np.ones(3)}, r"holds the tensors \['stray'\]"),
        ({"parameters/fc1/bias": np.full(256, np.nan, np.float32)}, "256 values that are not finite"),
        ({"optimizer/velocity/fc1/bias": np.full(256, np.inf, np.float32)}, "256 values that are not finite"),
        ({"parameters/fc1/bias": np.ones(256, np.int64)}, "has dtype I64"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(path, tensors, message):
    rewrite(path, tensors)
    refused(path, message)


def test_another_network_of_the_same_name_is_refused(path):
    rewrite(path, bond="4")
    refused(path, "has the shape")


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    bad = a_checkpoint()
    bad.parameters["fc1/bias"][0] = np.nan
    with pytest.raises(CheckpointError, match="not finite"):
        save(tmp_path / "a", bad)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(path, monkeypatch, broken):
    def fail(*_):
        raise OSError("no room")

    before = path.read_bytes()
    monkeypatch.setattr(*(os, "fsync", fail) if broken == "fsync" else (Path, "replace", fail))
    with pytest.raises(CheckpointError, match=r"cannot be written \(no room\)"):
        save(path, a_checkpoint(step=2000))
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_json_has_null_for_what_is_not_finite(tmp_path):
    files.write_json(tmp_path / "a", {"loss": float("nan"), "more": [float("inf"), (1.5, "x")]})
    assert json.loads((tmp_path / "a").read_text()) == {"loss": None, "more": [None, [1.5, "x"]]}
    with pytest.raises(CheckpointError, match="cannot be written"):
        files.write_json(tmp_path / "none" / "a", {})
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
