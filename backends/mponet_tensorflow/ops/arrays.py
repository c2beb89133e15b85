"""TensorFlow tensors: as an array library for plans, and to and from numpy.

Everything of TensorFlow and Keras that has to be settled before they are imported is settled here.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.contraction.cost import is_apart
from mponet.contraction.machine import DEFAULTS
from mponet.contraction.ops import Body
from mponet.errors import BackendError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # has no effect once TensorFlow is loaded


def _check_keras(wanted: str, where: str) -> None:
    if wanted != "tensorflow":
        raise BackendError(
            f"keras is configured by {where} for {wanted!r}; expected 'tensorflow'; set KERAS_BACKEND=tensorflow "
            "before Python starts"
        )


def _keras_setting() -> tuple[str, str]:
    """The framework that keras will load, and what says so.

    The variable, else the file, read as keras reads them.
    """
    if named := os.environ.get("KERAS_BACKEND"):
        return named, "KERAS_BACKEND"
    path = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "keras.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["backend"]), "~/.keras/keras.json"
    except (OSError, ValueError, LookupError, TypeError):  # keras takes its default then, too
        return "tensorflow", "its default"


# keras loads the framework that it is configured for as it is imported, and keeps it; that choice
# is not ours to change.  It is checked first because a framework that is not installed ends that
# import in an error of its own.
_check_keras(*_keras_setting())

import keras  # noqa: E402 - the setting is checked first
import tensorflow as tf  # noqa: E402 - TF_CPP_MIN_LOG_LEVEL is set first

_check_keras(keras.config.backend(), "whoever imported it first")

Array = tf.Tensor
DTYPES = {
    "float64": tf.float64,
    "float32": tf.float32,
    "bfloat16": tf.bfloat16,
    "float16": tf.float16,
}
#: Sums over broadcast products are taken apart up to here, as plans reckon with.
_APART_LIMIT = DEFAULTS["tensorflow"].apart_limit


class Ops:
    """`mponet.contraction.execute.Ops` of TensorFlow.

    Also while tracing, with the batch known or not.
    """

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        """The array with another shape."""
        return tf.reshape(array, shape)

    def transpose(self, array: Array, axes: tuple[int, ...]) -> Array:
        """The array with its axes in another order."""
        return tf.transpose(array, axes)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """``(m, k) @ (k, n)`` or ``(m, k) @ (p, k, n)``."""
        return tf.matmul(a, b)  # broadcasts ``a`` without copying it

    def linear(self, a: Array, b: Array, bias: Array | None) -> Array:
        """``(m, k) @ (k, n) + (n)``."""
        product = tf.matmul(a, b)
        return product if bias is None else tf.nn.bias_add(product, bias)

    def add(self, array: Array, bias: Array) -> Array:
        """``array + bias``."""
        return tf.nn.bias_add(array, bias)

    def accumulate_gradient(self, total: Array | None, a: Array, b: Array) -> Array:
        """``total`` plus ``a.T @ b``, or for three axes ``sum_p a[p] @ b[p].T``."""
        if len(a.shape) == 2:
            product = tf.matmul(a, b, transpose_a=True)
        elif a.dtype.size >= 4 and is_apart(a.shape[1], b.shape[1], a.shape[2], _APART_LIMIT):
            product = tf.reduce_sum(tf.matmul(a, b, transpose_b=True), 0)  # wants no copies of ``a`` and ``b``
        else:
            # rows of a and b side by side: twice as fast as their columns
            across, down = (tf.reshape(tf.transpose(x, (0, 2, 1)), (-1, x.shape[1])) for x in (a, b))
            product = tf.matmul(across, down, transpose_a=True)
        return product if total is None else total + product

    def finalize(self, total: Array, like: Array) -> Array:
        """The sum itself."""
        return total

    def spare(self, like: Array, turn: int) -> Array | None:
        """None: results are new arrays."""
        return None

    def matmul_permuted(
        self, a: Array, b: Array, sizes: tuple[int, ...], axes: tuple[int, ...], shape: tuple[int, ...]
    ) -> Array:
        """``a @ b`` as ``sizes``, its axes in another order, as ``shape``."""
        return tf.reshape(tf.transpose(tf.reshape(tf.matmul(a, b), sizes), axes), shape)

    def batch_size(self, array: Array) -> int:
        """Length of the first axis; -1 while it is not known."""
        rows: int | None = array.shape[0]
        return -1 if rows is None else rows

    def map_tiles(
        self, body: Body[Array], arrays: tuple[Array, ...], widths: Sequence[int], tile: int
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """``body`` over blocks of ``tile`` rows, its row results joined, its sums carried along."""
        rows = self.batch_size(arrays[0])
        whole = rows - rows % tile
        found, totals, nowhere = [], None, (None,) * len(widths)
        if tf.executing_eagerly():
            for k in range(0, whole, tile):
                results, totals = body(tuple(array[k : k + tile] for array in arrays), nowhere, totals)
                found.append(results)
        elif whole:
            results, totals = _loop(body, tuple(array[:whole] for array in arrays), nowhere, tile)
            found.append(results)
        if whole < rows:
            results, totals = body(tuple(array[whole:] for array in arrays), nowhere, totals)
            found.append(results)
        return tuple(tf.concat(parts, 0) for parts in zip(*found, strict=True)), totals or ()


def _loop(
    body: Body[Array], arrays: tuple[Array, ...], nowhere: tuple[None, ...], tile: int
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """`Ops.map_tiles` while tracing, for whole tiles.

    A loop, because unrolled tiles would be traced one by one and then run at the same time, with
    all intermediates.
    """
    count = arrays[0].shape[0] // tile
    blocks = [tf.reshape(array, (count, tile, *array.shape[1:])) for array in arrays]
    # the first tile tells shapes and dtypes
    first_rows, first_sums = body(tuple(block[0] for block in blocks), nowhere, None)
    written = [tf.TensorArray(part.dtype, count, element_shape=part.shape).write(0, part) for part in first_rows]

    def once(k: Array, written: list[tf.TensorArray], sums: list[Array]) -> tuple[Any, ...]:
        rows, totals = body(tuple(block[k] for block in blocks), nowhere, tuple(sums))
        return k + 1, [array.write(k, part) for array, part in zip(written, rows, strict=True)], list(totals)

    _, written, sums = tf.while_loop(
        lambda k, *_: k < count,
        once,
        (1, written, list(first_sums)),
        parallel_iterations=1,
        maximum_iterations=count - 1,  # XLA wants the bound to differentiate the loop once more
    )
    rows = tuple(
        tf.reshape(array.stack(), (count * tile, *part.shape[1:]))
        for array, part in zip(written, first_rows, strict=True)
    )
    return rows, tuple(sums)


OPS = Ops()


def dtype_of(name: str) -> tf.DType:
    """The framework's dtype called ``name``.

    Raises:
        BackendError: there is none, or it cannot be trained in.
    """
    if name not in DTYPES:
        raise BackendError(f"dtype is {name!r}; expected one of {', '.join(DTYPES)}")
    return DTYPES[name]


def devices() -> tuple[str, ...]:
    """Devices that `build` accepts, the default first."""
    return (*(f"gpu:{k}" for k in range(len(tf.config.list_physical_devices("GPU")))), "cpu")


def device_of(name: str | None) -> str:
    """The framework's device called ``name``, as `tf.device` takes it; None for the default.

    Raises:
        BackendError: it is not there.
    """
    known = devices()
    wanted = known[0] if name is None else {"cuda": "gpu:0", "gpu": "gpu:0"}.get(name, name.replace("cuda:", "gpu:"))
    if wanted not in known:
        raise BackendError(f"device is {name!r}; expected one of {', '.join(known)}")
    return wanted


def from_numpy(array: NDArray[Any], dtype: tf.DType) -> Array:
    """A tensor with the array's numbers, its own memory, on the current device."""
    # TensorFlow may take over numpy's memory instead of copying it; astype always copies
    return tf.constant(np.asarray(array).astype(dtype.as_numpy_dtype))


def to_numpy(array: Array) -> NDArray[Any]:
    """The numbers of a tensor or variable in its own dtype.

    bfloat16, which numpy lacks, becomes float32.
    """
    numbers = array.numpy()
    return np.array(numbers, np.float32 if numbers.dtype.name == "bfloat16" else None)
