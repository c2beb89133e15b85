"""JAX arrays: as an array library for plans, and to and from numpy."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
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
#: Columns of a gradient that are few for XLA's products on a CPU.
_FEW_COLUMNS = 128


class Ops:
    """`mponet.contraction.ops.ForwardOps` of JAX; JAX differentiates them itself."""

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        """The array with another shape."""
        return jnp.reshape(array, shape)

    def transpose(self, array: Array, axes: tuple[int, ...]) -> Array:
        """The array with its axes in another order."""
        return jnp.transpose(array, axes)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """``(m, k) @ (k, n)`` or ``(m, k) @ (p, k, n)``, in the narrower dtype of the two."""
        a, b = _alike(a, b)
        if _has_slow_gradient(a, b):
            turned = lax.optimization_barrier(b.T)  # or XLA would turn it back
            return lax.dot_general(a, turned, (((1,), (1,)), ((), ())), precision=PRECISION)
        # dot_general and einsum compile to the same or slower; an expanded batch copies the small
        # factor p times
        return jnp.matmul(a, b, precision=PRECISION)

    def linear(self, a: Array, b: Array, bias: Array | None) -> Array:
        """``(m, k) @ (k, n) + (n)``."""
        product = self.matmul(a, b)
        return product if bias is None else self.add(product, bias)

    def add(self, array: Array, bias: Array) -> Array:
        """``array + bias``, in the dtype of ``array``."""
        # the bias is spread out before it is narrowed: its gradient is then summed in the wide
        # dtype
        return array + jnp.broadcast_to(bias.reshape(1, -1), array.shape).astype(array.dtype)

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
        """``body`` over blocks of ``tile`` rows.

        Its states are computed again when it is differentiated.
        """
        (inputs,) = arrays

        @jax.checkpoint
        def block(rows: Array) -> Array:
            return body((rows,), (None,), None)[0][0]

        # rows of a batch may lie on several devices: then every block takes some of each device's
        return ((_by_device if jax.device_count() > 1 else _consecutive)(block, inputs, tile),), ()


def _consecutive(block: Callable[[Array], Array], inputs: Array, tile: int) -> Array:
    """Blocks of neighbouring rows, then what is left, if anything is."""
    rows, width = inputs.shape
    whole = rows - rows % tile
    done = lax.map(block, inputs[:whole].reshape(-1, tile, width))
    results = done.reshape(whole, done.shape[-1])
    return jnp.concatenate([results, block(inputs[whole:])]) if whole < rows else results


def _by_device(block: Callable[[Array], Array], inputs: Array, tile: int) -> Array:
    """Blocks that take as many rows of every device, so that a sharded batch stays where it is."""
    rows, width = inputs.shape
    devices = jax.device_count()
    own = -(-rows // devices)
    count = -(-own // max(tile // devices, 1))
    size = -(-own // count)
    padded = jnp.pad(inputs, ((0, own * devices - rows), (0, 0))) if own * devices > rows else inputs
    parts = padded.reshape(devices, own, width)
    if size * count > own:  # along an axis that is not sharded: no row moves
        parts = jnp.pad(parts, ((0, 0), (0, size * count - own), (0, 0)))
    blocks = parts.reshape(devices, count, size, width).swapaxes(0, 1)
    done: Array = lax.map(block, blocks.reshape(count, devices * size, width))
    done = done.reshape(count, devices, size, -1).swapaxes(0, 1).reshape(devices, count * size, -1)
    return done[:, :own].reshape(devices * own, -1)[:rows]


def _has_slow_gradient(a: Array, b: Array) -> bool:
    """Whether the gradient of ``b`` is computed much faster transposed.

    XLA's products on a CPU are slow where the result has few columns and many rows.  For few rows
    of ``a`` the copy of ``b`` would cost more than that.
    """
    if a.ndim != 2 or b.ndim != 2 or not isinstance(a.shape[0], int) or jax.default_backend() != "cpu":
        return False
    inner, columns = b.shape
    return columns < inner <= a.shape[0] and columns <= _FEW_COLUMNS


def _alike(a: Array, b: Array) -> tuple[Array, Array]:
    """Both in the narrower dtype."""
    if a.dtype == b.dtype:
        return a, b
    narrow = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
    return a.astype(narrow), b.astype(narrow)


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
    """A new array with these numbers, in its own memory.

    ``device`` is a device or a sharding; None lets JAX choose.
    """
    # on a CPU, JAX may keep using the memory of what it is given: hence a copy of its own
    placed: Array = jax.device_put(np.array(array, supported(dtype)), device)
    return placed


def to_numpy(array: Array) -> NDArray[Any]:
    """The array's numbers in its own dtype (bfloat16, which numpy lacks, as float32).

    Of an array that is spread over processes, those of all: every process must call this.
    """
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        array = multihost_utils.process_allgather(array, tiled=True)
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
