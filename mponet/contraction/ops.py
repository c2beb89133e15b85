"""What an array library has to offer to run a plan; each adapter has it in its ``arrays.py``."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

A = TypeVar("A")
Totals = tuple[A, ...]


class Body(Protocol[A]):
    """What is done to a block of rows.

    Args:
        blocks: the same rows of each array.
        out: where each result, ``(rows, width)``, may be written to, and need not; None where the
            library does not write in place.
        totals: the sums so far; None before the first block.

    Returns:
        What has those rows, and the sums with theirs added.
    """

    def __call__(
        self, blocks: tuple[A, ...], out: tuple[A | None, ...], totals: Totals[A] | None
    ) -> tuple[tuple[A, ...], Totals[A]]:
        """One block."""


class ForwardOps(Protocol[A]):
    """What a forward pass takes: reshape, transpose and products.

    A library that writes in place makes use of ``out``; others ignore it and give new arrays.
    """

    def reshape(self, array: A, shape: tuple[int, ...]) -> A:
        """The array with another shape, row-major; one size may be -1."""

    def transpose(self, array: A, axes: tuple[int, ...]) -> A:
        """The array with its axes in another order."""

    def matmul(self, a: A, b: A, out: A | None = None) -> A:
        """``(m, k) @ (k, n)``, or ``(m, k) @ (p, k, n) -> (p, m, n)``."""

    def linear(self, a: A, b: A, bias: A | None) -> A:
        """``(m, k) @ (k, n) + (n)``: what the library has for a dense layer."""

    def add(self, array: A, bias: A) -> A:
        """``array + bias``, in the memory of ``array`` where the library can.

        The caller owns it.
        """

    def matmul_permuted(self, a: A, b: A, sizes: tuple[int, ...], axes: tuple[int, ...], shape: tuple[int, ...]) -> A:
        """``a @ b`` as ``sizes``, its axes in another order, as ``shape``.

        Shares no memory with any other array.
        """

    def batch_size(self, array: A) -> int:
        """Length of the first axis; -1 while it is not known."""

    def map_tiles(
        self, body: Body[A], arrays: tuple[A, ...], widths: Sequence[int], tile: int
    ) -> tuple[tuple[A, ...], Totals[A]]:
        """``body`` over blocks of ``tile`` rows, the last may be shorter.

        Row results ``(rows, width)``, and sums.
        """


class Ops(ForwardOps[A], Protocol[A]):
    """What a backward pass takes, too: sums of products."""

    def accumulate_gradient(self, total: A | None, a: A, b: A) -> A:
        """Add a product to ``total``.

        It is ``a.T @ b`` for ``(n, k), (n, m)``, or ``sum_p a[p] @ b[p].T`` for
        ``(p, k, q), (p, m, q)``.

        The library keeps totals in a form of its own until `finalize` makes arrays of them.
        """

    def finalize(self, total: A, like: A) -> A:
        """The total as an array of the dtype of ``like``."""

    def spare(self, like: A, turn: int) -> A | None:
        """Memory for an array like this one, as ``out`` of a product.

        It is overwritten by the next call with the same turn, 0 or 1.  None where the library gives
        no memory of its own.
        """
