"""Data sets: names, published files on disk and their digests, formats."""

import gzip
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mponet.training.data
from core.published import cifar_payload, idx, labels, pixels, place, sign
from mponet.errors import DataError, MPONetError
from mponet.training.data import (
    available,
    catalogue,
    default_name,
    files,
    load,
    optional,
)
from mponet.training.data.formats import parse_cifar, parse_idx

# ---------------------------------------------------------------- names


def test_unknown_name_lists_the_valid_ones():
    with pytest.raises(DataError, match=r"'imagenet'.*digits, mnist, fashion-mnist, cifar10"):
        load("imagenet")


def test_default_is_digits_even_where_more_lies_ready(synthetic, monkeypatch):
    monkeypatch.setenv("MPONET_DATA", str(synthetic))
    assert default_name() == "digits"


def test_available_names_what_needs_no_network(synthetic, tmp_path):
    assert available(synthetic) == ("digits", "mnist", "fashion-mnist", "cifar10")
    (synthetic / "mnist" / "train-labels-idx1-ubyte").unlink()
    assert available(synthetic) == ("digits", "fashion-mnist", "cifar10")
    assert available(tmp_path / "nowhere") == ("digits",)


def test_available_without_the_experiments_extra(monkeypatch):
    monkeypatch.delenv("MPONET_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.setattr(catalogue, "find_spec", lambda name: None)
    assert available() == ()


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"sklearn.*pip install 'mponet\[experiments\]'"):
        load("digits")
    with pytest.raises(MPONetError, match="no_such_module is needed to test"):
        optional.experiments_module("no_such_module", "to test")


def test_import_loads_only_numpy():
    heavy = ("scipy", "sklearn", "pooch", "requests", "tensornetwork", "torch", "jax", "tensorflow")
    code = f"import sys, mponet.training.data; print([m for m in {heavy!r} if m in sys.modules])"
    root = Path(mponet.training.data.__file__).parents[3]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert result.stdout.strip() == "[]"


# ---------------------------------------------------------------- published files on disk


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_data_set(synthetic, name):
    dataset = load(name, root=synthetic)
    np.testing.assert_array_equal(dataset.train_images[..., 0], pixels(20, 20, 28, 28))
    np.testing.assert_array_equal(dataset.test_images[..., 0], pixels(10, 10, 28, 28))
    np.testing.assert_array_equal(dataset.train_labels, labels(20))
    assert dataset.train_labels.dtype == np.int64
    assert dataset.image_shape == (28, 28, 1)
    assert str(synthetic) in dataset.source


def test_cifar_data_set_is_nhwc(synthetic):
    dataset = load("cifar10", root=synthetic)
    assert dataset.train_images.shape == (50, 32, 32, 3)
    assert dataset.test_images.shape == (10, 32, 32, 3)
    assert dataset.train_images.flags.c_contiguous
    second = np.frombuffer(cifar_payload("cifar-10-batches-bin/data_batch_2.bin"), np.uint8)
    record = second.reshape(10, 3073)[3]
    assert dataset.train_labels[13] == record[0]
    # channel 2, row 5, column 7 of the record
    assert dataset.train_images[13, 5, 7, 2] == record[1 + 2 * 1024 + 5 * 32 + 7]


def test_environment_variable_names_the_folder(synthetic, monkeypatch):
    monkeypatch.setenv("MPONET_DATA", str(synthetic))
    assert len(load("mnist").train_images) == 20
    assert files.data_root(Path("given")) == Path("given")


def test_cache_is_used_without_the_variable(monkeypatch):
    pooch = pytest.importorskip("pooch")
    monkeypatch.setenv("MPONET_DATA", " ")
    assert files.data_root(None) == Path(pooch.os_cache("mponet"))


