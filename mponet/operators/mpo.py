"""Matrix product operators as values: numpy float64 cores and what can be done with them.

Conventions, everywhere in mponet: row-major (the first factor is the most significant), core axes
``(left, input, output, right)``, and a matrix ``W`` of shape ``(in_features, out_features)`` used
as ``y = x @ W``.  No function changes its argument; cores are read-only arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from mponet.display import NotebookRepr
from mponet.errors import InputError, ShapeError
from mponet.operators import chain
from mponet.operators.arrays import Array, as_float64, scale_by
from mponet.operators.axes import arranged, check_open, check_same
from mponet.operators.measure import entropy
from mponet.operators.shape import MPOShape, inner_bonds
from mponet.operators.truncation import cut_cores, cut_matrix


@dataclass(frozen=True, slots=True, eq=False)
class MPO(NotebookRepr):
    """A matrix product operator: a shape and its cores.

    ``inputs @ mpo`` is ``inputs @ W`` without forming ``W``; ``first - second`` is an MPO, too.

    Attributes:
        shape: the physical and bond dimensions.
        cores: one read-only float64 array per site, of shape ``(D_{k-1}, I_k, J_k, D_k)``.

    Raises:
        ShapeError: the cores do not have the shapes that ``shape`` names.
        InputError: a core holds complex or non-finite numbers.

    Example:
        >>> import numpy as np
        >>> from mponet import MPO
        >>> mpo = MPO.from_matrix(np.kron(np.eye(2), np.ones((3, 2))), (2, 3), (2, 2))
        >>> mpo
        MPO(M^{2,2}_{2,3}(1), 10 parameters)
        >>> mpo.to_matrix().shape
        (6, 4)
        >>> (np.ones(6) @ mpo).round(6).tolist()
        [3.0, 3.0, 3.0, 3.0]
    """

    shape: MPOShape
    cores: tuple[Array, ...]

    #: numpy leaves ``array @ mpo`` and ``array - mpo`` to this class.
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        cores = tuple(as_float64(core, f"core {k}") for k, core in enumerate(self.cores, start=1))
        shapes = tuple(core.shape for core in cores)
        if shapes != self.shape.core_shapes:
            raise ShapeError(
                f"cores have the shapes {shapes}; expected {self.shape.core_shapes} for {self.shape}; "
                "MPO.from_cores reads the shape off the cores and reduces bonds that are too wide"
            )
        object.__setattr__(self, "cores", cores)

    @classmethod
    def from_cores(
        cls,
        cores: Sequence[ArrayLike],
        axes: str | Sequence[str] = "left input output right",
        *,
        matrix: ArrayLike | None = None,
    ) -> Self:
        """The MPO with these cores.

        A bond wider than useful is reduced without changing the matrix.

        Args:
            cores: one array per site, of any framework.  The first may lack the axis ``left``, the
                last the axis ``right``.
            axes: the names of the axes in the order in which the cores have them.  Sizes cannot
                tell ``input`` from ``output``; ``mponet.operators.convert`` knows the order of
                other libraries.
            matrix: what the product of the cores should be, to check ``axes``; None checks nothing.

        Raises:
            ShapeError: a core has other axes, neighbouring bonds differ, a boundary bond is not 1,
                or the cores give another matrix than ``matrix``.
            InputError: a core holds complex or non-finite numbers.

        Example:
            >>> import numpy as np
            >>> from mponet import MPO
            >>> # (output, input, right), (left, output, input)
            >>> theirs = [np.ones((4, 2, 3)), np.ones((3, 5, 2))]
            >>> MPO.from_cores(theirs, axes="left output input right")
            MPO(M^{4,5}_{2,2}(3), 54 parameters)
        """
        arrays = arranged(cores, axes)
        check_open(arrays, cores)
        mpo = cls._of_chain(arrays)
        if matrix is not None:
            check_same(mpo.to_matrix(), matrix)
        return mpo

    @classmethod
    def from_matrix(
        cls,
        matrix: ArrayLike,
        input_dims: Sequence[int],
        output_dims: Sequence[int],
        *,
        max_bond: int | Sequence[int] | None = None,
        relative_error: float = 0.0,
    ) -> Self:
        """The MPO nearest to a matrix.

        `mponet.from_matrix` has the same arguments and states the error.

        Example:
            >>> import numpy as np
            >>> from mponet import MPO
            >>> MPO.from_matrix(np.eye(16), (4, 4), (4, 4))
            MPO(M^{4,4}_{4,4}(1), 32 parameters)
        """
        weight, factors = check_matrix(matrix, input_dims, output_dims)
        return cls._of_chain(cut_matrix(weight, factors, max_bond, relative_error).cores)

    def to_matrix(self) -> Array:
        """The full matrix ``W``, shape ``(in_features, out_features)``.

        Raises:
            InputError: an entry is beyond the range of float64.
        """
        matrix = chain.to_matrix(self.cores)
        if not np.isfinite(matrix).all():
            raise InputError(f"the matrix has entries beyond float64 (log_norm is {self.log_norm():.0f}); scale a core")
        return matrix

    def apply(self, inputs: ArrayLike) -> Array:
        """``inputs @ W``, shape ``(..., in_features)`` to ``(..., out_features)``.

        The matrix is never formed.

        Raises:
            ShapeError: the last axis is not ``in_features``.
            InputError: the inputs are complex or not finite.

        Example:
            >>> import numpy as np
            >>> from mponet import MPO
            >>> mpo = MPO.from_matrix(np.diag([1.0, 2.0, 3.0, 4.0]), (2, 2), (2, 2))
            >>> mpo.apply(np.ones(4)).round(6).tolist()
            [1.0, 2.0, 3.0, 4.0]
        """
        x = as_float64(inputs, "inputs")
        if x.ndim == 0 or x.shape[-1] != self.shape.in_features:
            raise ShapeError(
                f"inputs have the shape {x.shape}; expected (..., {self.shape.in_features}) for {self.shape}"
            )
        return chain.apply(self.cores, x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.shape.out_features)

    def __rmatmul__(self, inputs: ArrayLike) -> Array:
        return self.apply(inputs)

    def __sub__(self, other: "MPO") -> "MPO":
        if not isinstance(other, MPO):
            return NotImplemented
        one, two = self.shape, other.shape
        if (one.input_dims, one.output_dims) != (two.input_dims, two.output_dims):
            raise ShapeError(f"cannot subtract {two} from {one}; expected the same input and output factors")
        cores, exponent = chain.difference(self.cores, other.cores)
        return MPO._of_chain(chain.with_scale(cores, exponent, 0))

    def transpose(self) -> "MPO":
        """The operator of ``W.T``: inputs and outputs exchanged.

        Example:
            >>> from mponet import MPO
            >>> MPO.from_matrix([[1.0, 2.0]], (1,), (2,)).transpose().to_matrix().tolist()
            [[1.0], [2.0]]
        """
        return MPO.from_cores(self.cores, "left output input right")

    def truncate(self, *, max_bond: int | Sequence[int] | None = None, relative_error: float = 0.0) -> "MPO":
        """The nearest smaller operator.

        `mponet.truncate` has the same arguments and states the error.

        Example:
            >>> import numpy as np
            >>> from mponet import MPO
            >>> swap = np.eye(4).reshape(2, 2, 2, 2).transpose(1, 0, 2, 3).reshape(4, 4)
            >>> MPO.from_matrix(swap, (2, 2), (2, 2)).truncate(max_bond=2)
            MPO(M^{2,2}_{2,2}(2), 16 parameters)
        """
        return MPO._of_chain(cut_cores(self.cores, self.shape, max_bond, relative_error).cores)

    def canonical(self, center: int = 1) -> "MPO":
        """The same operator in the gauge with orthogonality centre ``center`` (sites count from 1).

        Cores left of the centre are left isometries, ``sum_{aij} A[aijb] A[aijc] = delta_bc``,
        cores right of it right isometries, by QR with a non-negative diagonal of R, so that the
        form is unique for full-rank bonds.  Shapes do not change.

        Raises:
            ShapeError: there is no such site.
            InputError: the norm, which the centre carries, is beyond the range of float64.

        Example:
            >>> import numpy as np
            >>> from mponet import MPO
            >>> mpo = MPO.from_matrix(np.diag([3.0, 0.0, 0.0, 4.0]), (2, 2), (2, 2))
            >>> center, isometry = mpo.canonical(1).cores
            >>> round(float(np.linalg.norm(center)), 12)
            5.0
            >>> np.einsum("aijb,cijb->ac", isometry, isometry).round(6).tolist()
            [[1.0, 0.0], [0.0, 1.0]]
        """
        if not 1 <= center <= self.shape.sites:
            raise ShapeError(f"center is {center}; expected a site from 1 to {self.shape.sites}")
        cores, exponent = chain.canonical(self.cores, center - 1)
        if abs(exponent) > chain.SAFE_EXPONENT and cores[center - 1].any():
            raise InputError(
                f"log_norm is {self.log_norm():.0f}; expected a norm that one core can carry; scale a core first"
            )
        return MPO(self.shape, tuple(chain.with_scale(cores, exponent, center - 1)))

    def norm(self) -> float:
        """``||W||_F``; infinite or 0 beyond the range of float64 (see `log_norm`).

        The matrix is never formed.

        Example:
            >>> from mponet import MPO
            >>> round(MPO.from_matrix([[3.0, 0.0], [0.0, 4.0]], (2,), (2,)).norm(), 12)
            5.0
        """
        return scale_by(*chain.norm(self.cores))

    def log_norm(self) -> float:
        """``ln ||W||_F`` at any scale; minus infinity for zero.

        Example:
            >>> import numpy as np
            >>> from mponet import MPO
            >>> huge = MPO.from_cores([np.full((1, 1, 1, 1), 1e300)] * 3)
            >>> huge.norm(), round(huge.log_norm(), 3)  # 900 ln 10
            (inf, 2072.327)
        """
        value, exponent = chain.norm(self.cores)
        return log(value) + exponent * log(2) if value else -inf

    def spectra(self) -> tuple[Array, ...]:
        """Singular values of ``W`` unfolded at each inner bond, descending.

        There are ``D_k`` of them at bond ``k``.

        Example:
            >>> import numpy as np
            >>> from mponet import MPO
            >>> swap = np.eye(4).reshape(2, 2, 2, 2).transpose(1, 0, 2, 3).reshape(4, 4)
            >>> mpo = MPO.from_matrix(swap, (2, 2), (2, 2))
            >>> [values.round(6).tolist() for values in mpo.spectra()]
            [[1.0, 1.0, 1.0, 1.0]]
        """
        values, exponent = chain.spectra(self.cores)
        return tuple(np.ldexp(s, exponent) for s in values)

    def entropy(self) -> tuple[float, ...]:
        """Entanglement entropy of each inner bond.

        It is ``S_k = -sum_a p_a ln p_a`` with ``p_a = s_a^2 / sum s^2``.

        At most ``ln D_k``; 0 for a zero operator.  The authors' entropy.py computes the same from
        the full matrix.

        Example:
            >>> import numpy as np
            >>> from mponet import MPO
            >>> swap = np.eye(4).reshape(2, 2, 2, 2).transpose(1, 0, 2, 3).reshape(4, 4)
            >>> np.exp(MPO.from_matrix(swap, (2, 2), (2, 2)).entropy()).round(6).tolist()
            [4.0]
        """
        return tuple(entropy(s) for s in chain.spectra(self.cores)[0])

    def truncation_error(self, max_bond: int | Sequence[int], *, relative: bool = False) -> tuple[float, ...]:
        """Per inner bond, the norm of the singular values beyond ``max_bond``.

        It is ``eps_k`` of MPOP Eq. 3.

        Each is the error of cutting that bond alone; cutting all of them costs between the largest
        and ``sqrt(sum eps_k^2)``.

        Args:
            max_bond: as in `truncate`.
            relative: divide by the norm of the operator, which works at any scale; 0 for zero.

        Raises:
            ShapeError: ``max_bond`` is not a positive whole number, or their count is wrong.

        Example:
            >>> import numpy as np
            >>> from mponet import MPO
            >>> swap = np.eye(4).reshape(2, 2, 2, 2).transpose(1, 0, 2, 3).reshape(4, 4)
            >>> mpo = MPO.from_matrix(swap, (2, 2), (2, 2))
            >>> [round(share**2, 6) for share in mpo.truncation_error(3, relative=True)]
            [0.25]
        """
        values, exponent = chain.spectra(self.cores)
        bonds = inner_bonds(max_bond, self.shape.sites)
        errors = [float(np.linalg.norm(s[d:])) for s, d in zip(values, bonds, strict=True)]
        if relative:
            norms = [float(np.linalg.norm(s)) for s in values]
            return tuple(error / norm if norm else 0.0 for error, norm in zip(errors, norms, strict=True))
        return tuple(scale_by(error, exponent) for error in errors)

    @property
    def parameters(self) -> int:
        """Number of core entries."""
        return self.shape.parameters

    def __repr__(self) -> str:
        return f"MPO({self.shape}, {self.parameters} parameters)"

    @classmethod
    def _of_chain(cls, cores: Sequence[Array]) -> Self:
        """Wrap cores whose bonds match; bonds wider than useful are reduced first."""
        bonds = (1, *(core.shape[3] for core in cores))
        shape = MPOShape(tuple(c.shape[1] for c in cores), tuple(c.shape[2] for c in cores), bonds)
        return cls(shape, tuple(cores if shape.bond_dims == bonds else chain.reduced(cores)))


def to_matrix(mpo: MPO) -> Array:
    """The full matrix of an operator: `MPO.to_matrix`.

    Example:
        >>> from mponet import MPO, to_matrix
        >>> to_matrix(MPO.from_cores([[[[[1.0], [2.0]]]], [[[[3.0]], [[4.0]]]]]))
        array([[3., 6.],
               [4., 8.]])
    """
    return mpo.to_matrix()


def check_matrix(matrix: ArrayLike, input_dims: Sequence[int], output_dims: Sequence[int]) -> tuple[Array, MPOShape]:
    """A matrix as float64, and the factors of its two sides.

    Raises:
        ShapeError: the factors do not multiply to the matrix's shape.
        InputError: the matrix is complex or not finite.
    """
    factors = MPOShape.from_factors(input_dims, output_dims, 1)
    weight = as_float64(matrix, "matrix")
    if weight.shape != (factors.in_features, factors.out_features):
        raise ShapeError(
            f"matrix has the shape {weight.shape}; expected ({factors.in_features}, {factors.out_features}), the "
            f"products of input_dims {factors.input_dims} and output_dims {factors.output_dims}"
        )
    return weight, factors
