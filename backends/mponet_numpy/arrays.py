"""numpy as an array library for plans."""

import numpy as np
from numpy.typing import NDArray

from mponet.contract import Body

Array = NDArray[np.floating]


class Ops:
    """`mponet.contract.Ops` of numpy."""

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        """The array with another shape."""
        return array.reshape(shape)

    def transpose(self, array: Array, axes: tuple[int, ...]) -> Array:
        """The array with its axes in another order."""
        return array.transpose(axes)

    def matmul(self, a: Array, b: Array) -> Array:
        """``(m, k) @ (k, n)`` or ``(m, k) @ (p, k, n)``."""
        return a @ b

    def rows(self, array: Array) -> int:
        """Length of the first axis."""
        return array.shape[0]

    def tiled(
        self, body: Body[Array], arrays: tuple[Array, ...], tile: int
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """``body`` over blocks of ``tile`` rows, its row results joined, its sums added up."""
        starts = range(0, self.rows(arrays[0]), tile)
        results = [body(*(array[start : start + tile] for array in arrays)) for start in starts]
        joined = tuple(np.concatenate(parts) for parts in zip(*(rows for rows, _ in results), strict=True))
        return joined, tuple(sum(parts[1:], parts[0]) for parts in zip(*(sums for _, sums in results), strict=True))


OPS = Ops()
