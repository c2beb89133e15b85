"""PyTorch tensors: as an array library for plans, and to and from numpy."""

import threading
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch._C import _functorch

from mponet.contraction.cost import is_apart
from mponet.contraction.machine import DEFAULTS
from mponet.contraction.ops import Body
from mponet.errors import BackendError

Array = torch.Tensor
DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
#: Sums over broadcast products are taken apart up to here, as plans reckon with.
_APART_LIMIT = DEFAULTS["torch"].apart_limit


class Ops:
    """`mponet.contraction.execute.Ops` of torch."""

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        """The array with another shape."""
        return array.reshape(shape)

    def transpose(self, array: Array, axes: tuple[int, ...]) -> Array:
        """The array with its axes in another order."""
        return array.permute(axes)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """``(m, k) @ (k, n)`` or ``(m, k) @ (p, k, n)``."""
        # torch.matmul may fold p into n, which copies b; an expanded bmm reads it in place
        return a @ b if b.ndim == 2 else torch.bmm(a.expand(b.shape[0], *a.shape), b)

    def linear(self, a: Array, b: Array, bias: Array | None) -> Array:
        """``(m, k) @ (k, n) + (n)``."""
        return torch.mm(a, b) if bias is None else torch.addmm(bias, a, b)

    def add(self, array: Array, bias: Array) -> Array:
        """``array + bias``."""
        return array + bias

    def accumulate_gradient(self, total: Array | None, a: Array, b: Array) -> Array:
        """``total`` plus ``a.T @ b``, or for three axes ``sum_p a[p] @ b[p].T``.

        16-bit numbers in float32.
        """
        product = a.T @ b if a.ndim == 2 else _across(a, b)
        if total is None:
            return product
        return total.to(torch.promote_types(product.dtype, torch.float32)) + product

    def finalize(self, total: Array, like: Array) -> Array:
        """The sum, in the dtype of ``like``."""
        return total.to(like.dtype)

    def spare(self, like: Array, turn: int) -> Array | None:
        """None: results are new arrays."""
        return None

    def matmul_permuted(
        self, a: Array, b: Array, sizes: tuple[int, ...], axes: tuple[int, ...], shape: tuple[int, ...]
    ) -> Array:
        """``a @ b`` as ``sizes``, its axes in another order, as ``shape``."""
        return self.matmul(a, b).reshape(sizes).permute(axes).reshape(shape)

    def batch_size(self, array: Array) -> int:
        """Length of the first axis."""
        return array.shape[0]

    def map_tiles(
        self, body: Body[Array], arrays: tuple[Array, ...], widths: Sequence[int], tile: int
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """``body`` over blocks of ``tile`` rows, its row results joined."""
        found, totals = [], None
        for blocks in zip(*(torch.split(array, tile) for array in arrays), strict=True):
            results, totals = body(blocks, (None,) * len(widths), totals)
            found.append(results)
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True)), totals or ()


