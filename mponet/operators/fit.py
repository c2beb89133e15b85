"""The operator nearest to a matrix in the metric of the inputs.

Least squares, one core after the other.

The error ``tr (W - W')^T C (W - W')`` is quadratic in every core.  With the others fixed, all
output indices ``j`` of a core share one Gram matrix of size ``D_{k-1} I_k D_k``, so that a core is
found by one linear system with ``J_k`` right-hand sides.  Sweeps over the sites never raise the
error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from mponet.errors import InputError, ShapeError
from mponet.operators.arrays import Array, as_float64
from mponet.operators.chain import push_left, push_right
from mponet.operators.decompose import from_matrix
from mponet.operators.environment import Environment
from mponet.operators.metric import Metric, low_rank, output_spectrum
from mponet.operators.mpo import MPO, to_matrix
from mponet.operators.shape import MPOShape

#: Sweeps at most, and the relative gain of a sweep below which they stop.
MAX_SWEEPS = 8
MIN_GAIN = 0.01
#: A relative error of outputs is first tried at this many times as large a plain one, which is then
#: halved until the outputs are within it.
STEPS_UP, MAX_TOLERANCE, MIN_TOLERANCE = 8.0, 0.99, 1e-14
#: Relative squared errors below this are rounding.
ROUNDING = 1e-28


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The operator that a fit found.

    Attributes:
        mpo: the operator.
        error: relative error of the outputs, ``||W - W'|| / ||W||`` in the metric.
        history: the same at the start and after each sweep; it never rises.
    """

    mpo: MPO
    error: float
    history: tuple[float, ...]

    def __repr__(self) -> str:
        return f"Fit({self.mpo!r}, error={self.error:.3g}, sweeps={len(self.history) - 1})"


def fit(
    matrix: ArrayLike,
    shape: MPOShape,
    metric: Metric | None = None,
    *,
    start: MPO | None = None,
    max_sweeps: int = MAX_SWEEPS,
    min_gain: float = MIN_GAIN,
) -> Fit:
    """The operator of a given shape that is nearest to a matrix on the inputs of a metric.

    For two factors ``(in, 1)`` and ``(1, out)`` this is a whitened singular value decomposition,
    which is exact.  For other shapes it is a local optimum, reached from the plain decomposition.

    Args:
        matrix: ``W``, ``(in_features, out_features)``.
        shape: factors and bonds of the operator.
        metric: of the inputs; None takes the plain norm.
        start: where the sweeps start; None starts from `mponet.from_matrix`.
        max_sweeps: number of sweeps at most, each to the right and back.
        min_gain: sweeps stop when one lowers the error by less than this share.

    Raises:
        ShapeError: the matrix, the shape and the metric do not fit together.
        InputError: ``max_sweeps`` or ``min_gain`` is negative.

    Examples:
        >>> import numpy as np
        >>> from mponet import MPOShape
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((500, 4)) @ rng.standard_normal((4, 16))  # 4 directions only
        >>> shape = MPOShape.from_factors((4, 4), (4, 4), 8)
        >>> found = fit(rng.standard_normal((16, 16)), shape, Metric.from_inputs(x))
        >>> found.history[0] > 10 * found.error
        True
    """
    weight = as_float64(matrix, "matrix")
    metric = metric or Metric.identity(shape.in_features)
    _check(weight, shape, metric, max_sweeps, min_gain)
    if is_low_rank(shape) and start is None:
        found = low_rank(weight, output_spectrum(weight, metric, shape.bond_dims[1]), shape.bond_dims[1])
        error = metric.relative_error(weight, to_matrix(found))
        return Fit(found, error, (error,))
    if start is None:
        start = from_matrix(weight, shape.input_dims, shape.output_dims, max_bond=shape.bond_dims[1:-1]).mpo
        if shape.sites <= 2 and metric.is_uniform:  # nothing is nearer than a truncated SVD
            max_sweeps = 0
    return _Sweeps(weight, metric, start).run(max_sweeps, min_gain)


