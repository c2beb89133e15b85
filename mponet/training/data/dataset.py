"""`Dataset`, and the changes that make one fit a model."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.errors import DataError, InputError
from mponet.training.data.optional import experiments_module

# `digits` replaces larger images where no network is available, so it is resized to any size.
# Published benchmarks are not: MNIST stretched to 32x32 is another data set under the same name.
_TAKES_ANY_SIZE = frozenset({"digits"})


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images and labels for training and testing, in NHWC order.

    The arrays are stored as read-only views; nothing is copied.

    Attributes:
        name: ``digits``, ``mnist``, ``fashion-mnist``, ``cifar10``, or a name of your own.
        train_images: uint8 `(N, H, W, C)`, pixels 0..255.
        train_labels: int64 `(N,)`, indices into `classes`.
        test_images: uint8 `(M, H, W, C)`.
        test_labels: int64 `(M,)`.
        classes: what each label means.
        source: one line that says where the data came from.

    Raises:
        DataError: arrays of another type or shape, or labels outside `classes`.
    """

    name: str
    train_images: NDArray[np.uint8] = field(repr=False)
    train_labels: NDArray[np.int64] = field(repr=False)
    test_images: NDArray[np.uint8] = field(repr=False)
    test_labels: NDArray[np.int64] = field(repr=False)
    classes: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
            _check_split(f"{self.name} ({split})", images, labels, len(self.classes))
            object.__setattr__(self, f"{split}_images", _read_only(images))
            object.__setattr__(self, f"{split}_labels", _read_only(labels))
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                f"{self.name}: test images of shape {self.test_images.shape[1:]}, "
                f"expected {self.train_images.shape[1:]} as in training"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image, `(H, W, C)`."""
        _, height, width, channels = self.train_images.shape
        return height, width, channels


def scaled(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels 0..255 as float32 in [0, 1]: `images / 255`, no mean subtracted (paper's MNIST code).

    Args:
        images: uint8, any shape.

    Raises:
        InputError: another dtype, which may have been scaled already.
    """
    if images.dtype != np.uint8:
        raise InputError(f"images have dtype {images.dtype}, expected uint8 pixels 0..255")
    return np.divide(images, np.float32(255), dtype=np.float32)


def fit(dataset: Dataset, image_shape: tuple[int, int, int]) -> Dataset:
    """The data set with images of shape `image_shape`; unchanged if they have it already.

    Two changes are made, no other:

    * grey images are repeated into as many channels as asked for (nothing is lost);
    * `digits` is resized, because it stands in for whatever a model takes.

    MNIST, Fashion-MNIST and CIFAR-10 keep their size, and colour is never dropped: a result with
    their name must be comparable with everybody else's.  Call `resized` to do it all the same.

    Args:
        dataset: what to fit.
        image_shape: `(height, width, channels)` that the model takes.

    Raises:
        DataError: it cannot be fitted by the rules above.
    """
    height, width, channels = image_shape
    if dataset.image_shape == (height, width, channels):
        return dataset
    has_size, has_channels = dataset.image_shape[:2], dataset.image_shape[2]
    size_fits = has_size == (height, width) or dataset.name in _TAKES_ANY_SIZE
    if min(image_shape) < 1 or not size_fits or has_channels not in (1, channels):
        raise DataError(
            f"{dataset.name} has images of shape {dataset.image_shape}, but the model takes "
            f"{tuple(image_shape)}; choose a data set of that shape, or `digits`, which is resized "
            "to any; mponet.training.data.resized(dataset, height, width) resizes on request"
        )
    return _with_channels(resized(dataset, height, width), channels)


def resized(dataset: Dataset, height: int, width: int) -> Dataset:
    """The data set with images of `height` x `width`, bilinear, rounded to uint8.

    Pixels are areas, not points (the half-pixel convention of PIL and of frameworks'
    `align_corners=False`).  Nothing is anti-aliased: shrinking by more than two skips pixels.

    Args:
        dataset: what to resize; returned unchanged if it has this size.
        height: new height in pixels.
        width: new width in pixels.

    Raises:
        InputError: a size below 1.
        DataError: scipy is missing.
    """
    if dataset.image_shape[:2] == (height, width):
        return dataset
    if min(height, width) < 1:
        raise InputError(f"cannot resize to {height}x{width}, expected sizes of 1 or more")
    old_height, old_width, _ = dataset.image_shape
    return replace(
        dataset,
        train_images=_zoomed(dataset.train_images, height, width),
        test_images=_zoomed(dataset.test_images, height, width),
        source=f"{dataset.source}; bilinear {old_height}x{old_width} -> {height}x{width}",
    )


def _zoomed(images: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """`(N, H, W, C)` to `(N, height, width, C)`."""
    ndimage = experiments_module("scipy.ndimage", "to resize images")
    count, old_height, old_width, channels = images.shape
    result = np.empty((count, height, width, channels), np.float32)
    zoom = (1, height / old_height, width / old_width, 1)
    ndimage.zoom(images.astype(np.float32), zoom, output=result, order=1, mode="nearest", grid_mode=True)
    return np.rint(result).astype(np.uint8)  # a bilinear mean cannot leave 0..255


def _with_channels(dataset: Dataset, channels: int) -> Dataset:
    """Grey images repeated into `channels` equal channels."""
    if dataset.image_shape[2] == channels:
        return dataset
    return replace(
        dataset,
        train_images=np.repeat(dataset.train_images, channels, axis=3),
        test_images=np.repeat(dataset.test_images, channels, axis=3),
        source=f"{dataset.source}; grey repeated into {channels} channels",
    )


def _check_split(where: str, images: object, labels: object, classes: int) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        raise DataError(f"{where}: images are {_kind(images)}, expected uint8 (N, H, W, C)")
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.ndim != 1:
        raise DataError(f"{where}: labels are {_kind(labels)}, expected int64 (N,)")
    if len(images) != len(labels) or images.size == 0:
        raise DataError(
            f"{where}: {len(images)} images and {len(labels)} labels, expected as many of each, and at least one"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{where}: labels {labels.min()}..{labels.max()}, expected 0..{classes - 1}")


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
