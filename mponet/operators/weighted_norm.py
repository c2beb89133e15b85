"""Norms that weigh the rows and the columns of a matrix, and what to do with sums of them.

A matrix that is used in several places, as the table of an embedding that is the output head as
well, is off by as much as all of its uses together say.  Each of them gives a `WeightedNorm`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mponet.operators.arrays import Array
from mponet.operators.metric import Metric, OutputSpectrum
from mponet.operators.output_metric import OutputMetric


@dataclass(frozen=True, slots=True, eq=False)
class WeightedNorm:
    """The norm ``sqrt(tr M W^T C W)`` of matrices ``W``.

    Attributes:
        rows: ``C``, weights of the rows.
        columns: ``M``, weights of the columns; None for the identity.

    Examples:
        >>> import numpy as np
        >>> norm = WeightedNorm(Metric(np.array([4.0, 1.0])))
        >>> norm.energy(np.array([[1.0, 1.0], [1.0, 0.0]]))
        9.0
    """

    rows: Metric
    columns: OutputMetric | None = None

    def energy(self, matrix: Array) -> float:
        """The squared norm."""
        if self.columns is None:
            return self.rows.energy(matrix)
        return max(float(np.vdot(self.rows.apply(matrix), self.columns.apply(matrix))), 0.0)

    def relative_error(self, matrix: Array, other: Array) -> float:
        """``||W - W'|| / ||W||``; 0 where both are zero in this norm."""
        total = self.energy(matrix)
        return float(np.sqrt(self.energy(matrix - other) / total)) if total else 0.0

    def permuted(self, order: Sequence[int]) -> "WeightedNorm":
        """The norm of matrices with their rows in another order."""
        return WeightedNorm(self.rows.permuted(order), self.columns)

    def truncation_energies(self, spectrum: OutputSpectrum, fitted: OutputMetric | None, matrix: Array) -> Array:
        """The squared norm of what each rank from 0 to all drops.

        Args:
            spectrum: of ``W R`` in a metric of its own, all of its values.
            fitted: the columns' weights that ``R`` is the root of; None for the identity.
            matrix: ``W``.
        """
        basis = spectrum.directions
        weighted = matrix if fitted is None else fitted.weigh(matrix)
        left = self.rows.gram(weighted @ basis)
        back = basis.T if fitted is None else fitted.unweigh(basis.T)
        scaled = back if self.columns is None else self.columns.apply(back)
        # rank r drops the sum over i, j >= r of left_ij (back M back^T)_ij
        tails = (left * (scaled @ back.T))[::-1, ::-1].cumsum(0).cumsum(1)[::-1, ::-1]
        return np.append(np.maximum(np.diagonal(tails), 0.0), 0.0)


def nearest_norm(norms: Sequence[WeightedNorm], scales: Sequence[float], columns: int) -> WeightedNorm:
    """One norm whose square is near the sum of several.

    ``sum_k s_k M_k (x) C_k`` is replaced by the product of its two partial traces over its trace,
    which is exact where all ``M_k`` or all ``C_k`` are multiples of each other.

    Args:
        norms: at least one.
        scales: ``s_k``, not negative, one of them positive.
        columns: number of columns of the matrices.
    """
    if len(norms) == 1:
        return norms[0]
    pairs = [(norm.rows.covariance, _moment(norm.columns, columns)) for norm in norms]
    rows = [c for c, _ in pairs]
    row_sum = _summed(rows, [s * _trace(m) for s, (_, m) in zip(scales, pairs, strict=True)])
    column_sum = _summed([m for _, m in pairs], [s * _trace(c) for s, c in zip(scales, rows, strict=True)])
    return WeightedNorm(Metric(row_sum / (_trace(row_sum) or 1.0)), OutputMetric(column_sum, damping=0.0))


def _moment(columns: OutputMetric | None, size: int) -> Array:
    return np.ones(size) if columns is None else columns.moment


def _trace(value: Array) -> float:
    return float(value.sum() if value.ndim == 1 else np.trace(value))


def _summed(values: Sequence[Array], scales: Sequence[float]) -> Array:
    """The weighted sum; diagonal where all are."""
    dense = any(value.ndim == 2 for value in values)
    return np.asarray(
        sum(s * (np.diag(v) if dense and v.ndim == 1 else v) for v, s in zip(values, scales, strict=True)), np.float64
    )
