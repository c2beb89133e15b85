"""Data sets: parsing, digests, downloads, splits, fitting, and the order of batches."""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mponet.data
from mponet.data import (
    available,
    catalogue,
    default_name,
    files,
    load,
    optional,
)
from mponet.data.formats import parse_cifar, parse_idx
from mponet.errors import DataError, MPONetError

PUBLISHED = ("mnist", "fashion-mnist", "cifar10")
COUNTS = {"train": 20, "t10k": 10}


# ---------------------------------------------------------------- synthetic published files


def idx(array):
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def pixels(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def labels(count):
    return (np.arange(count) % 10).astype(np.uint8)


def idx_payload(path):
    name = Path(path).name
    count = COUNTS[name.split("-")[0]]
    return idx(pixels(count, count, 28, 28) if "images" in name else labels(count))


def cifar_payload(path):
    planes = pixels(sum(path.encode()), 10, 3 * 32 * 32)
    return np.concatenate([labels(10)[:, None], planes], axis=1).tobytes()


def published_payloads(name):
    make = cifar_payload if name == "cifar10" else idx_payload
    return {path: make(path) for archive in files.ARCHIVES[name] for path in archive.files}


def sign(monkeypatch, payloads):
    for path, payload in payloads.items():
        monkeypatch.setitem(files.SHA256, path, hashlib.sha256(payload).hexdigest())


def place(root, payloads):
    for path, payload in payloads.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(payload)


@pytest.fixture
def synthetic(tmp_path, monkeypatch):
    """All three data sets, small, below the returned folder, with matching digests."""
    for name in PUBLISHED:
        payloads = published_payloads(name)
        sign(monkeypatch, payloads)
        place(tmp_path, payloads)
    return tmp_path


@pytest.fixture
def no_network(monkeypatch):
    """Every address refuses the connection, as without a network."""
    closed = "http://127.0.0.1:9"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, archives in files.ARCHIVES.items():
        dead = tuple(files.Archive(f"{closed}/{Path(a.url).name}", a.files) for a in archives)
        monkeypatch.setitem(files.ARCHIVES, name, dead)


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
    code = f"import sys, mponet.data; print([m for m in {heavy!r} if m in sys.modules])"
    root = Path(mponet.data.__file__).parents[2]
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
    with pytest.raises(DataError, match=r"file is no IDX file.*expected 00 00 08 03"):
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


# ---------------------------------------------------------------- downloads


class QuietHandler(SimpleHTTPRequestHandler):
    """A server that keeps the test's output clean."""

    def log_message(self, *args):
        pass


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    """A folder served over http on this machine, in place of the publishers."""
    folder = tmp_path / "published"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in PUBLISHED:
        moved = tuple(
            files.Archive(f"http://127.0.0.1:{server.server_port}/{Path(a.url).name}", a.files)
            for a in files.ARCHIVES[name]
        )
        monkeypatch.setitem(files.ARCHIVES, name, moved)
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def publish_gzips(folder, payloads):
    for path, payload in payloads.items():
        (folder / f"{Path(path).name}.gz").write_bytes(gzip.compress(payload))


def publish_tar(folder, members):
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name, payload in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(payload)
            tar.addfile(member, io.BytesIO(payload))


def everything_below(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_download_of_gzips(publisher, tmp_path, monkeypatch):
    payloads = published_payloads("mnist")
    sign(monkeypatch, payloads)
    publish_gzips(publisher, payloads)
    root = tmp_path / "new" / "root"
    assert len(load("mnist", root=root).train_images) == 20
    assert everything_below(root) == set(payloads)  # unpacked, nothing temporary left
    publish_gzips(publisher, dict.fromkeys(payloads, b"gone"))
    assert len(load("mnist", root=root).train_images) == 20  # not downloaded again


def test_download_of_the_tar_takes_only_what_it_knows(publisher, tmp_path, monkeypatch):
    payloads = published_payloads("cifar10")
    sign(monkeypatch, payloads)
    hostile = {"../escape": b"x", "/absolute": b"x", "cifar-10-batches-bin/readme.html": b"x"}
    publish_tar(publisher, hostile | payloads)
    root = tmp_path / "root"
    assert load("cifar10", root=root).train_images.shape == (50, 32, 32, 3)
    assert everything_below(root) == set(payloads)
    assert not (tmp_path / "escape").exists()


def test_download_adds_only_the_missing_file(publisher, synthetic):
    path = synthetic / "mnist" / "t10k-labels-idx1-ubyte"
    publish_gzips(publisher, {str(path): path.read_bytes()})
    path.unlink()
    assert len(load("mnist", root=synthetic).test_labels) == 10


def test_download_with_a_wrong_digest_is_not_kept(publisher, tmp_path):
    publish_gzips(publisher, published_payloads("mnist"))  # not signed: digests of the real files
    with pytest.raises(DataError, match=r"is not the published mnist/.*SHA-256"):
        load("mnist", root=tmp_path / "root")
    assert everything_below(tmp_path / "root") == set()


@pytest.mark.parametrize("damage", ["no gzip", "truncated"])
def test_broken_download(publisher, tmp_path, monkeypatch, damage):
    payloads = published_payloads("cifar10")
    sign(monkeypatch, payloads)
    publish_tar(publisher, payloads)
    path = publisher / "cifar-10-binary.tar.gz"
    path.write_bytes(b"<html>login</html>" if damage == "no gzip" else path.read_bytes()[:9000])
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz cannot be unpacked"):
        load("cifar10", root=tmp_path / "root")
    assert everything_below(tmp_path / "root") == set()


def test_tar_without_a_wanted_member(publisher, tmp_path, monkeypatch):
    payloads = published_payloads("cifar10")
    sign(monkeypatch, payloads)
    last = payloads.popitem()[0]
    publish_tar(publisher, payloads)
    with pytest.raises(DataError, match=f"it lacks {last}"):
        load("cifar10", root=tmp_path / "root")


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_network_is_one_error_that_says_what_to_do(no_network, tmp_path, name):
    with pytest.raises(DataError) as caught:
        load(name, root=tmp_path)
    first = files.ARCHIVES[name][0].files[0]
    for part in (name, str(tmp_path), first, "MPONET_DATA", "--data digits"):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_published_but_not_found(publisher, tmp_path):
    with pytest.raises(DataError, match="404"):
        load("fashion-mnist", root=tmp_path / "root")


def test_nothing_temporary_is_left_when_writing_fails(tmp_path, monkeypatch):
    def full(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        files._write(tmp_path / "a" / "file", b"payload")
    assert everything_below(tmp_path) == set()


def test_addresses_and_digests_are_complete():
    paths = [path for archives in files.ARCHIVES.values() for a in archives for path in a.files]
    assert sorted(paths) == sorted(files.SHA256)
    assert all(len(bytes.fromhex(digest)) == 32 for digest in files.SHA256.values())


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
