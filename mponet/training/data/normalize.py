"""From pixels to the numbers that a network takes."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mponet.errors import InputError
from mponet.training.data.dataset import scaled

_AT_A_TIME = 5000  # images whose squares are in memory together


@dataclass(frozen=True, slots=True, eq=False)
class Normalization:
    """``(pixels - mean) / deviation``, in float32.

    Attributes:
        mean: 0, or ``(height, width, channels)``.
        deviation: 255, or of the same shape.
    """

    mean: NDArray[np.float32] = field(repr=False)
    deviation: NDArray[np.float32] = field(repr=False)

    @classmethod
    def of(cls, kind: Literal["unit", "pixel"], images: NDArray[np.uint8]) -> "Normalization":
        """What a recipe asks for, from the raw training images ``(N, height, width, channels)``.

        ``unit`` is pixels / 255.  ``pixel`` takes off the mean image and divides by the standard
        deviation (biased: over N), each pixel and channel for itself (the authors' CIFAR-10 code);
        a pixel that never changes is divided by 1.

        Raises:
            InputError: an unknown kind.
        """
        if kind == "unit":
            return cls(np.float32(0), np.float32(255))  # type: ignore[arg-type]
        if kind != "pixel":
            raise InputError(f"normalization is {kind!r}; expected one of unit, pixel; choose one")
        count, total, squares = len(images), *_sums(images)
        # whole numbers until here, so the variance is exact but for one rounding
        variance = (count * squares - total**2) / count**2
        deviation = np.where(variance > 0, np.sqrt(variance), 1.0)
        return cls((total / count).astype(np.float32), deviation.astype(np.float32))

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raw images ``(N, height, width, channels)`` as float32.

        Raises:
            InputError: another dtype than uint8.
        """
        if self.mean.ndim == 0:
            return scaled(images)
        found: NDArray[np.float32] = np.subtract(images, self.mean, dtype=np.float32)
        return np.divide(found, self.deviation, out=found)


def _sums(images: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums over all images of pixels and of their squares."""
    total = np.zeros(images.shape[1:], np.int64)
    squares = np.zeros_like(total)
    for begin in range(0, len(images), _AT_A_TIME):
        block = images[begin : begin + _AT_A_TIME].astype(np.int64)
        total += block.sum(axis=0)
        squares += (block**2).sum(axis=0)
    return total, squares
