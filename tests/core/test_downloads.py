"""Downloads from a local server: only known, complete and unaltered files are kept."""

import gzip
import io
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from core.published import PUBLISHED, published_payloads, sign
from mponet.errors import DataError
from mponet.training.data import files, load


@pytest.fixture
def no_network(monkeypatch):
    """Every address refuses the connection, as without a network."""
    closed = "http://127.0.0.1:9"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, archives in files.ARCHIVES.items():
        dead = tuple(files.Archive(f"{closed}/{Path(a.url).name}", a.files) for a in archives)
        monkeypatch.setitem(files.ARCHIVES, name, dead)


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
