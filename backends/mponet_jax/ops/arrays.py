"""JAX arrays: as an array library for plans, and to and from numpy."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mponet.contraction.ops import Body
from mponet.errors import BackendError

Array = jax.Array
DTYPES: dict[str, Any] = {
    "float64": jnp.float64,
    "float32": jnp.float32,
    "bfloat16": jnp.bfloat16,
    "float16": jnp.float16,
}
#: JAX rounds float32 products to TF32 (or bfloat16 on a TPU) unless told not to.
PRECISION = lax.Precision.HIGHEST
#: Results and sums of the rows done so far.
_Carried = tuple[tuple[Array, ...], tuple[Array, ...]]


class Ops:
    """`mponet.contraction.execute.Ops` of JAX."""

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        """The array with another shape."""
        return jnp.reshape(array, shape)

    def transpose(self, array: Array, axes: tuple[int, ...]) -> Array:
        """The array with its axes in another order."""
        return jnp.transpose(array, axes)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """``(m, k) @ (k, n)`` or ``(m, k) @ (p, k, n)``."""
        # dot_general and einsum compile to the same or slower; an expanded batch copies the small
        # factor p times
        return jnp.matmul(a, b, precision=PRECISION)

    def linear(self, a: Array, b: Array, bias: Array | None) -> Array:
        """``(m, k) @ (k, n) + (n)``."""
        product = self.matmul(a, b)
        return product if bias is None else product + bias

    def add(self, array: Array, bias: Array) -> Array:
        """``array + bias``."""
        return array + bias

    def accumulate_gradient(self, total: Array | None, a: Array, b: Array) -> Array:
        """``total`` plus ``a.T @ b``, or for three axes ``sum_p a[p] @ b[p].T``; 16-bit numbers in float32."""
        summed = ((0,), (0,)) if a.ndim == 2 else ((0, 2), (0, 2))
        wide = accumulator(a.dtype)
        product = lax.dot_general(a, b, (summed, ((), ())), precision=PRECISION, preferred_element_type=wide)
        return product if total is None else total + product

    def finalize(self, total: Array, like: Array) -> Array:
        """The sum, in the dtype of ``like``."""
        return total.astype(like.dtype)

    def matmul_permuted(
        self, a: Array, b: Array, sizes: tuple[int, ...], axes: tuple[int, ...], shape: tuple[int, ...]
    ) -> Array:
        """``a @ b`` as ``sizes``, its axes in another order, as ``shape``."""
        return jnp.transpose(self.matmul(a, b).reshape(sizes), axes).reshape(shape)

    def batch_size(self, array: Array) -> int:
        """Length of the first axis; -1 where `jax.export` leaves it open."""
        return array.shape[0] if isinstance(array.shape[0], int) else -1

    def map_tiles(
        self, body: Body[Array], arrays: tuple[Array, ...], widths: Sequence[int], tile: int
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """``body`` over blocks of ``tile`` rows: a loop over full tiles, then what is left, if anything is."""
        nowhere = (None,) * len(widths)
        count, left = divmod(self.batch_size(arrays[0]), tile)
        tiles = (jax.ShapeDtypeStruct((tile, *array.shape[1:]), array.dtype) for array in arrays)
        rows, sums = jax.eval_shape(lambda *tiles: body(tiles, nowhere, None), *tiles)

        def write(carried: _Carried, start: Array | int, size: int) -> _Carried:
            blocks = tuple(lax.dynamic_slice_in_dim(array, start, size) for array in arrays)
            rows, totals = body(blocks, nowhere, carried[1])
            written = (lax.dynamic_update_slice_in_dim(*pair, start, 0) for pair in zip(carried[0], rows, strict=True))
            return tuple(written), totals

        carried = _unwritten(arrays, rows), tuple(jnp.zeros(total.shape, total.dtype) for total in sums)
        carried = lax.fori_loop(0, count, lambda k, carried: write(carried, k * tile, tile), carried)
        return write(carried, count * tile, left) if left else carried


def _unwritten(arrays: tuple[Array, ...], rows: tuple[Any, ...]) -> tuple[Array, ...]:
    """Arrays for the results of a loop: zeros, or in a backward pass the inputs, whose gradient takes their place.

    Zeros of the same shape in a forward and a backward pass would be made once, and copied, an
    array more at the peak.
    """
    shapes = [(arrays[0].shape[0], *part.shape[1:]) for part in rows]
    if len(arrays) > 1 and all(array.shape == shape for array, shape in zip(arrays, shapes, strict=False)):
        return arrays[: len(rows)]
    return tuple(jnp.zeros(shape, part.dtype) for shape, part in zip(shapes, rows, strict=True))


OPS = Ops()


def accumulator(dtype: DTypeLike) -> Any:
    """The dtype to add up many numbers of ``dtype`` in: float32 at least."""
    return jnp.promote_types(dtype, jnp.float32)


def dtype_of(name: str) -> Any:
    """The framework's dtype called ``name``.

    Raises:
        BackendError: there is none, or it is float64 and JAX would make float32 of it.
    """
    if name not in DTYPES:
        raise BackendError(f"dtype is {name!r}; expected one of {', '.join(DTYPES)}")
    return supported(DTYPES[name])


def supported(dtype: Any) -> Any:
    """The dtype itself, if JAX keeps it.

    Raises:
        BackendError: it is float64 and JAX would make float32 of it.
    """
    if jnp.dtype(dtype) == jnp.float64 and jax.dtypes.canonicalize_dtype(dtype) != jnp.float64:
        raise BackendError(
            "dtype is 'float64', of which JAX makes float32; expected 64-bit numbers to be switched on; set "
            "JAX_ENABLE_X64=1 before Python starts"
        )
    return dtype


def devices() -> tuple[str, ...]:
    """Devices that `build` accepts, the default first."""
    return tuple(_devices())


def device_of(name: str | None) -> jax.Device:
    """The framework's device called ``name``; None for the default.

    Raises:
        BackendError: it is not there.
    """
    known = _devices()
    default = next(iter(known))
    wanted = default if name is None else {"cuda": "cuda:0", "gpu": "cuda:0", "tpu": "tpu:0"}.get(name, name)
    if wanted not in known:
        raise BackendError(f"device is {name!r}; expected one of {', '.join(known)}")
    return known[wanted]


def from_numpy(array: ArrayLike, dtype: Any, device: Any = None) -> Array:
    """An array with these numbers, its own memory; ``device`` is a device, a sharding, or None for JAX to choose."""
    # on a CPU, JAX may keep using the memory of what it is given: hence a copy that nobody else has
    placed: Array = jax.device_put(np.array(array, supported(dtype)), device)
    return placed


def to_numpy(array: Array) -> NDArray[Any]:
    """The array's numbers in its own dtype (bfloat16, which numpy lacks, as float32)."""
    return np.array(array, np.float32 if array.dtype == jnp.bfloat16 else array.dtype)


def _devices() -> dict[str, jax.Device]:
    """Devices of this process by name, the default first."""
    found = {f"{_platform(device)}:{device.id}": device for device in jax.local_devices() if device.platform != "cpu"}
    try:
        return {**found, "cpu": jax.local_devices(backend="cpu")[0]}
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return found


def _platform(device: jax.Device) -> str:
    return "cuda" if device.platform == "gpu" else device.platform
