"""Errors of outputs weighted by what they cost the loss: the metric of the output gradients.

With ``G``, the mean of ``g^T g`` over the loss's gradients ``g`` at a layer's outputs, the loss
rises by about ``tr G (W - W')^T C (W - W') / 2`` when ``W'`` takes the place of ``W``.  This is the
K-FAC approximation of the Hessian.  With ``R = G^{1/2}`` it is the error of ``W' R`` against
``W R`` in the metric of the inputs.
"""

from dataclasses import dataclass, field

import numpy as np

from mponet.errors import InputError, ShapeError
from mponet.operators.arrays import Array, as_float64
from mponet.operators.fit import MAX_SWEEPS, fit
from mponet.operators.metric import Metric, OutputSpectrum
from mponet.operators.mpo import MPO, to_matrix
from mponet.operators.shape import MPOShape

#: Share of the mean diagonal that is added to the diagonal: rows are few, and data are noisy.
DAMPING = 0.1
#: Eigenvalues of the sum below this share of the mean diagonal are raised to it.
FLOOR = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class OutputMetric:
    """Weights of a layer's outputs: ``G`` plus ``damping`` times its mean diagonal.

    Attributes:
        products: ``sum g^T g``, ``(out, out)``, or ``sum g^2``, ``(out,)``, for a diagonal one.
        rows: number of rows in the sum; ``G`` is their mean.
        damping: share of the mean diagonal that is added to the diagonal.

    Raises:
        ShapeError: the products are neither a square matrix nor a vector.
        InputError: they are not finite, or all of their diagonal is zero.

    Examples:
        >>> import numpy as np
        >>> outputs = OutputMetric(np.array([16.0, 4.0, 0.0]), rows=2)
        >>> outputs.weigh(np.ones((1, 3))) ** 2  # means of squares, and a tenth of their mean
        array([[8.33333333, 2.33333333, 0.33333333]])
    """

    products: Array
    rows: int = 1
    damping: float = DAMPING
    _cache: dict[str, Array] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        value = as_float64(self.products, "products")
        if value.ndim not in (1, 2) or (value.ndim == 2 and value.shape[0] != value.shape[1]):
            raise ShapeError(f"products have the shape {value.shape}; expected (out, out), or (out,) for a diagonal")
        diagonal = value if value.ndim == 1 else np.diagonal(value)
        if not float(diagonal.sum()) > 0.0:
            raise InputError("products have no positive diagonal entry; expected sums of g^T g over gradients g")
        object.__setattr__(self, "products", value)

    @property
    def moment(self) -> Array:
        """The weights, damping included: ``(out, out)``, or ``(out,)`` for a diagonal."""
        if "moment" not in self._cache:
            mean = self.products / self.rows
            if mean.ndim == 1:
                mean = mean + self.damping * float(mean.mean())
            else:
                mean[np.diag_indices(len(mean))] += self.damping * float(np.diagonal(mean).mean())
            self._cache["moment"] = mean
        return self._cache["moment"]

    def apply(self, matrix: Array) -> Array:
        """``matrix @ M`` over the last axis, with the weights ``M = R^2``."""
        return matrix * self.moment if self.moment.ndim == 1 else matrix @ self.moment

    def weigh(self, matrix: Array) -> Array:
        """``matrix @ R`` over the last axis."""
        return self._times(matrix, "root")

    def unweigh(self, matrix: Array) -> Array:
        """``matrix @ R^-1`` over the last axis."""
        return self._times(matrix, "inverse")

    def output_errors(self, spectrum: OutputSpectrum) -> Array:
        """Plain relative squared error of each rank from 0 to all.

        Args:
            spectrum: of ``W R``, all of its values.  At rank ``r`` the operator is
                ``W R V_r V_r^T R^-1``, and without weights it loses the sum of
                ``s_k^2 |R^-1 v_k|^2`` over the values that it drops.
        """
        lost = spectrum.squares * (self.unweigh(spectrum.directions.T) ** 2).sum(1)
        tails = np.append(lost[::-1].cumsum()[::-1], 0.0) / (float(lost.sum()) or 1.0)
        return np.where(spectrum.errors == 0.0, 0.0, tails)

    def _times(self, matrix: Array, name: str) -> Array:
        if name not in self._cache:
            self._cache.update(self._roots())
        factor = self._cache[name]
        return matrix * factor if factor.ndim == 1 else matrix @ factor

    def _roots(self) -> dict[str, Array]:
        """``R`` and ``R^-1``, both symmetric."""
        moment = self.moment
        if moment.ndim == 1:
            root = np.sqrt(np.maximum(moment, FLOOR * float(moment.mean())))
            return {"root": root, "inverse": 1.0 / root}
        values, vectors = np.linalg.eigh((moment + moment.T) / 2)
        roots = np.sqrt(np.maximum(values, FLOOR * float(values.mean())))
        return {"root": (vectors * roots) @ vectors.T, "inverse": (vectors / roots) @ vectors.T}


@dataclass(frozen=True, slots=True, eq=False)
class WeightedFit:
    """An operator with both of its errors.

    Attributes:
        mpo: the operator.
        error: relative error of the outputs in the metric of the inputs.
        loss_error: the same with weighted outputs; equal to ``error`` without weights.
    """

    mpo: MPO
    error: float
    loss_error: float


def fit_weighted(
    matrix: Array, shape: MPOShape, metric: Metric, outputs: OutputMetric | None, *, max_sweeps: int = MAX_SWEEPS
) -> WeightedFit:
    """The operator that is nearest with weighted outputs, as far as its shape allows.

    Where all outputs are at the last site, as in a product of two matrices, ``W R`` is fitted and
    the last core multiplied by ``R^-1``.  In other shapes ``R^-1`` would mix the outputs of several
    sites, so they are fitted without weights, and only their errors are weighted.

    Args:
        matrix: ``W``, ``(in, out)``.
        shape: factors and bonds of the operator.
        metric: of the inputs.
        outputs: weights of the outputs; None for none.
        max_sweeps: as in `mponet.operators.fit.fit`.
    """
    if outputs is None:
        plain = fit(matrix, shape, metric, max_sweeps=max_sweeps)
        return WeightedFit(plain.mpo, plain.error, plain.error)
    weighted = outputs.weigh(matrix)
    if max(shape.output_dims[:-1], default=1) > 1:
        plain = fit(matrix, shape, metric, max_sweeps=max_sweeps)
        loss_error = metric.relative_error(weighted, outputs.weigh(to_matrix(plain.mpo)))
        return WeightedFit(plain.mpo, plain.error, loss_error)
    found = fit(weighted, shape, metric, max_sweeps=max_sweeps)
    *others, last = found.mpo.cores
    legs = outputs.unweigh(last.swapaxes(2, 3)).swapaxes(2, 3)
    mpo = MPO(found.mpo.shape, (*others, np.ascontiguousarray(legs)))
    return WeightedFit(mpo, metric.relative_error(matrix, to_matrix(mpo)), found.error)
