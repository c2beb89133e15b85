"""Checkpoint files: what is read is what was written, and files that lie get one error."""

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from mponet.compress.stream.header import read_header
from mponet.compress.stream.sources import INDEX, open_source
from mponet.errors import CheckpointError

RNG = np.random.default_rng(0)
TENSORS = {
    "a.weight": RNG.normal(size=(3, 4)).astype(np.float32),
    "a.bias": RNG.normal(size=3).astype(np.float64),
    "half": RNG.normal(size=(2, 1, 2)).astype(np.float16),
    "steps": np.arange(5),
    "empty": np.zeros((0, 3), np.float32),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sources") / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    return path


def sharded(folder, places):
    for shard in set(places.values()):
        save_file({name: TENSORS[name] for name in places if places[name] == shard}, folder / shard)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "config.json").write_text("{}")


def test_tensors_of_a_file_are_those_written(file):
    source = open_source(file)
    assert source.metadata == {"format": "pt"}
    assert {name: entry.shape for name, entry in source.entries.items()} == {k: v.shape for k, v in TENSORS.items()}
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(source.raw(name), value)


def test_shards_are_one_checkpoint_and_other_files_are_carried(tmp_path):
    sharded(tmp_path, dict(zip(TENSORS, ["x.safetensors", "y.safetensors"] * 3, strict=False)))
    source = open_source(tmp_path)
    assert [path.name for path in source.carried] == ["config.json"]
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(source.raw(name), value)


def test_npz_is_read_by_its_own_headers(tmp_path):
    np.savez(tmp_path / "model.npz", **TENSORS)
    source = open_source(tmp_path / "model.npz")
    for name, value in TENSORS.items():
        assert source.entries[name].shape == value.shape
        np.testing.assert_array_equal(source.raw(name), value)


def test_bfloat16_is_read_exactly(tmp_path):
    words = np.array([0x3F80, 0xC020, 0x0001], np.uint16)
    header = b'{"w":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}}'
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + words.tobytes())
    assert open_source(tmp_path / "w.safetensors").read("w").tolist() == [1.0, -2.5, 2.0**-133]


@pytest.mark.parametrize("name", ["steps"])
def test_only_floating_point_tensors_are_weights(file, name):
    with pytest.raises(CheckpointError, match="dtype I64"):
        open_source(file).read(name)


def test_values_that_are_not_finite_are_refused(tmp_path):
    save_file({"w": np.array([1, np.nan, np.inf])}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="2 values that are not finite"):
        open_source(tmp_path / "w.safetensors").read("w")


HEADERS = {
    "negative": {"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
    "overlap": {
        "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "v": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
    },
    "beyond": {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
    "huge": {"w": {"dtype": "F32", "shape": [10**30, 0], "data_offsets": [0, 0]}},
    "dtype": {"w": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}},
    "bool": {"w": {"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]}},
    "hidden": {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    "metadata": {"__metadata__": {"a": 1}},
    "list": [],
}


@pytest.mark.parametrize("header", HEADERS)
def test_headers_that_lie_are_refused(tmp_path, header):
    text = json.dumps(HEADERS[header]).encode()
    (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(CheckpointError, match="expected a whole safetensors file"):
        read_header(tmp_path / "w.safetensors")


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        open_source(tmp_path)


@pytest.mark.parametrize("text", [b'{"a":1,"a":2}', b"[" * 100_000, b"{ ", b"\xff\xfe"])
def test_headers_that_are_no_json_are_refused(tmp_path, text):
    (tmp_path / "w.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(CheckpointError, match="not JSON"):
        read_header(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "..", ""])
def test_an_index_names_files_of_its_own_folder_only(tmp_path, name):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(CheckpointError, match="plain name"):
        open_source(tmp_path)


def test_an_index_that_differs_from_its_files_is_refused(tmp_path):
    sharded(tmp_path, dict.fromkeys(TENSORS, "x.safetensors"))
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys([*TENSORS, "other"], "x.safetensors")}))
    with pytest.raises(CheckpointError, match="differ in"):
        open_source(tmp_path)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["safetensors", "npz"]))
def test_mutated_files_are_read_or_refused(data, kind, file, tmp_path_factory):
    """No other exception, and no more memory than the file describes."""
    path = tmp_path_factory.mktemp("mutated") / f"m.{kind}"
    if kind == "npz":
        np.savez(path, **TENSORS)
    payload = bytearray(file.read_bytes() if kind == "safetensors" else path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(payload) - 1))
        payload[place] = data.draw(st.integers(0, 255))
    path.write_bytes(payload[: data.draw(st.integers(0, len(payload)))] if data.draw(st.booleans()) else payload)
    try:
        source = open_source(path)
        for entry in source.entries.values():
            assert entry.nbytes <= len(payload)
            source.raw(entry.name)
    except CheckpointError as error:
        assert str(path) in str(error)
