"""Matrix product operators as values: numpy float64 cores, to and from matrices, canonical forms.

Conventions, everywhere in mponet: row-major (the first factor is the most significant), core axes
``(left, input, output, right)``, and a matrix ``W`` of shape ``(in_features, out_features)`` used
as ``y = x @ W``. No function changes its argument; cores are read-only arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mponet.display import NotebookRepr
from mponet.errors import InputError, ShapeError
from mponet.operators.shape import MPOShape

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class MPO(NotebookRepr):
    """A matrix product operator: a shape and its cores.

    Attributes:
        shape: the physical and bond dimensions.
        cores: one read-only float64 array per site, of shape ``(D_{k-1}, I_k, J_k, D_k)``.

    Raises:
        ShapeError: the cores do not have the shapes that ``shape`` names.
        InputError: a core holds complex or non-finite numbers.
    """

    shape: MPOShape
    cores: tuple[Array, ...]

    def __post_init__(self) -> None:
        cores = tuple(as_float64(core, f"core {k}") for k, core in enumerate(self.cores, start=1))
        found = tuple(core.shape for core in cores)
        if found != self.shape.core_shapes:
            raise ShapeError(
                f"cores have the shapes {found}; expected {self.shape.core_shapes} for {self.shape}; "
                "MPO.from_cores reads the shape off the cores and reduces bonds that are too wide"
            )
        object.__setattr__(self, "cores", cores)

    @classmethod
    def from_cores(cls, cores: Sequence[ArrayLike]) -> "MPO":
        """The MPO with these cores; a bond wider than useful is reduced without changing the matrix.

        Raises:
            ShapeError: a core has not four axes, neighbouring bonds differ, or a boundary bond is
                not 1.
            InputError: a core holds complex or non-finite numbers.
        """
        arrays = [as_float64(core, f"core {k}") for k, core in enumerate(cores, start=1)]
        _check_chain(arrays)
        return _of_chain(arrays)

    def __repr__(self) -> str:
        return f"MPO({self.shape}, {self.shape.parameters} parameters)"


def to_matrix(mpo: MPO) -> Array:
    """The full matrix ``W``, shape ``(in_features, out_features)``."""
    sites = mpo.shape.sites
    chain = np.ones((1, 1))  # (i1 j1 i2 j2 ..., D)
    for core in mpo.cores:
        left = core.shape[0]
        chain = (chain @ core.reshape(left, -1)).reshape(-1, core.shape[3])
    paired = chain.reshape(*(n for pair in zip(mpo.shape.input_dims, mpo.shape.output_dims, strict=True) for n in pair))
    order = (*range(0, 2 * sites, 2), *range(1, 2 * sites, 2))
    return paired.transpose(order).reshape(mpo.shape.in_features, mpo.shape.out_features)


def left_canonical(mpo: MPO) -> MPO:
    """The same operator, every core but the last a left isometry: ``sum_{aij} A[aijb] A[aijc] = delta_bc``."""
    return mixed_canonical(mpo, mpo.shape.sites)


def right_canonical(mpo: MPO) -> MPO:
    """The same operator, every core but the first a right isometry: ``sum_{ijb} A[aijb] A[cijb] = delta_ac``."""
    return mixed_canonical(mpo, 1)


def mixed_canonical(mpo: MPO, center: int) -> MPO:
    """The same operator in the gauge with orthogonality centre ``center`` (sites count from 1).

    Cores left of the centre are left isometries, cores right of it right isometries, by QR with a
    non-negative diagonal of R, so that the form is unique for full-rank bonds.  Shapes do not
    change.

    Raises:
        ShapeError: there is no such site.
    """
    sites = mpo.shape.sites
    if not 1 <= center <= sites:
        raise ShapeError(f"center is {center}; expected a site from 1 to {sites}")
    cores = list(mpo.cores)
    for k in range(center - 1):
        cores[k], cores[k + 1] = push_right(cores[k], cores[k + 1])
    for k in reversed(range(center, sites)):
        cores[k - 1], cores[k] = push_left(cores[k - 1], cores[k])
    return MPO(mpo.shape, tuple(cores))


def frobenius_norm(mpo: MPO) -> float:
    """``||W||_F``, from the canonical form; the matrix is never formed."""
    return norm(right_canonical(mpo).cores[0])


def subtract(first: MPO, second: MPO) -> MPO:
    """``first - second`` by direct sum of the bonds, reduced to useful ones.

    Raises:
        ShapeError: the operators have other factors.
    """
    one, two = first.shape, second.shape
    if (one.input_dims, one.output_dims) != (two.input_dims, two.output_dims):
        raise ShapeError(f"cannot subtract {two} from {one}; expected the same input and output factors")
    last = one.sites - 1
    pairs = zip(first.cores, second.cores, strict=True)
    return _of_chain([_direct_sum(a, b, k == 0, k == last) for k, (a, b) in enumerate(pairs)])


def as_float64(value: ArrayLike, name: str) -> Array:
    """``value`` as a read-only float64 array.

    Raises:
        InputError: it is no array of real, finite numbers.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} is no array ({error}); expected rows of equal length") from error
    if not np.can_cast(array.dtype, np.float64, "same_kind"):
        raise InputError(f"{name} has the dtype {array.dtype}; expected real numbers; convert it first")
    # a read-only view may look at memory that its owner still writes to
    if array.dtype != np.float64 or array.flags.writeable or array.base is not None:
        array = np.array(array, dtype=np.float64)
        array.flags.writeable = False
    if not np.isfinite(array).all():
        count = int(array.size - np.isfinite(array).sum())
        raise InputError(f"{name} has {count} non-finite of {array.size} entries; expected finite numbers only")
    return array


