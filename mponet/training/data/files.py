"""The published files: where they are, what their digests must be, how they are downloaded.

Below a root folder they lie as their publishers name them::

    mnist/train-images-idx3-ubyte               (and three more; a `.gz` of each is read too)
    fashion-mnist/train-images-idx3-ubyte       (likewise)
    cifar-10-batches-bin/data_batch_1.bin       (.. 5, test_batch.bin; the *binary version*)

No byte is parsed before its SHA-256 has been compared with `SHA256`; nothing is ever unpickled.
"""

import gzip
import hashlib
import logging
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mponet.errors import DataError
from mponet.files import write_atomically
from mponet.training.data.optional import experiments_module

_log = logging.getLogger(__name__)
_LARGEST = 64 * 2**20  # bytes; no published file unpacks to more, so a compression bomb stops here
_BROKEN_ARCHIVE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)

# Relative path -> digest of the unpacked file.
SHA256 = {
    "cifar-10-batches-bin/data_batch_1.bin": ("cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
    "cifar-10-batches-bin/data_batch_2.bin": ("a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
    "cifar-10-batches-bin/data_batch_3.bin": ("bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
    "cifar-10-batches-bin/data_batch_4.bin": ("014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
    "cifar-10-batches-bin/data_batch_5.bin": ("755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
    "cifar-10-batches-bin/test_batch.bin": ("8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
    "fashion-mnist/t10k-images-idx3-ubyte": ("5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "fashion-mnist/t10k-labels-idx1-ubyte": ("0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    "fashion-mnist/train-images-idx3-ubyte": ("c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "fashion-mnist/train-labels-idx1-ubyte": ("bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "mnist/t10k-images-idx3-ubyte": ("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "mnist/t10k-labels-idx1-ubyte": ("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    "mnist/train-images-idx3-ubyte": ("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "mnist/train-labels-idx1-ubyte": ("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
}


@dataclass(frozen=True, slots=True)
class Archive:
    """One download: the gzip of a single file, or a `.tar.gz` that holds several.

    Attributes:
        url: where it is published.
        files: what it holds, as paths relative to the root; in a tar also the members' names.
    """

    url: str
    files: tuple[str, ...]


def _gzips(folder: str, address: str) -> tuple[Archive, ...]:
    """The four gzipped IDX files of an MNIST-like data set."""
    paths = [path for path in SHA256 if path.startswith(f"{folder}/")]
    return tuple(Archive(f"{address}/{Path(path).name}.gz", (path,)) for path in paths)


# Data set -> its downloads.  Fashion-MNIST is published over plain http: the digests protect it.
ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "mnist": _gzips("mnist", "https://ossci-datasets.s3.amazonaws.com/mnist"),
    "fashion-mnist": _gzips("fashion-mnist", "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"),
    "cifar10": (
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            tuple(path for path in SHA256 if path.startswith("cifar-10-batches-bin/")),
        ),
    ),
}


def data_root(root: Path | None) -> Path:
    """The folder with the files: `root`, else ``$MPONET_DATA``, else the user's cache.

    Raises:
        DataError: neither is given, and pooch, which knows the cache folder, is missing.
    """
    if root is not None:
        return Path(root)
    if chosen := os.environ.get("MPONET_DATA", "").strip():
        # os.path.expanduser: unlike Path.expanduser, it leaves the name of an unknown user as it is
        return Path(os.path.expanduser(chosen))  # noqa: PTH111
    return Path(experiments_module("pooch", "to find the cache folder").os_cache("mponet"))


def missing_files(name: str, root: Path) -> tuple[str, ...]:
    """Files of data set `name` that lie below `root` neither plain nor as `.gz`."""
    paths = (path for archive in ARCHIVES[name] for path in archive.files)
    return tuple(path for path in paths if _find(root, path) is None)


def read_checked(root: Path, relative: str) -> bytes:
    """The unpacked file, after its SHA-256 was compared with `SHA256`.

    Raises:
        DataError: it is absent, cannot be unpacked, or has another digest.
    """
    path = _find(root, relative)
    if path is None:
        raise DataError(f"{root / relative} is absent; load the data set again to download it")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            payload = stream.read(_LARGEST + 1)
    except (OSError, *_BROKEN_ARCHIVE) as error:
        raise DataError(f"{path} cannot be read ({error}); replace or delete it") from error
    _check_digest(payload, relative, str(path))
    return payload


def download(name: str, root: Path) -> None:
    """Fetch whatever `missing_files` names, check it, and put it in place by renaming.

    Raises:
        DataError: no network, nowhere to write, a broken archive or a wrong digest.
    """
    missing = missing_files(name, root)
    for archive in ARCHIVES[name]:
        if wanted := [path for path in archive.files if path in missing]:
            _download_archive(archive, wanted, name, root)


def _download_archive(archive: Archive, wanted: list[str], name: str, root: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="mponet-") as scratch:
        packed = Path(scratch) / "archive"
        try:
            _log.info("downloading %s to %s", archive.url, root)
            _retrieve(archive.url, packed)
            for relative, payload in _unpacked(packed, archive, wanted):
                _check_digest(payload, relative, archive.url)
                _write(root / relative, payload)
        except _BROKEN_ARCHIVE as error:
            raise DataError(
                f"the download {archive.url} cannot be unpacked ({error}); try again, or put the "
                f"files of {name} under {root} yourself"
            ) from error
        except OSError as error:
            raise DataError(_absent(name, root, archive.url, error)) from error


def _retrieve(url: str, path: Path) -> None:
    # Not pooch.retrieve: it wants the digest of the *packed* file, and prints advice without one.
    pooch = experiments_module("pooch", f"to download {url}")
    pooch.HTTPDownloader()(url, str(path), None)


def _unpacked(packed: Path, archive: Archive, wanted: list[str]) -> Iterator[tuple[str, bytes]]:
    """The wanted files of an archive; names in a tar are compared, never used as paths."""
    if not archive.url.endswith(".tar.gz"):
        with gzip.open(packed) as stream:
            yield wanted[0], stream.read(_LARGEST + 1)
        return
    left = set(wanted)
    with tarfile.open(packed, "r|gz") as tar:
        for member in tar:
            if member.name in left and member.isfile():
                left.remove(member.name)
                yield member.name, _member_bytes(tar.extractfile(member))
    if left:
        raise tarfile.TarError(f"it lacks {', '.join(sorted(left))}")


def _member_bytes(stream: IO[bytes] | None) -> bytes:
    if stream is None:  # pragma: no cover - isfile() was asked first
        return b""
    return stream.read(_LARGEST + 1)


def _write(path: Path, payload: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, payload)


def _find(root: Path, relative: str) -> Path | None:
    """The file itself or, failing that, its `.gz`."""
    plain = root / relative
    # os.path.isfile: unlike Path.is_file it raises nothing, whatever the folder is
    return next((path for path in (plain, plain.with_name(f"{plain.name}.gz")) if os.path.isfile(path)), None)  # noqa: PTH113


def _check_digest(payload: bytes, relative: str, origin: str) -> None:
    found, expected = hashlib.sha256(payload).hexdigest(), SHA256[relative]
    if found != expected:
        raise DataError(
            f"{origin} is not the published {relative}: its SHA-256 is {found}, expected "
            f"{expected}; it is damaged or another version: delete it and load again, or replace it"
        )


def _absent(name: str, root: Path, url: str, error: Exception) -> str:
    missing = ", ".join(missing_files(name, root))
    return (
        f"data set {name} is absent: looked under {root} for {missing}, and downloading {url} "
        f"failed ({error}); set MPONET_DATA to a folder that holds the files, or take "
        "`--data digits`, which needs no network"
    )