def test_gzipped_files_are_read_too(synthetic):
    for path in sorted((synthetic / "mnist").iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert "mnist" in available(synthetic)
    np.testing.assert_array_equal(load("mnist", root=synthetic).train_images[..., 0], pixels(20, 20, 28, 28))


def test_truncated_gzip(synthetic):
    path = synthetic / "mnist" / "t10k-images-idx3-ubyte"
    packed = gzip.compress(path.read_bytes())
    path.with_name(f"{path.name}.gz").write_bytes(packed[: len(packed) // 2])
    path.unlink()
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz cannot be read"):
        load("mnist", root=synthetic)


@pytest.mark.parametrize(
    ("name", "relative"),
    [
        ("mnist", "mnist/train-labels-idx1-ubyte"),
        ("cifar10", "cifar-10-batches-bin/test_batch.bin"),
    ],
)
def test_altered_file_is_refused_and_kept(synthetic, name, relative):
    path = synthetic / relative
    altered = bytearray(path.read_bytes())
    altered[-1] ^= 1
    path.write_bytes(altered)
    with pytest.raises(DataError) as caught:
        load(name, root=synthetic)
    found = hashlib.sha256(altered).hexdigest()
    for part in (str(path), found, files.SHA256[relative], "delete it and load again"):
        assert part in str(caught.value)
    assert path.read_bytes() == altered


def test_label_outside_the_classes(synthetic, monkeypatch):
    path = "mnist/train-labels-idx1-ubyte"
    bad = {path: idx(np.full(20, 10, np.uint8))}
    sign(monkeypatch, bad)
    place(synthetic, bad)
    with pytest.raises(DataError, match=r"labels 10\.\.10, expected 0\.\.9"):
        load("mnist", root=synthetic)


def test_images_and_labels_of_different_number(synthetic, monkeypatch):
    bad = {"mnist/train-labels-idx1-ubyte": idx(labels(19))}
    sign(monkeypatch, bad)
    place(synthetic, bad)
    with pytest.raises(DataError, match="20 images and 19 labels"):
        load("mnist", root=synthetic)


# ---------------------------------------------------------------- formats

IDX = idx(pixels(0, 2, 3, 4))


@pytest.mark.parametrize("cut", [1, 12, len(IDX) - 16, len(IDX) - 15])
def test_truncated_idx(cut):
    with pytest.raises(DataError, match=r"file has \d+ bytes, expected \d+ by its header"):
        parse_idx(IDX[:-cut], 3, "file")


@pytest.mark.parametrize("payload", [b"", b"\0\0", b"\0\0\x08\x01" + IDX[4:], b"<html>", IDX[::-1]])
def test_wrong_idx_magic(payload):
    with pytest.raises(DataError, match=r"file is not an IDX file.*expected 00 00 08 03"):
        parse_idx(payload, 3, "file")


def test_too_long_idx():
    with pytest.raises(DataError, match=r"41 bytes, expected 40"):
        parse_idx(IDX + b"x", 3, "file")


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_idx_round_trip(shape):
    array = pixels(1, *shape)
    np.testing.assert_array_equal(parse_idx(idx(array), len(shape), "file"), array)


@pytest.mark.parametrize("length", [0, 1, 3072, 3074, 2 * 3073 - 1])
def test_truncated_cifar(length):
    with pytest.raises(DataError, match=f"{length} bytes, expected a multiple of 3073"):
        parse_cifar(bytes(length), "file")


# ---------------------------------------------------------------- the real files


@pytest.mark.parametrize(
    ("name", "train", "image_shape", "mean"),
    [
        ("mnist", 60_000, (28, 28, 1), 33.32),
        ("fashion-mnist", 60_000, (28, 28, 1), 72.94),
        ("cifar10", 50_000, (32, 32, 3), 120.71),
    ],
)
def test_real_data(name, train, image_shape, mean):
    folder = os.environ.get("MPONET_DATA", "").strip()
    if not folder or name not in available(Path(folder)):
        pytest.skip(f"MPONET_DATA is not set to a folder that holds {name}")
    dataset = load(name)
    assert dataset.train_images.shape == (train, *image_shape)
    assert dataset.test_images.shape == (10_000, *image_shape)
    assert len(dataset.classes) == 10
    assert set(np.bincount(dataset.test_labels)) == {1000} or name == "mnist"
    assert dataset.train_images.mean() == pytest.approx(mean, abs=0.01)  # published statistics