def norm(array: Array) -> float:
    """Frobenius norm whose squares neither overflow nor underflow, whatever the scale of the array."""
    scale = scale_of(array)
    return scale * float(np.linalg.norm(array / scale))


def scale_of(array: Array) -> float:
    """Largest absolute entry, or 1 for an array of zeros: a scale that is safe to divide by."""
    return float(np.abs(array).max(initial=0.0)) or 1.0


def _check_chain(cores: Sequence[Array]) -> None:
    shapes = [core.shape for core in cores]
    if not cores or any(core.ndim != 4 for core in cores):
        raise ShapeError(f"cores have the shapes {shapes}; expected at least one, each (left, input, output, right)")
    bonds = [1, *(shape[3] for shape in shapes)]
    if bonds[-1] != 1 or any(shape[0] != bond for shape, bond in zip(shapes, bonds, strict=False)):
        raise ShapeError(f"cores have the shapes {shapes}; expected equal neighbouring bonds and 1 at both ends")


def _of_chain(cores: Sequence[Array]) -> MPO:
    """Wrap cores whose bonds match; where a bond is wider than useful, QR from both sides first makes it useful."""
    bonds = (1, *(core.shape[3] for core in cores))
    shape = MPOShape(tuple(c.shape[1] for c in cores), tuple(c.shape[2] for c in cores), bonds)
    if shape.bond_dims == bonds:
        return MPO(shape, tuple(cores))
    reduced = list(cores)
    for k in range(len(reduced) - 1):
        reduced[k], reduced[k + 1] = push_right(reduced[k], reduced[k + 1])
    for k in reversed(range(1, len(reduced))):
        reduced[k - 1], reduced[k] = push_left(reduced[k - 1], reduced[k])
    return MPO(shape, tuple(reduced))


def push_right(core: Array, following: Array) -> tuple[Array, Array]:
    """Make ``core`` a left isometry and move the rest of it into the core that follows."""
    left, i, j, right = core.shape
    q, r = np.linalg.qr(core.reshape(left * i * j, right))
    signs = np.where(np.diagonal(r) < 0, -1.0, 1.0)
    q, r = q * signs, r * signs[:, None]
    return q.reshape(left, i, j, -1), np.tensordot(r, following, axes=1)


def push_left(preceding: Array, core: Array) -> tuple[Array, Array]:
    """Make ``core`` a right isometry and move the rest of it into the core before: `push_right` of the mirror image."""
    isometry, rest = push_right(_mirrored(core), _mirrored(preceding))
    return _mirrored(rest), _mirrored(isometry)


def _mirrored(core: Array) -> Array:
    """The core with its two bonds exchanged."""
    return core.transpose(3, 1, 2, 0)


def _direct_sum(a: Array, b: Array, first: bool, last: bool) -> Array:
    """Core of ``A - B``: block diagonal in the bonds, one row at the first site (negated), one column at the last."""
    b = -b if first else b
    if first and last:
        return a + b
    if first:
        return np.concatenate([a, b], axis=3)
    if last:
        return np.concatenate([a, b], axis=0)
    left, right = a.shape[0], a.shape[3]
    core = np.zeros((left + b.shape[0], *a.shape[1:3], right + b.shape[3]))
    core[:left, :, :, :right] = a
    core[left:, :, :, right:] = b
    return core
