"""Sweeps of singular value decompositions that cut the bonds of a matrix or of a chain of cores.

Both go from left to right.  Because each cut is an orthogonal projection of what is left, the
errors add in quadrature: ``||W - MPO||^2 = sum_k eps_k^2`` with ``eps_k^2`` the sum of the squared
singular values dropped at bond ``k`` (Oseledets, SIAM J. Sci. Comput. 33, 2295 (2011), Thm. 2.2;
MPOP, ACL 2021, Eq. 3-4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from mponet.errors import InputError
from mponet.operators import chain
from mponet.operators.arrays import Array, split_scale
from mponet.operators.shape import MPOShape, inner_bonds
from mponet.operators.svd import EPS, SVD, svd


@dataclass(frozen=True, slots=True)
class Cut:
    """Cores after a sweep, and what it cost in units of ``2**exponent``.

    Attributes:
        cores: the kept cores, scale included.
        norm: Frobenius norm before.
        discarded: ``eps_k`` of each inner bond.
        exponent: of ``norm`` and ``discarded``.
    """

    cores: list[Array]
    norm: float
    discarded: tuple[float, ...]
    exponent: int


def cut_matrix(weight: Array, factors: MPOShape, max_bond: int | Sequence[int] | None, relative_error: float) -> Cut:
    """TT-SVD of a matrix with the factors of a shape.

    Raises:
        InputError: ``relative_error`` is not in [0, 1), or no decomposition converges.
    """
    scaled, exponent = split_scale(weight)
    rest = _paired(scaled, factors)
    cutter = _Cutter(float(np.linalg.norm(rest)), relative_error, _caps(factors, max_bond), factors.max_bond_dims)
    cores: list[Array] = []
    for k in range(factors.sites - 1):
        rows = rest.shape[0] * factors.site_sizes[k]
        isometry, rest = cutter.cut(rest.reshape(rows, -1))
        cores.append(isometry.reshape(-1, factors.input_dims[k], factors.output_dims[k], isometry.shape[1]))
    cores.append(rest.reshape(-1, factors.input_dims[-1], factors.output_dims[-1], 1))
    return cutter.result(cores, exponent)


def cut_cores(
    cores: Sequence[Array], shape: MPOShape, max_bond: int | Sequence[int] | None, relative_error: float
) -> Cut:
    """The same for a chain of cores; the matrix is never formed.

    Raises:
        InputError: ``relative_error`` is not in [0, 1), or no decomposition converges.
    """
    kept, exponent = chain.canonical(cores, 0)
    cutter = _Cutter(float(np.linalg.norm(kept[0])), relative_error, _caps(shape, max_bond), shape.bond_dims)
    for k in range(shape.sites - 1):
        left, i, j, right = kept[k].shape
        isometry, rest = cutter.cut(kept[k].reshape(left * i * j, right))
        kept[k] = isometry.reshape(left, i, j, -1)
        kept[k + 1] = np.tensordot(rest, kept[k + 1], axes=1)
    return cutter.result(kept, exponent)


class _Cutter:
    """Cuts one bond after the other and shares the allowed error among the bonds that are left.

    It squares norms, so it works on an operator whose largest entry is about 1.
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
        found = svd(matrix, self.caps[len(self.discarded)])
        # tails[d]: error of keeping d values
        tails = np.sqrt(np.append(np.cumsum(found.s[::-1] ** 2)[::-1], 0.0) + found.rest**2)
        keep = self._keep(found, tails)
        self.discarded.append(float(tails[keep]))
        self.budget = max(self.budget - self.discarded[-1] ** 2, 0.0)
        return found.u[:, :keep], found.s[:keep, None] * found.vt[:keep]

    def result(self, cores: list[Array], exponent: int) -> Cut:
        """The cut chain, its scale on the last core where float64 can hold it there."""
        return Cut(chain.with_scale(cores, exponent, -1), self.norm, tuple(self.discarded), exponent)

    def _keep(self, found: SVD, tails: Array) -> int:
        bond = len(self.discarded)
        allowed = sqrt(self.budget / (len(self.caps) - bond))
        needed = min(int((tails[:-1] > allowed).sum()), int((found.s > self.zero).sum()))
        return min(max(needed, 1), self.caps[bond])


def _caps(shape: MPOShape, max_bond: int | Sequence[int] | None) -> tuple[int, ...]:
    """The largest bond to keep at each cut.

    As asked, for a cap clamped by its right neighbour would cut too early.
    """
    return shape.max_bond_dims[1:-1] if max_bond is None else inner_bonds(max_bond, shape.sites)


def _paired(weight: Array, factors: MPOShape) -> Array:
    """``W`` with its axes reordered to (i1 j1 i2 j2 ...), one row."""
    order = [axis for k in range(factors.sites) for axis in (k, factors.sites + k)]
    return weight.reshape(*factors.input_dims, *factors.output_dims).transpose(order).reshape(1, -1)
