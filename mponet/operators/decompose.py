"""From a matrix to an MPO, and from an MPO to a smaller one, with the error stated.

`MPO.from_matrix` and `MPO.truncate` return the operator alone; the functions here return a
`Decomposition`, which says what the operator costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mponet.operators import chain
from mponet.operators.arrays import scale_by, split_scale
from mponet.operators.mpo import MPO, check_matrix
from mponet.operators.truncation import Cut, cut_cores, cut_matrix


@dataclass(frozen=True, slots=True, eq=False)
class Decomposition:
    """An operator that a truncation kept, and the error that it made.

    Attributes:
        mpo: the kept operator.
        error: measured Frobenius norm of (original - kept).
        relative_error: ``error`` divided by the norm of the original; 0 for a zero matrix.
        bound: ``sqrt(sum_k eps_k^2)``; ``error`` exceeds it by rounding only.
        discarded: ``eps_k`` of each inner bond.

    Example:
        >>> from mponet import from_matrix
        >>> from_matrix([[2, 0], [0, 1]], (2, 1), (1, 2), max_bond=1)
        Decomposition(MPO(M^{1,2}_{2,1}(1), 4 parameters), relative_error=4.47e-01, bound=1.00e+00)
    """

    mpo: MPO
    error: float
    relative_error: float
    bound: float
    discarded: tuple[float, ...]

    def __repr__(self) -> str:
        return f"Decomposition({self.mpo!r}, relative_error={self.relative_error:.2e}, bound={self.bound:.2e})"


def from_matrix(
    matrix: ArrayLike,
    input_dims: Sequence[int],
    output_dims: Sequence[int],
    *,
    max_bond: int | Sequence[int] | None = None,
    relative_error: float = 0.0,
) -> Decomposition:
    """Decompose a matrix: exactly, by largest bond, by relative error, or by both.

    Where ``max_bond`` is small beside the matrix, only the leading singular values are computed, to
    an error within 0.1 % of the best (see `mponet.operators.svd`); the result is the same at every
    call.

    Args:
        matrix: ``(prod input_dims, prod output_dims)``, real and finite, of any framework.
        input_dims: factors of the rows.
        output_dims: factors of the columns, as many.
        max_bond: largest bond, one number or one for each inner bond; None sets no limit.
        relative_error: allowed ``||W - MPO||_F / ||W||_F``; at 0 only singular values that are zero
            to rounding go.

    Raises:
        ShapeError: the factors do not multiply to the matrix's shape.
        InputError: the matrix is complex or not finite, or ``relative_error`` is not in [0, 1).

    Example:
        >>> import numpy as np
        >>> from mponet import from_matrix
        >>> rows, columns = np.mgrid[:16, :16]
        >>> kept = from_matrix(1 / (1 + rows + columns), (4, 4), (4, 4), relative_error=1e-3)
        >>> kept.mpo
        MPO(M^{4,4}_{4,4}(3), 96 parameters)
        >>> kept.relative_error <= 1e-3
        True
    """
    weight, factors = check_matrix(matrix, input_dims, output_dims)
    cut = cut_matrix(weight, factors, max_bond, relative_error)
    # Both divided by one scale, so that no square leaves the range.
    scaled, exponent = split_scale(weight)
    cores = list(cut.cores)
    cores[-1] = np.ldexp(cores[-1], -exponent)
    rest = scaled - chain.to_matrix(cores)
    return _report(cut, float(np.linalg.norm(rest)), exponent)


def truncate(mpo: MPO, *, max_bond: int | Sequence[int] | None = None, relative_error: float = 0.0) -> Decomposition:
    """The nearest smaller MPO that sweeps of singular value decompositions find.

    The matrix is never formed.

    Args:
        mpo: the operator.
        max_bond: as in `from_matrix`.
        relative_error: as in `from_matrix`.

    Raises:
        ShapeError: ``max_bond`` is not a positive whole number, or their count is wrong.
        InputError: ``relative_error`` is not in [0, 1).

    Example:
        >>> import numpy as np
        >>> from mponet import MPO, truncate
        >>> mpo = MPO.from_matrix(np.diag([4.0, 0.0, 0.0, 3.0]), (2, 2), (2, 2))
        >>> truncate(mpo, max_bond=1)
        Decomposition(MPO(M^{2,2}_{2,2}(1), 8 parameters), relative_error=6.00e-01, bound=3.00e+00)
    """
    cut = cut_cores(mpo.cores, mpo.shape, max_bond, relative_error)
    rest, exponent = chain.difference(mpo.cores, cut.cores)
    error, shift = chain.norm(rest)
    return _report(cut, error, exponent + shift)


def _report(cut: Cut, error: float, exponent: int) -> Decomposition:
    return Decomposition(
        mpo=MPO.from_cores(cut.cores),
        error=scale_by(error, exponent),
        relative_error=scale_by(error / cut.norm, exponent - cut.exponent) if cut.norm else 0.0,
        bound=scale_by(float(np.linalg.norm(cut.discarded)), cut.exponent) if cut.discarded else 0.0,
        discarded=tuple(scale_by(value, cut.exponent) for value in cut.discarded),
    )
