"""Parsers of the published formats: bytes to arrays, every length and header checked.

IDX: http://yann.lecun.com/exdb/mnist; CIFAR-10 binary version:
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import math

import numpy as np
from numpy.typing import NDArray

from mponet.errors import DataError

_IDX_UINT8 = 0x08
_CIFAR_SIDE, _CIFAR_CHANNELS = 32, 3
_CIFAR_RECORD = 1 + _CIFAR_CHANNELS * _CIFAR_SIDE * _CIFAR_SIDE


def parse_idx(payload: bytes, ndim: int, origin: str) -> NDArray[np.uint8]:
    """An uint8 IDX file: bytes `0, 0, 8, ndim`, the sizes as big-endian uint32, the values.

    Args:
        payload: the whole file, unpacked.
        ndim: 3 for images, 1 for labels.
        origin: the file's name, for messages.

    Returns:
        Read-only uint8 array that shares the memory of `payload`.

    Raises:
        DataError: another magic number, or a length that differs from what the header says.
    """
    magic, start = bytes([0, 0, _IDX_UINT8, ndim]), 4 + 4 * ndim
    if payload[:4] != magic:
        raise DataError(
            f"{origin} is not an IDX file of {ndim}-dimensional uint8 data: it starts with "
            f"{payload[:4].hex(' ') or 'nothing'}, expected {magic.hex(' ')}; replace the file"
        )
    sizes = [int.from_bytes(payload[k : k + 4], "big") for k in range(4, start, 4)]
    expected = start + math.prod(sizes)
    if len(payload) < start or len(payload) != expected:
        raise DataError(
            f"{origin} has {len(payload)} bytes, expected {expected} by its header ({sizes}); "
            "it is truncated or altered: replace the file"
        )
    return np.frombuffer(payload, np.uint8, offset=start).reshape(sizes)


def parse_cifar(payload: bytes, origin: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A CIFAR-10 file: records of one label byte and 3 x 32 x 32 pixels, channel first.

    Args:
        payload: the whole file.
        origin: the file's name, for messages.

    Returns:
        Images, uint8 `(N, 32, 32, 3)`, and labels, uint8 `(N,)`.

    Raises:
        DataError: the length is not a positive multiple of 3,073 bytes.
    """
    if not payload or len(payload) % _CIFAR_RECORD:
        raise DataError(
            f"{origin} has {len(payload)} bytes, expected a multiple of {_CIFAR_RECORD} "
            "(1 label and 3,072 pixels per image); it is truncated or altered: replace the file"
        )
    records = np.frombuffer(payload, np.uint8).reshape(-1, _CIFAR_RECORD)
    planes = records[:, 1:].reshape(-1, _CIFAR_CHANNELS, _CIFAR_SIDE, _CIFAR_SIDE)
    return planes.transpose(0, 2, 3, 1), records[:, 0]
