"""One core of an operator while the others are fixed.

What it adds to the matrix, and the best values for it.
"""

from dataclasses import dataclass

import numpy as np

from mponet.operators.arrays import Array
from mponet.operators.metric import Metric

#: Unknowns of one core up to which its Gram matrix is formed; above, conjugate gradients.
MAX_GRAM_SIZE = 4096
GRADIENT_STEPS = 24
#: Entries of Gram matrices that are held at once where every input index has one of its own.
MAX_GRAM_ENTRIES = 2**24
#: This share of the Gram matrix' mean diagonal holds a core where no input tells it from others.
DAMPING = 1e-11


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
        if metric.is_uniform:
            return self._solve_uniform(metric, wanted)
        all_here = self.left.shape[0] == self.right.shape[1] == 1
        if (d * e if metric.is_diagonal or all_here else d * i * e) > MAX_GRAM_SIZE:
            return conjugate_gradients(self, metric, wanted)
        if all_here:
            return self._solve_all_inputs(metric, wanted)
        if metric.is_diagonal:
            rows = self._solve_diagonal(metric.covariance, wanted.transpose(1, 0, 3, 2).reshape(i, d * e, j))
            return np.asarray(rows.reshape(i, d, e, j).transpose(1, 0, 3, 2), np.float64)
        right = wanted.transpose(0, 1, 3, 2).reshape(d * i * e, j)
        solution = _solve_positive(_damped(self._gram(metric.covariance)), right)
        return np.asarray(solution.reshape(d, i, e, j).transpose(0, 1, 3, 2), np.float64)

    def _solve_uniform(self, metric: Metric, wanted: Array) -> Array:
        """The solution where all inputs count alike: the sides of the core are apart then."""
        d, i, j, e = self.core_shape
        left = self.left.reshape(-1, d)
        right = self.right.reshape(e, -1)
        rows = _solve_positive(_damped(left.T @ left), wanted.reshape(d, -1) / metric.covariance[0])
        columns = _solve_positive(_damped(right @ right.T), rows.reshape(-1, e).T)
        return np.asarray(columns.T.reshape(d, i, j, e), np.float64)

    def _solve_all_inputs(self, metric: Metric, wanted: Array) -> Array:
        """The solution where no other core has inputs.

        The Gram matrix is then the Kronecker product of the covariance and of one of the bonds.
        """
        d, i, j, e = self.core_shape
        rows = wanted.transpose(1, 0, 3, 2).reshape(i, d * e * j)
        if metric.is_diagonal:
            rows = rows / np.where(metric.covariance > 0.0, metric.covariance, 1.0)[:, None]
        else:
            rows = _solve_positive(_damped(metric.covariance), rows)
        bonds = _damped(self._diagonal_gram(np.ones((1, 1, 1))))[0]
        columns = _solve_positive(bonds, rows.reshape(i, d * e, j).transpose(1, 0, 2).reshape(d * e, i * j))
        return np.asarray(columns.reshape(d, e, i, j).transpose(0, 2, 3, 1), np.float64)

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
            gram, rest = _side_gram(self.right.transpose(1, 2, 0), legs), self.left[0].T @ self.left[0]
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
            solution[part] = np.linalg.solve(_damped(self._diagonal_gram(legs[:, part])), wanted[part])
        return solution

    def _diagonal_gram(self, diagonal: Array) -> Array:
        """``(I_k, (D_{k-1} D_k)^2)`` for a diagonal covariance.

        It is ``(inputs left, I_k, inputs right)``.
        """
        (p, _, d), (e, q, _), i = self.left.shape, self.right.shape, diagonal.shape[1]
        right_side = self.right.transpose(1, 2, 0)
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


def conjugate_gradients(environment: Environment, metric: Metric, wanted: Array, steps: int = GRADIENT_STEPS) -> Array:
    """A step towards the best core by conjugate gradients, for Gram matrices too large to form."""
    step, residual = np.zeros_like(wanted), wanted.copy()
    direction, square = residual.copy(), float(np.vdot(residual, residual))
    start = square
    for _ in range(steps):
        image = environment.project(metric.apply(environment.expand(direction)))
        curvature = float(np.vdot(direction, image))
        if curvature <= 0.0 or square <= 1e-28 * start:
            break
        step = step + (square / curvature) * direction
        residual = residual - (square / curvature) * image
        previous, square = square, float(np.vdot(residual, residual))
        direction = residual + (square / previous) * direction
    return step


def _joined(left: Array, right: Array) -> Array:
    """Two neighbouring blocks ``(D, inputs, outputs, D')`` as one.

    The factors of the left block are more significant.
    """
    a, p, u, _ = left.shape
    _, q, v, b = right.shape
    return np.asarray(np.tensordot(left, right, 1).transpose(0, 1, 3, 2, 4, 5).reshape(a, p * q, u * v, b), np.float64)


def _damped(gram: Array) -> Array:
    """The Gram matrix, or a stack of them, with `DAMPING` on the diagonal."""
    size = gram.shape[-1]
    mean = np.trace(gram, axis1=-2, axis2=-1) / size
    shift = np.maximum(DAMPING * mean, np.finfo(np.float64).tiny)
    return np.asarray(gram + shift[..., None, None] * np.eye(size), np.float64)


def _solve_positive(gram: Array, right: Array) -> Array:
    """The solution of a positive definite system, by Cholesky.

    By elimination where rounding made it indefinite.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    try:
        return np.asarray(cho_solve(cho_factor(gram, check_finite=False), right, check_finite=False), np.float64)
    except LinAlgError:
        return np.asarray(np.linalg.solve(gram, right), np.float64)
