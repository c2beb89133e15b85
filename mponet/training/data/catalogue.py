"""The data sets by name."""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mponet.errors import DataError
from mponet.training.data.dataset import Dataset
from mponet.training.data.files import ARCHIVES, data_root, download, missing_files, read_checked
from mponet.training.data.formats import parse_cifar, parse_idx
from mponet.training.data.optional import experiments_module

_DIGITS = "digits"
_DIGITS_SEED = 20200602  # any fixed number: the split is part of the data set, not of a run
_NUMERALS = tuple("0123456789")
# https://github.com/zalandoresearch/fashion-mnist, section "Labels"
_CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# batches.meta.txt of the CIFAR-10 binary version
_THINGS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_Split = tuple[NDArray[np.uint8], NDArray[np.int64]]


def names() -> tuple[str, ...]:
    """Every name that `load` knows."""
    return (_DIGITS, *ARCHIVES)


def default_name() -> str:
    """`digits`, when nothing else is asked for.

    Always, even where larger data sets lie ready: what a command does must not depend on what its
    machine happens to have on disk.
    """
    return _DIGITS


def available(root: Path | None = None) -> tuple[str, ...]:
    """Names of the data sets that can be loaded right now, without a network.

    Files are looked for, not read: a damaged one is found by `load`.

    Args:
        root: folder of the files; default ``$MPONET_DATA``, else the cache.
    """
    bundled = (_DIGITS,) if find_spec("sklearn") else ()
    try:
        folder = data_root(root)
    except DataError:  # no folder given and no pooch, hence no cache
        return bundled
    return (*bundled, *(name for name in ARCHIVES if not missing_files(name, folder)))


def load(name: str, *, root: Path | None = None) -> Dataset:
    """The data set of this name, downloaded first if its files are absent.

    Args:
        name: ``digits``, ``mnist``, ``fashion-mnist`` or ``cifar10``.
        root: folder of the files; default ``$MPONET_DATA``, else the cache.  `digits` needs none.

    Raises:
        DataError: an unknown name; files absent and not to be downloaded; a file with another
            SHA-256 than the published one; a needed library missing.
    """
    if name not in names():
        raise DataError(f"unknown data set {name!r}, expected one of: {', '.join(names())}")
    if name == _DIGITS:
        return _digits()
    folder = data_root(root)
    if missing_files(name, folder):
        download(name, folder)
    return _cifar10(folder) if name == "cifar10" else _idx_dataset(name, folder)


def _digits() -> Dataset:
    """1,797 real grey digits of 8x8, bundled with scikit-learn.

    They are the test part of UCI's "Optical Recognition of Handwritten Digits".  Pixels 0..16
    become 0..255.  See `_digits_split` for the split.
    """
    bunch = experiments_module("sklearn.datasets", "for the data set digits").load_digits()
    images = np.rint(bunch.images[..., None] * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    train, test = _digits_split(labels)
    return Dataset(
        name=_DIGITS,
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        classes=_NUMERALS,
        source=f"bundled with scikit-learn {version('scikit-learn')}, 8x8, fixed 1437/360 split",
    )


def _digits_split(labels: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices for training (1,437) and testing (360), stratified, the same everywhere.

    Shuffle with a fixed seed, sort by label (stable), take every fifth for testing: each class
    gives a fifth of its images, within one.  The publisher made no split of these images.
    """
    order = np.random.default_rng(_DIGITS_SEED).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    test = np.sort(by_class[::5])
    return np.setdiff1d(np.arange(len(labels)), test), test


def _idx_dataset(name: str, root: Path) -> Dataset:
    """MNIST or Fashion-MNIST: 60,000 + 10,000 grey images of 28x28."""
    train_images, train_labels = _idx_split(name, root, "train")
    test_images, test_labels = _idx_split(name, root, "t10k")
    return Dataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=_NUMERALS if name == "mnist" else _CLOTHES,
        source=f"IDX files in {root / name}, SHA-256 checked",
    )


def _idx_split(name: str, root: Path, prefix: str) -> _Split:
    images, labels = f"{name}/{prefix}-images-idx3-ubyte", f"{name}/{prefix}-labels-idx1-ubyte"
    pixels = parse_idx(read_checked(root, images), 3, images)
    return pixels[..., None], parse_idx(read_checked(root, labels), 1, labels).astype(np.int64)


def _cifar10(root: Path) -> Dataset:
    """CIFAR-10: 50,000 + 10,000 colour images of 32x32."""
    train_images, train_labels = _cifar_split(root, [f"data_batch_{k}" for k in range(1, 6)])
    test_images, test_labels = _cifar_split(root, ["test_batch"])
    return Dataset(
        name="cifar10",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=_THINGS,
        source=f"binary version in {root / 'cifar-10-batches-bin'}, SHA-256 checked",
    )


def _cifar_split(root: Path, stems: list[str]) -> _Split:
    paths = [f"cifar-10-batches-bin/{stem}.bin" for stem in stems]
    images, labels = zip(*(parse_cifar(read_checked(root, p), p) for p in paths), strict=True)
    # out=: np.concatenate of transposed views would keep their channel-first memory order.
    joined = np.empty((sum(map(len, images)), *images[0].shape[1:]), np.uint8)
    return np.concatenate(images, out=joined), np.concatenate(labels).astype(np.int64)
