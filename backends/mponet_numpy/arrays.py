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

    def tiled(self, body: Body[Array], arrays: tuple[Array, ...], tile: int) -> tuple[Array, tuple[Array, ...]]:
        """``body`` over blocks of ``tile`` rows: first results joined, the others added up."""
        starts = range(0, self.rows(arrays[0]), tile)
        results = [body(*(array[start : start + tile] for array in arrays)) for start in starts]
        sums = tuple(sum(terms[1:], terms[0]) for terms in zip(*(extra for _, extra in results), strict=True))
        return np.concatenate([joined for joined, _ in results]), sums


OPS = Ops()
