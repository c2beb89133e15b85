"""Random changes of training images, on raw pixels and for a whole batch at once."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

PAD = 4  # zeros on each side (the authors' CIFAR-10 code)


def crop_flip(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Images padded by `PAD` zeros on each side, cropped to their size at random and mirrored.

    Each image has its own crop, one of ``(2 PAD + 1)^2``, and is mirrored left to right with
    probability 1/2.

    Args:
        images: raw pixels ``(batch, height, width, channels)``.
        rng: where the choices come from: rows, columns, then mirrors, each for the whole batch.
    """
    batch, height, width, _ = images.shape
    rows, columns = rng.integers(0, 2 * PAD + 1, (2, batch))
    mirrored = rng.random(batch) < 0.5
    padded = np.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))
    windows = sliding_window_view(padded, (height, width), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
    found: NDArray[np.uint8] = windows[np.arange(batch), rows, columns]
    found[mirrored] = found[mirrored, :, ::-1]
    return found