def fit_matrix(
    matrix: ArrayLike,
    input_dims: Sequence[int],
    output_dims: Sequence[int],
    metric: Metric,
    *,
    max_bond: int | Sequence[int] | None = None,
    relative_error: float = 0.0,
) -> Fit:
    """The operator nearest to a matrix on given inputs, as `mponet.from_matrix` is in plain norm.

    With ``max_bond`` its error in the metric is at most that of `mponet.from_matrix`.

    Args:
        matrix: ``W``, ``(in_features, out_features)``.
        input_dims: factors of the rows.
        output_dims: factors of the columns, as many.
        metric: of the inputs.
        max_bond: largest bond, one for all or one for each inner bond; None for no limit.
        relative_error: largest relative error of the outputs, as far as ``max_bond`` allows it.

    Raises:
        ShapeError: the matrix, the factors and the metric do not fit together.
        InputError: ``relative_error`` is not in [0, 1).

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((500, 3)) @ rng.standard_normal((3, 16))  # 3 directions only
        >>> weight = rng.standard_normal((16, 16))
        >>> found = fit_matrix(weight, (16, 1), (1, 16), Metric.from_inputs(x), relative_error=1e-3)
        >>> found.mpo.shape.bond_dims
        (1, 3, 1)
    """
    weight = as_float64(matrix, "matrix")
    tolerance = min(STEPS_UP * relative_error, MAX_TOLERANCE)
    while True:
        kept = from_matrix(weight, input_dims, output_dims, max_bond=max_bond, relative_error=tolerance).mpo
        found = fit(weight, kept.shape, metric, start=None if is_low_rank(kept.shape) else kept)
        if found.error <= max(relative_error, ROUNDING**0.5) or tolerance <= MIN_TOLERANCE:
            return _trimmed(weight, found, metric, relative_error)
        tolerance /= 2.0


def _trimmed(weight: Array, found: Fit, metric: Metric, relative_error: float) -> Fit:
    """A product of two matrices with the smallest rank that is within the error."""
    if not is_low_rank(found.mpo.shape) or not relative_error or found.error > relative_error:
        return found
    errors = output_spectrum(weight, metric).errors
    rank = max(int(np.count_nonzero(errors > relative_error**2)), 1)
    shape = MPOShape(found.mpo.shape.input_dims, found.mpo.shape.output_dims, (1, rank, 1))
    return fit(weight, shape, metric) if rank < found.mpo.shape.bond_dims[1] else found


def is_low_rank(shape: MPOShape) -> bool:
    """Whether an operator is a product ``(in, D) @ (D, out)``.

    Inputs at the first site, outputs at the second.
    """
    return shape.sites == 2 and shape.input_dims[1] == 1 and shape.output_dims[0] == 1


class _Sweeps:
    """The cores while they are fitted.

    Every core left of the current one is an isometry, every one right of it too.
    """

    def __init__(self, weight: Array, metric: Metric, start: MPO) -> None:
        self.metric = metric
        self.cores = list(start.canonical().cores)
        self.target = metric.apply(weight)
        self.total = float(np.vdot(weight, self.target))
        self.weight = weight

    def run(self, max_sweeps: int, min_gain: float) -> Fit:
        best = MPO.from_cores(self.cores)
        history = [self._error(best)]
        for _ in range(max_sweeps if len(self.cores) > 1 else 0):
            if history[-1] ** 2 <= ROUNDING:
                break
            self._sweep()
            mpo = MPO.from_cores(self.cores)
            error = self._error(mpo)
            if error > history[-1]:  # by rounding, once nothing is left to gain
                break
            best = mpo
            history.append(error)
            if error > (1.0 - min_gain) * history[-2]:
                break
        return Fit(best, history[-1], tuple(history))

    def _error(self, mpo: MPO) -> float:
        # of the difference: the difference of the energies would lose half of the digits
        return sqrt(self.metric.energy(self.weight - to_matrix(mpo)) / self.total) if self.total > 0.0 else 0.0

    def _sweep(self) -> None:
        cores, last = self.cores, len(self.cores) - 1
        for k in range(last):
            self._solve(k)
            cores[k], cores[k + 1] = push_right(cores[k], cores[k + 1])
        for k in range(last, 0, -1):
            self._solve(k)
            cores[k - 1], cores[k] = push_left(cores[k - 1], cores[k])
        self._solve(0)

    def _solve(self, k: int) -> None:
        """Replace core ``k`` by the best one for the others as they are."""
        environment = Environment.of(self.cores, k)
        rest = self.target - self.metric.apply(environment.expand(self.cores[k]))
        self.cores[k] = self.cores[k] + environment.solve(self.metric, environment.project(rest))


def _check(weight: Array, shape: MPOShape, metric: Metric, max_sweeps: int, min_gain: float) -> None:
    size = (shape.in_features, shape.out_features)
    if weight.shape != size or metric.size != shape.in_features:
        raise ShapeError(
            f"matrix has the shape {weight.shape} and the metric {metric.size} inputs; expected {size} and "
            f"{shape.in_features} for {shape}"
        )
    if max_sweeps < 0 or not 0.0 <= min_gain < 1.0:
        raise InputError(f"max_sweeps is {max_sweeps} and min_gain {min_gain}; expected at least 0, and 0 <= gain < 1")