class InPlace(Ops):
    """The same, written in place: for numbers that nothing differentiates, traces or maps."""

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        """The array with another shape; itself where it has that shape, to save a view."""
        return array if array.shape == shape else array.reshape(shape)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """``(m, k) @ (k, n)`` or ``(m, k) @ (p, k, n)``."""
        if b.ndim == 2:
            return torch.mm(a, b, out=out)
        return torch.bmm(a.expand(b.shape[0], *a.shape), b, out=out)

    def add(self, array: Array, bias: Array) -> Array:
        """``array + bias`` in the memory of ``array``."""
        return array.add_(bias)

    def accumulate_gradient(self, total: Array | None, a: Array, b: Array) -> Array:
        """As in the base class, but with a sum for each ``p`` where that is faster.

        Three axes then need no copy of ``a`` and ``b``.
        """
        if a.element_size() < 4:
            return super().accumulate_gradient(total, a, b)
        if a.ndim == 2:
            return torch.mm(a.T, b) if total is None else total.addmm_(a.T, b)
        if not is_apart(a.shape[1], b.shape[1], a.shape[2], _APART_LIMIT):
            return _across(a, b) if total is None else total.add_(_across(a, b))
        if total is None:
            return torch.bmm(a, b.mT)
        total[: len(a)].baddbmm_(a, b.mT)
        return total

    def finalize(self, total: Array, like: Array) -> Array:
        """The sum, in the dtype of ``like``."""
        return (total.sum(0) if total.ndim == 3 else total).to(like.dtype)

    def spare(self, like: Array, turn: int) -> Array | None:
        """Memory of this thread, where the system would take back what is freed."""
        return _scratch(like, tuple(like.shape), f"turn {turn}")

    def matmul_permuted(
        self, a: Array, b: Array, sizes: tuple[int, ...], axes: tuple[int, ...], shape: tuple[int, ...]
    ) -> Array:
        """The same, its product in memory that is used again.

        The system takes back what is freed, page by page.
        """
        kept = _scratch(a, (a.shape[0], b.shape[1]), "merged")
        if kept is None:
            return super().matmul_permuted(a, b, sizes, axes, shape)
        result = torch.mm(a, b, out=kept).reshape(sizes).permute(axes).reshape(shape)
        # a view where the new order happens to be one of strides: then it must not stay in that
        # memory
        return result.clone() if result.untyped_storage().data_ptr() == kept.untyped_storage().data_ptr() else result

    def map_tiles(
        self, body: Body[Array], arrays: tuple[Array, ...], widths: Sequence[int], tile: int
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """``body`` over blocks of ``tile`` rows, which write to their rows of the results."""
        rows, totals = self.batch_size(arrays[0]), None
        results = tuple(arrays[0].new_empty(rows, width) for width in widths)
        for start in range(0, rows, tile):
            blocks, out = (tuple(a[start : start + tile] for a in some) for some in (arrays, results))
            found, totals = body(blocks, out, totals)
            for place, part in zip(out, found, strict=True):
                if place.data_ptr() != part.data_ptr():
                    place.copy_(part)
        return results, totals or ()


#: Bytes of results that have their memory kept, for each thread and dtype: smaller ones the system
#: does not take back.
_SCRATCH = 1 << 17, 1 << 23
_local = threading.local()
OPS = Ops()
IN_PLACE = InPlace()


def _scratch(like: Array, shape: tuple[int, ...], use: str) -> Array | None:
    """Memory of this thread that the next call for the same use overwrites.

    None where that gains nothing.
    """
    size = prod(shape)
    if like.device.type != "cpu" or not _SCRATCH[0] <= size * like.element_size() <= _SCRATCH[1]:
        return None
    name = f"{like.dtype} {use}"
    kept: Array | None = getattr(_local, name, None)
    if kept is None or kept.numel() < size:
        with torch.inference_mode(False):  # what is made within inference mode may not be written to outside
            kept = torch.empty(size, dtype=like.dtype)
        setattr(_local, name, kept)
    return kept[:size].view(shape)


def ops_for(*arrays: Array | None) -> Ops:
    """In place, unless autograd records, a compiler traces or `torch.func` maps these arrays."""
    traced = torch.is_grad_enabled() or torch.compiler.is_compiling() or is_mapped(*arrays)
    return OPS if traced else IN_PLACE


def is_mapped(*arrays: Array | None) -> bool:
    """Whether `torch.func` (vmap, grad, jvp) wraps one of them.

    Then nothing may be written to plain memory.
    """
    if _functorch.peek_interpreter_stack() is None:  # none is at work, which is sooner known than of every array
        return False
    return any(array is not None and _functorch.is_functorch_wrapped_tensor(array) for array in arrays)


def is_functionalized() -> bool:
    """Whether `torch.func.functionalize` is at work; it has no rule for autograd functions."""
    keys = (interpreter.key() for interpreter in _functorch.get_interpreter_stack() or ())
    return _functorch.TransformType.Functionalize in keys


def _across(a: Array, b: Array) -> Array:
    """``sum_p a[p] @ b[p].T`` as one product."""
    p, k, q = a.shape
    return a.transpose(0, 1).reshape(k, p * q) @ b.transpose(0, 1).reshape(b.shape[1], p * q).T


def dtype_of(name: str) -> torch.dtype:
    """The framework's dtype called ``name``.

    Raises:
        BackendError: there is none, or it cannot be trained in.
    """
    if name not in DTYPES:
        raise BackendError(f"dtype is {name!r}; expected one of {', '.join(DTYPES)}")
    return DTYPES[name]


def devices() -> tuple[str, ...]:
    """Devices that `build` accepts, the default first."""
    cuda = [f"cuda:{k}" for k in range(torch.cuda.device_count())]
    return (*cuda, "cpu", *(["mps"] if torch.backends.mps.is_available() else []))


def device_of(name: str | None) -> torch.device:
    """The framework's device called ``name``; None for the default.

    Raises:
        BackendError: it is not there.
    """
    known = devices()
    wanted = known[0] if name is None else {"cuda": "cuda:0", "gpu": "cuda:0"}.get(name, name)
    if wanted not in known:
        raise BackendError(f"device is {name!r}; expected one of {', '.join(known)}")
    return torch.device(wanted)


def from_numpy(array: NDArray[Any], dtype: torch.dtype, device: torch.device) -> Array:
    """A tensor with the array's numbers, its own memory."""
    return torch.tensor(array, dtype=dtype, device=device)


def to_numpy(array: Array) -> NDArray[Any]:
    """The tensor's numbers in its own dtype (bfloat16, which numpy lacks, as float32).

    Of a tensor that is spread over processes, those of all: every process must call this.
    """
    array = (array.full_tensor() if hasattr(array, "full_tensor") else array).detach().cpu()
    if array.dtype == torch.bfloat16:
        array = array.float()
    return np.array(array.numpy())
