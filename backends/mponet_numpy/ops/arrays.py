"""numpy as an array library for plans."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mponet.contraction.ops import Body

Array = NDArray[np.floating]


class Ops:
    """`mponet.contraction.execute.Ops` of numpy."""

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        """The array with another shape."""
        return array.reshape(shape)

    def transpose(self, array: Array, axes: tuple[int, ...]) -> Array:
        """The array with its axes in another order."""
        return array.transpose(axes)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """``(m, k) @ (k, n)`` or ``(m, k) @ (p, k, n)``."""
        return np.matmul(a, b, out=out)

    def linear(self, a: Array, b: Array, bias: Array | None) -> Array:
        """``(m, k) @ (k, n) + (n)``."""
        return a @ b if bias is None else a @ b + bias

    def add(self, array: Array, bias: Array) -> Array:
        """``array + bias`` in the memory of ``array``."""
        array += bias
        return array

    def accumulate_gradient(self, total: Array | None, a: Array, b: Array) -> Array:
        """``total`` plus ``a.T @ b``, or for three axes ``sum_p a[p] @ b[p].T``."""
        product = a.T @ b if a.ndim == 2 else np.tensordot(a, b, ((0, 2), (0, 2)))
        return product if total is None else np.add(total, product, out=total)

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
        return (a @ b).reshape(sizes).transpose(axes).reshape(shape)

    def batch_size(self, array: Array) -> int:
        """Length of the first axis."""
        return int(array.shape[0])

    def map_tiles(
        self, body: Body[Array], arrays: tuple[Array, ...], widths: Sequence[int], tile: int
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """``body`` over blocks of ``tile`` rows, which write to their rows of the results."""
        rows, totals = self.batch_size(arrays[0]), None
        results = tuple(np.empty((rows, width), arrays[0].dtype) for width in widths)
        for start in range(0, rows, tile):
            blocks, out = (tuple(a[start : start + tile] for a in some) for some in (arrays, results))
            found, totals = body(blocks, out, totals)
            for place, part in zip(out, found, strict=True):
                if not np.may_share_memory(place, part):
                    place[...] = part
        return results, totals or ()


OPS = Ops()
