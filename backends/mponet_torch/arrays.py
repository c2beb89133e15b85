"""PyTorch tensors: as an array library for plans, and to and from numpy."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mponet.contract import Body
from mponet.errors import BackendError

Array = torch.Tensor
DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Ops:
    """`mponet.contract.Ops` of torch."""

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        """The array with another shape."""
        return array.reshape(shape)

    def transpose(self, array: Array, axes: tuple[int, ...]) -> Array:
        """The array with its axes in another order."""
        return array.permute(axes)

    def matmul(self, a: Array, b: Array) -> Array:
        """``(m, k) @ (k, n)`` or ``(m, k) @ (p, k, n)``."""
        if b.ndim == 2:
            return a @ b
        # torch.matmul may fold p into n, which copies b; an expanded bmm reads it in place
        return torch.bmm(a.expand(b.shape[0], *a.shape), b)

    def rows(self, array: Array) -> int:
        """Length of the first axis."""
        return array.shape[0]

    def tiled(
        self, body: Body[Array], arrays: tuple[Array, ...], tile: int
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """``body`` over blocks of ``tile`` rows, its row results joined, its sums added up."""
        results = [body(*blocks) for blocks in zip(*(torch.split(array, tile) for array in arrays), strict=True)]
        joined = tuple(torch.cat(parts) for parts in zip(*(rows for rows, _ in results), strict=True))
        return joined, tuple(_total(parts) for parts in zip(*(sums for _, sums in results), strict=True))


OPS = Ops()


def _total(parts: tuple[Array, ...]) -> Array:
    """The sum, 16-bit numbers added up in float32: in their own dtype a long sum stops growing."""
    wide = torch.promote_types(parts[0].dtype, torch.float32)
    return sum((part.to(wide) for part in parts[1:]), parts[0].to(wide)).to(parts[0].dtype)


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
    """The tensor's numbers in its own dtype (bfloat16, which numpy lacks, as float32)."""
    array = array.detach().cpu()
    if array.dtype == torch.bfloat16:
        array = array.float()
    return np.array(array.numpy())
