"""Arrays of the core.

Numpy, float64, real, finite, read-only.  Every door of the core reads its arrays here.
"""

from math import frexp, inf, ldexp
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mponet.errors import InputError

Array = NDArray[np.float64]


def as_float64(value: ArrayLike, name: str) -> Array:
    """``value`` as a read-only float64 array that shares no memory with anything writable.

    Arrays of every framework are read: parameters of PyTorch that require a gradient, bfloat16,
    arrays on an accelerator, read-only arrays.

    Args:
        value: an array, a tensor of a framework, or nested sequences of numbers.
        name: what the array is, for messages.

    Raises:
        InputError: it is not an array of real, finite numbers: complex, masked, sparse, nested,
            quantised, symbolic, or without data.
    """
    array = _read(value, name)
    if array.dtype.kind == "c":
        raise InputError(
            f"{name} is complex ({array.dtype}); expected real numbers, since the imaginary part would be lost; "
            "pass its real and imaginary parts as two operators"
        )
    if not np.can_cast(array.dtype, np.float64, "same_kind"):
        raise InputError(f"{name} has the dtype {array.dtype}; expected real numbers; convert it first")
    # A read-only view may look at memory that its owner still writes to.
    if array.dtype != np.float64 or array.flags.writeable or array.base is not None:
        array = np.array(array, dtype=np.float64)
        array.flags.writeable = False
    if not np.isfinite(array).all():
        count = int(array.size - np.isfinite(array).sum())
        raise InputError(f"{name} has {count} non-finite of {array.size} entries; expected finite numbers only")
    return array


def norm(array: Array) -> float:
    """Frobenius norm without overflow or underflow of squares, at any scale of the array."""
    scaled, exponent = split_scale(array)
    return scale_by(float(np.linalg.norm(scaled)), exponent)


def split_scale(array: Array) -> tuple[Array, int]:
    """``(scaled, e)`` with ``array = scaled * 2**e``.

    The largest entry of ``scaled`` is in [0.5, 1).

    A power of two changes no digit.  Of an array of zeros the exponent is 0.
    """
    exponent = frexp(float(np.abs(array).max(initial=0.0)))[1]
    return np.asarray(np.ldexp(array, -exponent), np.float64), exponent


def scale_by(value: float, exponent: int) -> float:
    """``value * 2**exponent`` of a ``value`` of at least 0.

    Infinite or 0 where float64 does not reach.
    """
    try:
        return ldexp(value, exponent)
    except OverflowError:
        return inf


def _read(value: Any, name: str) -> NDArray[Any]:
    """The numpy array of a value, in a dtype of its own.

    Raises:
        InputError: numpy or the framework of the value refuses, or a mask would be dropped.
    """
    if np.ma.is_masked(value):
        raise InputError(f"{name} is a masked array with masked entries; expected numbers everywhere; fill it first")
    try:
        return np.asarray(_detached(value))
    except Exception as error:  # each framework raises its own
        raise InputError(
            f"{name} cannot be read as an array ({type(value).__name__}: {error}); expected real numbers in memory, in "
            "rows of equal length; convert it to a dense array first"
        ) from error


def _detached(value: Any) -> Any:
    """A tensor of PyTorch on the CPU, without its graph, in a dtype that numpy knows.

    Anything else as it is.
    """
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    return tensor.double() if tensor.is_floating_point() else tensor
