"""Truncation of a chain of cores as a linear map of each core.

Other truncations (`mponet.operators.truncation`) give new cores.  The maps given here also carry
over what belongs to the cores, such as an optimiser's moments.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mponet.operators.arrays import Array

#: Singular values below this share of the largest are rounding.
NEGLIGIBLE = 1e-14


@dataclass(frozen=True, slots=True, eq=False)
class BondMaps:
    """What truncation puts at each inner bond of a chain.

    New core ``k`` is ``down[k-1] @ core @ up[k]`` along its bonds, and ``down[k] @ up[k]`` is the
    identity, so that without truncation the operator is the same in another gauge.  The singular
    values are shared equally by the two cores at a bond.

    Attributes:
        down: for each inner bond ``(D', D)``.
        up: for each inner bond ``(D, D')``.
        discarded: norm of the singular values that each inner bond lost; the Frobenius error of the
            truncation is at most the root of the sum of their squares.
        norm: Frobenius norm of the operator.
    """

    down: tuple[Array, ...]
    up: tuple[Array, ...]
    discarded: tuple[float, ...]
    norm: float

    @property
    def bonds(self) -> tuple[int, ...]:
        """The new inner bonds."""
        return tuple(len(down) for down in self.down)

    @property
    def relative_error(self) -> float:
        """Bound of the Frobenius error, relative to the norm of the operator."""
        return float(np.linalg.norm(self.discarded)) / self.norm if self.norm else 0.0

    def cores(self, cores: Sequence[Array]) -> list[Array]:
        """The cores of the truncated operator."""
        return self._mapped(cores, self.down, self.up)

    def gradients(self, gradients: Sequence[Array]) -> list[Array]:
        """Gradients with respect to the new cores, from those with respect to the old ones.

        Without truncation they are exact; otherwise the part that the new cores cannot follow is
        projected away.
        """
        return self._mapped(gradients, [up.T for up in self.up], [down.T for down in self.down])

    def squares(self, squares: Sequence[Array]) -> list[Array]:
        """Mean squared gradients of the new cores, taken as uncorrelated in the old ones."""
        return self._mapped(squares, [up.T**2 for up in self.up], [down.T**2 for down in self.down])

    @staticmethod
    def _mapped(cores: Sequence[Array], left: Sequence[Array], right: Sequence[Array]) -> list[Array]:
        """Each core multiplied along its inner bonds."""
        mapped = []
        for k, core in enumerate(cores):
            value = np.asarray(core, np.float64)
            if k > 0:
                value = np.tensordot(left[k - 1], value, 1)
            if k < len(cores) - 1:
                value = np.tensordot(value, right[k], 1)
            mapped.append(value)
        return mapped


def bond_maps(cores: Sequence[Array], choose: Callable[[list[Array]], Sequence[int]]) -> BondMaps:
    """The maps of a truncation.

    Args:
        cores: of a chain, ``(left, input, output, right)``.
        choose: gives the inner bonds to keep from the singular values at every inner bond,
            descending.

    Example:
        >>> import numpy as np
        >>> first, second = np.ones((1, 2, 3, 4)), np.ones((4, 3, 2, 1))
        >>> maps = bond_maps([first, second], lambda spectra: [1])
        >>> [core.shape for core in maps.cores([first, second])], maps.relative_error < 1e-12
        ([(1, 2, 3, 1), (1, 3, 2, 1)], True)
    """
    lefts, rights = _left_factors(cores), _right_factors(cores)
    found = [np.linalg.svd(left @ right, full_matrices=False) for left, right in zip(lefts, rights, strict=True)]
    kept = choose([values for _, values, _ in found])
    down, up, discarded = [], [], []
    for (u, values, vt), left, right, bond in zip(found, lefts, rights, kept, strict=True):
        bond = max(1, min(int(bond), int((values > NEGLIGIBLE * values[0]).sum())))
        discarded.append(float(np.linalg.norm(values[bond:])))
        if values[0] == 0.0:  # of an operator that is zero any part will do
            down.append(np.eye(1, left.shape[1]))
            up.append(np.eye(right.shape[0], 1))
            continue
        root = np.sqrt(values[:bond])
        down.append((u[:, :bond].T @ left) / root[:, None])
        up.append((right @ vt[:bond].T) / root)
    norm = float(np.linalg.norm(found[0][1])) if found else float(np.linalg.norm(cores[0]))
    return BondMaps(tuple(down), tuple(up), tuple(discarded), norm)


def _left_factors(cores: Sequence[Array]) -> list[Array]:
    """For each inner bond ``R`` of the QR decomposition of all cores left of it."""
    factors: list[Array] = []
    rest = np.ones((1, 1))
    for core in cores[:-1]:
        rest = np.linalg.qr(np.tensordot(rest, np.asarray(core, np.float64), 1).reshape(-1, core.shape[3]))[1]
        factors.append(rest)
    return factors


def _right_factors(cores: Sequence[Array]) -> list[Array]:
    """For each inner bond the transposed ``R`` of the cores right of it."""
    mirrored = [core.transpose(3, 1, 2, 0) for core in reversed(cores)]
    return [factor.T for factor in reversed(_left_factors(mirrored))]
