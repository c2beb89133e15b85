"""How far two matrices are apart on given inputs: the metric of the inputs' covariance.

A layer computes ``y = x @ W``.  With ``C = sum x^T x`` over its inputs, the squared error of the
outputs of another matrix ``W'`` is ``tr (W - W')^T C (W - W')``.  The inputs themselves are not
needed.  Where ``C`` is diagonal, as for the rows of an embedding, it is kept as a vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from mponet.errors import InputError, ShapeError
from mponet.operators.arrays import Array, as_float64
from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape

#: Eigenvalues of a covariance below this share of the largest one count as zero.
RANK_TOLERANCE = 1e-10
#: Asymmetry of a covariance, relative to its largest entry, that is still rounding.
SYMMETRY_TOLERANCE = 1e-8
#: Columns beyond the wanted ones that `leading_eigenvectors` iterates with, and its iterations.
OVERSAMPLING = 16
POWER_ITERATIONS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """The metric ``||W|| = sqrt(tr W^T C W)`` of a covariance ``C``.

    Attributes:
        covariance: ``(in, in)``, or ``(in,)`` for a diagonal one; symmetric, positive semidefinite.

    Raises:
        ShapeError: it is neither a square matrix nor a vector.
        InputError: it is not finite, not symmetric, or has a negative diagonal entry.

    Examples:
        >>> import numpy as np
        >>> metric = Metric.from_inputs(np.array([[1.0, 0.0], [3.0, 0.0]]))
        >>> metric.norm(np.array([[2.0], [9.0]])), metric.rank  # the second input is always zero
        (6.324555320336759, 1)
    """

    covariance: Array
    _cache: dict[str, Array] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        value = as_float64(self.covariance, "covariance")
        if value.ndim not in (1, 2) or (value.ndim == 2 and value.shape[0] != value.shape[1]):
            raise ShapeError(f"covariance has the shape {value.shape}; expected (in, in), or (in,) for a diagonal one")
        scale = float(np.abs(value).max(initial=0.0))
        if value.ndim == 2 and float(np.abs(value - value.T).max(initial=0.0)) > SYMMETRY_TOLERANCE * scale:
            raise InputError("covariance is not symmetric; expected sums of x^T x over the inputs x")
        diagonal = value if value.ndim == 1 else np.diagonal(value)
        if diagonal.size and float(diagonal.min()) < 0.0:
            raise InputError(
                f"covariance has the diagonal entry {diagonal.min():.3g}; expected sums of squares, which are not "
                "negative"
            )
        object.__setattr__(self, "covariance", value)

    @classmethod
    def from_inputs(cls, inputs: ArrayLike, *, centred: bool = False) -> "Metric":
        """The metric of inputs ``(rows, in)``; ``centred`` takes their mean off first."""
        rows = as_float64(inputs, "inputs")
        if rows.ndim != 2:
            raise ShapeError(f"inputs have the shape {rows.shape}; expected (rows, in)")
        rows = rows - rows.mean(axis=0) if centred else rows
        return cls(rows.T @ rows)

    @classmethod
    def identity(cls, size: int) -> "Metric":
        """The metric of uncorrelated inputs, in which the norm is Frobenius'."""
        return cls(np.ones(size))

    @property
    def size(self) -> int:
        """Number of inputs."""
        return int(self.covariance.shape[0])

    @property
    def is_diagonal(self) -> bool:
        """Whether only the diagonal is kept."""
        return self.covariance.ndim == 1

    @property
    def is_uniform(self) -> bool:
        """Whether all inputs count alike, as without data."""
        return self.is_diagonal and bool((self.covariance == self.covariance[:1]).all()) and self.covariance[0] > 0.0

    @property
    def rank(self) -> int:
        """Number of eigenvalues above `RANK_TOLERANCE` times the largest."""
        return int(self.root.shape[1]) if not self.is_diagonal else int(np.count_nonzero(self._kept_diagonal()))

    @property
    def root(self) -> Array:
        """``S`` of shape ``(in, rank)`` with ``C = S S^T``; not for a diagonal metric."""
        if "root" not in self._cache:
            values, vectors = np.linalg.eigh(self.covariance)
            keep = values > RANK_TOLERANCE * max(float(values[-1]), 0.0)
            self._cache["root"] = vectors[:, keep] * np.sqrt(values[keep])
        return self._cache["root"]

    def permuted(self, order: Sequence[int]) -> "Metric":
        """The metric of the inputs in another order."""
        rows = list(order)
        return Metric(self.covariance[rows] if self.is_diagonal else self.covariance[np.ix_(rows, rows)])

    def apply(self, matrix: Array) -> Array:
        """``C @ matrix``, ``(in, out)`` to ``(in, out)``."""
        return self.covariance[:, None] * matrix if self.is_diagonal else self.covariance @ matrix

    def gram(self, matrix: Array) -> Array:
        """``W^T C W``, ``(out, out)``."""
        return matrix.T @ self.apply(matrix)

    def whiten(self, matrix: Array) -> Array:
        """``S^T W``, ``(rank, out)``: its Frobenius norm is the norm of ``W`` here."""
        if self.is_diagonal:
            return np.sqrt(self._kept_diagonal())[:, None] * matrix
        return self.root.T @ matrix

    def energy(self, matrix: Array) -> float:
        """The squared norm, ``tr W^T C W``; not negative."""
        return max(float(np.vdot(matrix, self.apply(matrix))), 0.0)

    def norm(self, matrix: Array) -> float:
        """``sqrt(tr W^T C W)``, the norm of the outputs."""
        return sqrt(self.energy(matrix))

    def relative_error(self, matrix: Array, other: Array) -> float:
        """``||W - W'|| / ||W||``; 0 where both are zero on these inputs.

        This is the relative error of a layer's outputs on the inputs of the covariance.
        """
        total = self.norm(matrix)
        return self.norm(matrix - other) / total if total else 0.0

    def _kept_diagonal(self) -> Array:
        largest = float(self.covariance.max(initial=0.0))
        return np.where(self.covariance > RANK_TOLERANCE * largest, self.covariance, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class OutputSpectrum:
    """The singular values of a layer's outputs, ``S^T W``, and the directions that belong to them.

    The nearest matrix of rank ``r`` in the metric is ``W V_r V_r^T``, exactly: its error is the sum
    of the squared singular values that it drops.  It needs no inverse of the covariance, and in
    directions that no input has it still is the projection of ``W``.

    Attributes:
        squares: squared singular values, descending.
        directions: ``V``, ``(out, len(squares))``, orthonormal columns.
        total: ``tr W^T C W``, all squares including those not computed.
    """

    squares: Array
    directions: Array
    total: float

    @property
    def errors(self) -> Array:
        """Relative squared error of each rank from 0 to ``len(squares)``."""
        if not self.total:
            return np.zeros(len(self.squares) + 1)
        rest = np.maximum(self.total - np.concatenate([[0.0], np.cumsum(self.squares)]), 0.0) / self.total
        # the sums round at a few units of 1e-16, which is not an error of anything
        return np.where(rest < 1e-15, 0.0, rest)


def output_spectrum(matrix: Array, metric: Metric, rank: int | None = None, seed: int = 0) -> OutputSpectrum:
    """The spectrum of the outputs ``x @ W``, from one eigenvalue problem of the smaller side.

    Args:
        matrix: ``W``, ``(in, out)``.
        metric: of the inputs.
        rank: the leading values that are wanted; None computes all of them.  Where that is less
            than an eighth of the side, a randomised method finds them, and ``total`` still gives
            the exact error of dropping the others.
        seed: of that method.
    """
    wide = matrix.shape[1] > matrix.shape[0]
    half = metric.whiten(matrix) if wide else None
    gram = metric.gram(matrix) if half is None else half @ half.T
    side = gram.shape[0]
    if rank is not None and rank + OVERSAMPLING < side // 8:
        values, vectors = leading_eigenvectors(gram, rank, np.random.default_rng(seed))
    else:
        values, vectors = np.linalg.eigh(gram)
        values, vectors = values[::-1], vectors[:, ::-1]
    squares = np.maximum(values, 0.0)
    if half is not None:
        vectors = _right_vectors(half, vectors, squares)
        squares = squares[: vectors.shape[1]]
    return OutputSpectrum(squares, np.ascontiguousarray(vectors), float(np.trace(gram)))


def leading_eigenvectors(gram: Array, rank: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """The leading eigenvalues and eigenvectors of a symmetric matrix, by subspace iteration.

    Eigenvalues are in descending order.
    """
    block = gram @ rng.standard_normal((gram.shape[0], rank + OVERSAMPLING))
    for _ in range(POWER_ITERATIONS):
        block = gram @ np.linalg.qr(block)[0]
    basis = np.linalg.qr(block)[0]
    values, vectors = np.linalg.eigh(basis.T @ gram @ basis)
    return values[::-1][:rank], (basis @ vectors[:, ::-1])[:, :rank]


def low_rank(matrix: Array, spectrum: OutputSpectrum, rank: int) -> MPO:
    """The nearest operator of a rank in the metric, with the factors ``(in, 1)`` and ``(1, out)``.

    Examples:
        >>> import numpy as np
        >>> weight = np.array([[1.0, 0.0], [0.0, 2.0]])
        >>> low_rank(weight, output_spectrum(weight, Metric(np.array([9.0, 1.0]))), 1).shape
        MPOShape(input_dims=(2, 1), output_dims=(1, 2), bond_dims=(1, 1, 1))
    """
    rows, columns = matrix.shape
    kept = spectrum.directions[:, :rank]
    bond = kept.shape[1]
    shape = MPOShape.from_factors((rows, 1), (1, columns), bond)
    if shape.bond_dims[1] != bond:  # more columns than the matrix has ranks
        return MPO.from_cores([(matrix @ kept).reshape(1, rows, 1, bond), kept.T.reshape(bond, 1, columns, 1)])
    return MPO(shape, ((matrix @ kept).reshape(1, rows, 1, bond), kept.T.reshape(bond, 1, columns, 1)))


def _right_vectors(half: Array, left: Array, squares: Array) -> Array:
    """Right singular vectors of ``half`` from the left ones.

    They are orthonormal also where singular values are tiny.
    """
    keep = int(np.count_nonzero(squares > 1e-14 * squares[0])) if squares.size and squares[0] > 0 else 0
    projected = half.T @ left[:, :keep]
    q, r = np.linalg.qr(projected)
    return np.asarray(q * np.where(np.diagonal(r) < 0, -1.0, 1.0), np.float64)
