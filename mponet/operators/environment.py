"""One core of an operator while the others are fixed.

What it adds to the matrix, and the best values for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from mponet.operators.arrays import Array
from mponet.operators.metric import Metric
from mponet.operators.normal import conjugate_gradients, damped, kronecker_solver, solve_positive

#: Unknowns of one core up to which its Gram matrix is formed; above, conjugate gradients.
MAX_GRAM_SIZE = 4096
#: Steps of conjugate gradients; the next sweep goes on where they end.
GRADIENT_STEPS = 6
#: Entries of Gram matrices that are held at once where every input index has one of its own.
MAX_GRAM_ENTRIES = 2**24


@dataclass(frozen=True, slots=True, eq=False)
class Environment:
    """The cores left and right of one core, multiplied together.

    Attributes:
        left: ``(inputs left, outputs left, D_{k-1})``.
        right: ``(D_k, inputs right, outputs right)``.
        core_shape: of the core between them.
    """

    left: Array
    right: Array
    core_shape: tuple[int, int, int, int]

    @classmethod
    def of(cls, cores: list[Array], k: int) -> "Environment":
        """The environment of core ``k`` of a chain."""
        left = np.ones((1, 1, 1))
        for core in cores[:k]:
            left = _joined(left[None], core)[0]
        right = np.ones((1, 1, 1))
        for core in reversed(cores[k + 1 :]):
            right = _joined(core, right[..., None])[..., 0]
        d, i, j, e = cores[k].shape
        return cls(left, right, (d, i, j, e))

    def expand(self, core: Array) -> Array:
        """The matrix of the whole chain with this core, ``(in, out)``."""
        p, u, d = self.left.shape
        e, q, v = self.right.shape
        _, i, j, _ = core.shape
        product = (self.left.reshape(p * u, d) @ core.reshape(d, -1)).reshape(-1, e) @ self.right.reshape(e, q * v)
        return product.reshape(p, u, i, j, q, v).transpose(0, 2, 4, 1, 3, 5).reshape(p * i * q, u * j * v)

    def project(self, matrix: Array) -> Array:
        """The gradient of ``<matrix, expand(core)>`` with respect to the core.

        The transpose of `expand`.
        """
        p, u, d = self.left.shape
        e, q, v = self.right.shape
        _, i, j, _ = self.core_shape
        legs = matrix.reshape(p, i, q, u, j, v).transpose(0, 3, 1, 4, 2, 5).reshape(p * u, i * j * q * v)
        inner = (self.left.reshape(p * u, d).T @ legs).reshape(d * i * j, q * v)
        return np.asarray((inner @ self.right.reshape(e, q * v).T).reshape(d, i, j, e), np.float64)

    def solve(self, metric: Metric, wanted: Array) -> Array:
        """The core's step that solves the normal equations in the metric for ``wanted``."""
        d, i, j, e = self.core_shape
        all_here = self.left.shape[0] == self.right.shape[1] == 1
        if metric.is_uniform or all_here:
            return self._kronecker_solver(metric)(wanted)
        if (d * e if metric.is_diagonal else d * i * e) > MAX_GRAM_SIZE:
            image = partial(self._image, metric)
            return conjugate_gradients(image, self._kronecker_solver(metric), wanted, GRADIENT_STEPS)
        if metric.is_diagonal:
            rows = self._solve_diagonal(metric.covariance, wanted.transpose(1, 0, 3, 2).reshape(i, d * e, j))
            return np.asarray(rows.reshape(i, d, e, j).transpose(1, 0, 3, 2), np.float64)
        right = wanted.transpose(0, 1, 3, 2).reshape(d * i * e, j)
        solution = solve_positive(damped(self._gram(metric.covariance)), right)
        return np.asarray(solution.reshape(d, i, e, j).transpose(0, 1, 3, 2), np.float64)

    def _image(self, metric: Metric, core: Array) -> Array:
        """The core's Gram matrix times a core."""
        return self.project(metric.apply(self.expand(core)))

    def _kronecker_solver(self, metric: Metric) -> Callable[[Array], Array]:
        """The inverse of a Kronecker product near the core's Gram matrix.

        The covariance is replaced by the product of its partial traces over the inputs left of the
        core, at it, and right of it, over the square of its trace.  That is exact where all inputs
        count alike, and where no other core has any.
        """
        p, i, q = self.left.shape[0], self.core_shape[1], self.right.shape[1]
        legs = metric.covariance.reshape((p, i, q) if metric.is_diagonal else (p, i, q) * 2)
        left, own, right = (_partial_trace(legs, axis) for axis in range(3))
        trace = float(own.sum() if own.ndim == 1 else np.trace(own)) or 1.0
        bonds = [_side_product(side, weights / trace) for side, weights in ((self.left, left), (self._mirrored, right))]
        return kronecker_solver([(0, bonds[0]), (1, own), (3, bonds[1])])

    @property
    def _mirrored(self) -> Array:
        """The right side in the order of the left one, ``(inputs right, outputs right, D_k)``."""
        return self.right.transpose(1, 2, 0)

    def _gram(self, covariance: Array) -> Array:
        """``(D_{k-1} I_k D_k)^2``: the metric seen by the core.

        The same for every output index of it.
        """
        p, _, d = self.left.shape
        e, q, _ = self.right.shape
        i = self.core_shape[1]
        if q == 1 and _applied_is_less(self.left.shape, i):
            gram = _side_gram(self.left, covariance.reshape(p, i, p, i))
            rest = self.right[:, 0] @ self.right[:, 0].T
            return np.asarray(np.einsum("aibj,ef->aiebjf", gram, rest).reshape(d * i * e, -1), np.float64)
        if p == 1 and _applied_is_less((q, self.right.shape[2], e), i):
            legs = covariance.reshape(i, q, i, q).transpose(1, 0, 3, 2)
            gram, rest = _side_gram(self._mirrored, legs), self.left[0].T @ self.left[0]
            return np.asarray(np.einsum("eifj,ab->aiebjf", gram, rest).reshape(d * i * e, -1), np.float64)
        left = np.tensordot(self.left, self.left, (1, 1)).transpose(0, 2, 1, 3).reshape(p * p, d * d)
        right = np.tensordot(self.right, self.right, (2, 2)).transpose(1, 3, 0, 2).reshape(q * q, e * e)
        legs = covariance.reshape(p, i, q, p, i, q).transpose(0, 3, 1, 4, 2, 5)
        # the order with fewer multiplications
        if (q * e) ** 2 * p**2 + (p * d * e) ** 2 <= (p * d) ** 2 * q**2 + (q * d * e) ** 2:
            half = (legs.reshape(-1, q * q) @ right).reshape(p * p, -1)
            gram = (left.T @ half).reshape(d, d, i, i, e, e)
        else:
            half = (left.T @ legs.reshape(p * p, -1)).reshape(-1, q * q)
            gram = (half @ right).reshape(d, d, i, i, e, e)
        return np.asarray(gram.transpose(0, 2, 4, 1, 3, 5).reshape(d * i * e, d * i * e), np.float64)

    def _solve_diagonal(self, diagonal: Array, wanted: Array) -> Array:
        """The solutions ``(I_k, D_{k-1} D_k, J_k)``, one system for each input index."""
        d, i, _, e = self.core_shape
        legs = diagonal.reshape(self.left.shape[0], i, self.right.shape[1])
        solution, step = np.empty_like(wanted), max(MAX_GRAM_ENTRIES // (d * e) ** 2, 1)
        for first in range(0, i, step):
            part = slice(first, first + step)
            solution[part] = np.linalg.solve(damped(self._diagonal_gram(legs[:, part])), wanted[part])
        return solution

    def _diagonal_gram(self, diagonal: Array) -> Array:
        """``(I_k, (D_{k-1} D_k)^2)`` for a diagonal covariance.

        It is ``(inputs left, I_k, inputs right)``.
        """
        (p, _, d), (e, q, _), i = self.left.shape, self.right.shape, diagonal.shape[1]
        right_side = self._mirrored
        if q == 1 or p == 1:  # inputs on one side only: that side is summed first
            ones = np.ones((1, i))
            left = _weighted_gram(self.left, diagonal[:, :, 0] if q == 1 else ones)
            right = _weighted_gram(right_side, ones if q == 1 else diagonal[0].T)
            return np.asarray(np.einsum("iab,icd->iacbd", left, right).reshape(i, d * e, d * e), np.float64)
        left = np.matmul(self.left.transpose(0, 2, 1), self.left).reshape(p, d * d)
        right = np.matmul(right_side.transpose(0, 2, 1), right_side).reshape(q, e * e)
        half = (diagonal.reshape(p * i, q) @ right).reshape(p, i * e * e)
        gram = (left.T @ half).reshape(d, d, i, e, e)
        return np.asarray(gram.transpose(2, 0, 3, 1, 4).reshape(i, d * e, d * e), np.float64)


def _partial_trace(legs: Array, axis: int) -> Array:
    """The covariance of one of three groups of inputs, the others summed over.

    Args:
        legs: the covariance, with the three groups twice, or once if it is diagonal.
        axis: of the group that is left.
    """
    if legs.ndim == 3:
        return np.asarray(legs.sum(tuple(k for k in range(3) if k != axis)), np.float64)
    return np.asarray(np.einsum(("abczbc->az", "abcazc->bz", "abcabz->cz")[axis], legs), np.float64)


def _side_product(side: Array, weights: Array) -> Array:
    """``(D, D)``: the products of a side with itself, its inputs weighed.

    Args:
        side: ``(n, outputs, D)``.
        weights: ``(n, n)``, or its diagonal ``(n,)``.
    """
    applied = weights[:, None, None] * side if weights.ndim == 1 else np.tensordot(weights, side, 1)
    return np.asarray(np.tensordot(side, applied, ((0, 1), (0, 1))), np.float64)


def _applied_is_less(side: tuple[int, int, int], inputs: int) -> bool:
    """Whether `_side_gram` takes fewer multiplications and less memory than products of all pairs.

    Args:
        side: ``(n, outputs, D)``, the sizes of a side that has all other inputs.
        inputs: of the core.
    """
    n, outputs, bond = side
    applied = inputs**2 * n * outputs * bond
    return applied <= (n * bond) ** 2 and applied * (n + bond) <= (n * bond) ** 2 * (outputs + inputs**2)


def _side_gram(side: Array, legs: Array) -> Array:
    """``(D, I, D, I)``: the covariance between the two copies of a side.

    Args:
        side: ``(n, outputs, D)``.
        legs: the covariance, ``(n, I, n, I)``.
    """
    applied = np.tensordot(legs, side, (2, 0))  # (n, I, I, outputs, D)
    return np.asarray(np.tensordot(side, applied, ((0, 1), (0, 3))).transpose(0, 1, 3, 2), np.float64)


def _weighted_gram(side: Array, weights: Array) -> Array:
    """``sum_n w_ni S_n^T S_n`` for each ``i``, ``(i, D, D)``.

    Args:
        side: ``(n, outputs, D)``.
        weights: ``(n, i)``.
    """
    n, _, bond = side.shape
    if n <= weights.shape[1]:
        products = np.matmul(side.transpose(0, 2, 1), side).reshape(n, bond * bond)
        return np.asarray((weights.T @ products).reshape(-1, bond, bond), np.float64)
    rows = side.reshape(-1, bond)
    return np.stack([(side * w[:, None, None]).reshape(-1, bond).T @ rows for w in weights.T])


def _joined(left: Array, right: Array) -> Array:
    """Two neighbouring blocks ``(D, inputs, outputs, D')`` as one.

    The factors of the left block are more significant.
    """
    a, p, u, _ = left.shape
    _, q, v, b = right.shape
    return np.asarray(np.tensordot(left, right, 1).transpose(0, 1, 3, 2, 4, 5).reshape(a, p * q, u * v, b), np.float64)
