"""Truncation: from a matrix to an MPO, and from an MPO to a smaller one, with the error stated.

Both sweep from left to right and cut a singular value decomposition at every bond.  Because each
cut is an orthogonal projection of what is left, the errors add in quadrature: ``||W - MPO||^2 =
sum_k eps_k^2`` with ``eps_k^2`` the sum of the squared singular values dropped at bond ``k``
(Oseledets, SIAM J. Sci. Comput. 33, 2295 (2011), Thm. 2.2; MPOP, ACL 2021, Eq. 3-4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from mponet.errors import InputError, ShapeError
from mponet.operators.mpo import (
    MPO,
    Array,
    as_float64,
    frobenius_norm,
    norm,
    right_canonical,
    scale_of,
    subtract,
    to_matrix,
)
from mponet.operators.shape import MPOShape, inner_bonds

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, eq=False)
class Decomposition:
    """What a truncation kept, and what it cost.

    Attributes:
        mpo: the kept operator.
        error: measured Frobenius norm of (original - kept).
        relative_error: ``error`` divided by the norm of the original; 0 for a zero matrix.
        bound: ``sqrt(sum_k eps_k^2)``; ``error`` exceeds it by rounding only.
        discarded: ``eps_k`` of each inner bond.
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

    Args:
        matrix: ``(prod input_dims, prod output_dims)``, real and finite.
        input_dims: factors of the rows.
        output_dims: factors of the columns, as many.
        max_bond: largest bond, one number or one for each inner bond; None sets no limit.
        relative_error: allowed ``||W - MPO||_F / ||W||_F``; at 0 only singular values that are zero
            to rounding go.

    Raises:
        ShapeError: the factors do not multiply to the matrix's shape.
        InputError: the matrix is complex or not finite, or ``relative_error`` is not in [0, 1).
    """
    factors = MPOShape.from_factors(input_dims, output_dims, 1)
    weight = as_float64(matrix, "matrix")
    if weight.shape != (factors.in_features, factors.out_features):
        raise ShapeError(
            f"matrix has the shape {weight.shape}; expected ({factors.in_features}, {factors.out_features}), the "
            f"products of input_dims {factors.input_dims} and output_dims {factors.output_dims}"
        )
    scale = scale_of(weight)
    chain = _paired(weight / scale, factors)
    cutter = _Cutter(norm(chain), relative_error, _caps(factors, max_bond), factors.max_bond_dims)
    cores: list[Array] = []
    for k in range(factors.sites - 1):
        rows = chain.shape[0] * factors.site_sizes[k]
        isometry, chain = cutter.cut(chain.reshape(rows, -1))
        cores.append(isometry.reshape(-1, factors.input_dims[k], factors.output_dims[k], isometry.shape[1]))
    cores.append(chain.reshape(-1, factors.input_dims[-1], factors.output_dims[-1], 1) * scale)
    mpo = MPO.from_cores(cores)
    return _report(mpo, norm(weight - to_matrix(mpo)), cutter, scale)


def truncate(mpo: MPO, *, max_bond: int | Sequence[int] | None = None, relative_error: float = 0.0) -> Decomposition:
    """The nearest smaller MPO that sweeps of singular value decompositions find; the matrix is never formed.

    Args:
        mpo: the operator.
        max_bond: as in `from_matrix`.
        relative_error: as in `from_matrix`.

    Raises:
        InputError: ``relative_error`` is not in [0, 1).
    """
    cores = list(right_canonical(mpo).cores)
    scale = scale_of(cores[0])
    cores[0] = cores[0] / scale
    cutter = _Cutter(norm(cores[0]), relative_error, _caps(mpo.shape, max_bond), mpo.shape.bond_dims)
    for k in range(mpo.shape.sites - 1):
        left, i, j, right = cores[k].shape
        isometry, rest = cutter.cut(cores[k].reshape(left * i * j, right))
        cores[k] = isometry.reshape(left, i, j, -1)
        cores[k + 1] = np.tensordot(rest, cores[k + 1], axes=1)
    cores[-1] = cores[-1] * scale
    kept = MPO.from_cores(cores)
    return _report(kept, frobenius_norm(subtract(mpo, kept)), cutter, scale)


class _Cutter:
    """Cuts one bond after the other and shares the allowed error among the bonds that are left.

    It squares norms, so it works on an operator divided by its `scale_of`.
    """

    def __init__(self, total: float, relative_error: float, caps: Sequence[int], bonds: Sequence[int]) -> None:
        if not 0.0 <= relative_error < 1.0:
            raise InputError(f"relative_error is {relative_error}; expected a number from 0 up to, not including, 1")
        self.norm = total
        self.budget = (relative_error * total) ** 2
        # What the sweep itself rounds: a few EPS of the whole for each row of each bond.  It must
        # not grow with the size of the matrix, which is astronomic for an MPO of many sites.
        self.zero = 8 * EPS * sum(bonds) * total
        self.caps = caps
        self.discarded: list[float] = []

    def cut(self, matrix: Array) -> tuple[Array, Array]:
        """``matrix ~ isometry @ rest`` with the kept singular values in ``rest``."""
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        keep = self._keep(s)
        self.discarded.append(float(np.linalg.norm(s[keep:])))
        self.budget = max(self.budget - self.discarded[-1] ** 2, 0.0)
        return u[:, :keep], s[:keep, None] * vt[:keep]

    def _keep(self, s: Array) -> int:
        bond = len(self.discarded)
        allowed = sqrt(self.budget / (len(self.caps) - bond))
        tails = np.sqrt(np.cumsum(s[::-1] ** 2)[::-1])  # tails[d]: error of keeping d values
        needed = min(int((tails > allowed).sum()), int((s > self.zero).sum()))
        return min(max(needed, 1), self.caps[bond])


def _caps(shape: MPOShape, max_bond: int | Sequence[int] | None) -> tuple[int, ...]:
    """The largest bond to keep at each cut: as asked, for a cap clamped by its right neighbour would cut too early."""
    return shape.max_bond_dims[1:-1] if max_bond is None else inner_bonds(max_bond, shape.sites)


def _paired(weight: Array, factors: MPOShape) -> Array:
    """``W`` with its axes reordered to (i1 j1 i2 j2 ...), one row."""
    order = [axis for k in range(factors.sites) for axis in (k, factors.sites + k)]
    return weight.reshape(*factors.input_dims, *factors.output_dims).transpose(order).reshape(1, -1)


def _report(mpo: MPO, error: float, cutter: _Cutter, scale: float) -> Decomposition:
    return Decomposition(
        mpo=mpo,
        error=error,
        relative_error=error / scale / cutter.norm if cutter.norm else 0.0,
        bound=float(np.linalg.norm(cutter.discarded)) * scale if cutter.discarded else 0.0,
        discarded=tuple(value * scale for value in cutter.discarded),
    )
