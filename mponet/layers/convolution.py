"""What a convolution layer is: a chain of cores whose matrix is the kernel in another order.

A kernel ``(*window, in_channels / groups, out_channels)`` (HWIO) becomes a matrix when its axes are
split into rows and columns.  The split is called the *structure*:

=============  ==============================  ===========================================
structure      matrix                          smallest chain, as convolutions
=============  ==============================  ===========================================
``separable``  ``(kw Cin) x (kh Cout)``        ``1 x kw`` to ``D`` channels, then ``kh x 1``
``kernel``     ``(kh kw Cin) x Cout``          ``kh x kw`` to ``D`` channels, then ``1 x 1``
``channel``    ``(Cin kh kw) x Cout``          ``1 x 1``, ``kh x kw``, ``1 x 1``
``spatial``    ``(kh kw Cin) x Cout``          one ``kh x kw`` core for all channels, then an MPO
=============  ==============================  ===========================================

``spatial`` is the layer of Garipov et al. (arXiv:1611.03214), ``separable`` that of Jaderberg et
al. (arXiv:1405.3866), ``channel`` a Tucker-2 decomposition.  Any factors may be given to any
structure: a low-rank split has factors ``(N, 1)`` and ``(1, M)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mponet.errors import ShapeError
from mponet.operators.arrays import Array, as_float64
from mponet.operators.decompose import Decomposition, from_matrix
from mponet.operators.factors import factorize
from mponet.operators.initialize import target_variance
from mponet.operators.mpo import MPO, to_matrix
from mponet.operators.shape import MPOShape

#: Rows and columns of the matrix of each structure.  ``window`` is all spatial axes, ``last`` the
#: last of them, ``others`` all but the last.
STRUCTURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "separable": (("last", "in"), ("others", "out")),
    "kernel": (("window", "in"), ("out",)),
    "channel": (("in", "window"), ("out",)),
    "spatial": (("window", "in"), ("out",)),
}


@dataclass(frozen=True, slots=True)
class ConvShape:
    """The integers of a convolution whose kernel is a chain of cores.

    Attributes:
        kernel_size: length of the window along each spatial axis.
        in_channels: channels of the input, all groups together.
        out_channels: channels of the output, all groups together.
        groups: number of groups; each sees ``in_channels / groups`` channels.
        structure: a name of `STRUCTURES`.
        mpo: factors and bonds of the matrix of the kernel.

    Raises:
        ShapeError: a size is not a positive whole number, the groups do not divide the channels,
            the structure is unknown, or the chain has another matrix.

    Example:
        >>> shape = ConvShape.from_sizes(16, 32, (3, 3), bond=8)
        >>> str(shape), shape.parameters, shape.dense_parameters
        ('separable 3x3 kernel as M^{1,96}_{48,1}(8)', 1152, 4608)
    """

    kernel_size: tuple[int, ...]
    in_channels: int
    out_channels: int
    groups: int
    structure: str
    mpo: MPOShape

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel_size", tuple(self.kernel_size))
        _check_sizes(self.kernel_size, self.in_channels, self.out_channels, self.groups, self.structure)
        expected = tuple(prod(self.kernel_shape[axis] for axis in axes) for axes in self.matrix_axes)
        if (self.mpo.in_features, self.mpo.out_features) != expected:
            raise ShapeError(
                f"operator is {self.mpo}, a matrix {self.mpo.in_features} x {self.mpo.out_features}; expected "
                f"{expected[0]} x {expected[1]} for a kernel {self.kernel_shape} as {self.structure!r}"
            )

    @classmethod
    def from_sizes(
        cls,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        bond: int | Sequence[int],
        *,
        groups: int = 1,
        structure: str = "separable",
        sites: int | None = None,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
    ) -> Self:
        """The shape from sizes, with the factors that are given or those of the structure.

        Args:
            in_channels: channels of the input, all groups together.
            out_channels: channels of the output, all groups together.
            kernel_size: length of the window along each spatial axis; one number for one axis.
            bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
            groups: number of groups.
            structure: a name of `STRUCTURES`.
            sites: number of factors where they are chosen; None takes the smallest chain of the
                structure, more split the channels in a balanced way.
            input_dims: factors of the rows of the matrix; None chooses.
            output_dims: factors of the columns; None chooses.

        Raises:
            ShapeError: see `ConvShape`.
        """
        window = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
        _check_sizes(window, in_channels, out_channels, groups, structure)
        kernel = (*window, in_channels // groups, out_channels)
        rows, columns = _dims(kernel, structure, sites)
        mpo = MPOShape.from_factors(input_dims or rows, output_dims or columns, bond)
        return cls(window, in_channels, out_channels, groups, structure, mpo)

    @classmethod
    def from_mpo(
        cls, mpo: MPOShape, kernel_size: int | Sequence[int], *, structure: str = "separable", groups: int = 1
    ) -> Self:
        """The shape of an operator that is the matrix of a kernel.

        The channels follow from its sizes.

        Raises:
            ShapeError: the rows or columns are not a multiple of the spatial axes in them.
        """
        window = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
        _check_sizes(window, groups, groups, groups, structure)
        rows, columns = _axes(len(window), structure)
        spatial = [prod(window[axis] for axis in axes if axis < len(window)) for axes in (rows, columns)]
        inputs, outputs = mpo.in_features // spatial[0], mpo.out_features // spatial[1]
        return cls(window, max(inputs, 1) * groups, max(outputs, 1), groups, structure, mpo)

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel_size)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """``(*kernel_size, in_channels / groups, out_channels)``: HWIO."""
        return (*self.kernel_size, self.in_channels // self.groups, self.out_channels)

    @property
    def matrix_axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Axes of the kernel that are the rows of the matrix, and those that are its columns."""
        return _axes(self.rank, self.structure)

    @property
    def in_features(self) -> int:
        """``in_channels``."""
        return self.in_channels

    @property
    def out_features(self) -> int:
        """``out_channels``, the length of the bias."""
        return self.out_channels

    @property
    def sites(self) -> int:
        """Number of cores."""
        return self.mpo.sites

    @property
    def core_shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """``(D_{k-1}, I_k, J_k, D_k)`` of each core."""
        return self.mpo.core_shapes

    @property
    def parameters(self) -> int:
        """Number of core entries."""
        return self.mpo.parameters

    @property
    def dense_parameters(self) -> int:
        """Number of entries of the kernel."""
        return prod(self.kernel_shape)

    def variance(self, rule: str | float) -> float:
        """Target variance of the entries of the kernel.

        Fans count the window, as every framework does.
        """
        if not isinstance(rule, str):
            return rule
        window = prod(self.kernel_size)
        return target_variance(rule, window * self.in_channels // self.groups, window * self.out_channels)

    def to_matrix(self, kernel: ArrayLike) -> Array:
        """The matrix of a kernel, float64.

        Raises:
            ShapeError: the kernel has another shape.
        """
        weight = as_float64(kernel, "kernel")
        if weight.shape != self.kernel_shape:
            raise ShapeError(f"kernel has the shape {weight.shape}; expected {self.kernel_shape} (HWIO)")
        rows, columns = self.matrix_axes
        return weight.transpose(rows + columns).reshape(self.mpo.in_features, self.mpo.out_features)

    def to_kernel(self, matrix: NDArray[np.float64]) -> Array:
        """The kernel (HWIO) of a matrix: the inverse of `to_matrix`."""
        rows, columns = self.matrix_axes
        order = rows + columns
        paired = matrix.reshape(tuple(self.kernel_shape[axis] for axis in order))
        return np.ascontiguousarray(paired.transpose(np.argsort(order)))

    def __str__(self) -> str:
        window = "x".join(map(str, self.kernel_size))
        groups = f" in {self.groups} groups" if self.groups > 1 else ""
        return f"{self.structure} {window} kernel{groups} as {self.mpo}"


def from_kernel(
    kernel: ArrayLike,
    shape: ConvShape,
    *,
    max_bond: int | Sequence[int] | None = None,
    relative_error: float = 0.0,
) -> Decomposition:
    """Decompose a kernel into the factors of a shape.

    Exactly, by largest bond, by relative error, or by both.

    The Frobenius norm of the matrix is that of the kernel, so the errors reported are the kernel's.

    Args:
        kernel: HWIO, real and finite.
        shape: the structure and the factors; its bonds are not used.
        max_bond: as in `mponet.from_matrix`.
        relative_error: as in `mponet.from_matrix`.

    Raises:
        ShapeError: the kernel has another shape.
        InputError: see `mponet.from_matrix`.

    Example:
        >>> kernel = np.arange(2.0 * 2 * 3 * 4).reshape(2, 2, 3, 4)
        >>> kept = from_kernel(kernel, ConvShape.from_sizes(3, 4, (2, 2), 1))
        >>> kept.mpo.shape.bond_dims  # this kernel has rank 2
        (1, 2, 1)
    """
    matrix = shape.to_matrix(kernel)
    factors = shape.mpo
    return from_matrix(
        matrix, factors.input_dims, factors.output_dims, max_bond=max_bond, relative_error=relative_error
    )


def kernel_of(shape: ConvShape, mpo: MPO) -> Array:
    """The kernel (HWIO) that an operator is, float64."""
    return shape.to_kernel(to_matrix(mpo))


def _check_sizes(window: Sequence[int], inputs: int, outputs: int, groups: int, structure: str) -> None:
    numbers = (*window, inputs, outputs, groups)
    if not window or any(isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1 for n in numbers):
        raise ShapeError(
            f"kernel_size is {tuple(window)}, channels are {inputs} and {outputs}, groups {groups}; expected whole "
            "numbers of at least 1"
        )
    if inputs % groups or outputs % groups:
        raise ShapeError(f"groups is {groups} for {inputs} and {outputs} channels; expected a divisor of both")
    if structure not in STRUCTURES:
        raise ShapeError(f"structure is {structure!r}; expected one of {', '.join(map(repr, STRUCTURES))}")


def _axes(rank: int, structure: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Axes of the kernel on each side of the matrix."""
    named = {
        "window": tuple(range(rank)),
        "last": (rank - 1,),
        "others": tuple(range(rank - 1)),
        "in": (rank,),
        "out": (rank + 1,),
    }
    rows, columns = (tuple(axis for name in side for axis in named[name]) for side in STRUCTURES[structure])
    return rows, columns


def _dims(kernel: tuple[int, ...], structure: str, sites: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Factors of rows and columns where none are given."""
    rank, window = len(kernel) - 2, prod(kernel[:-2])
    rows, columns = _axes(rank, structure)
    inputs, outputs = (prod(kernel[axis] for axis in axes) for axes in (rows, columns))
    if structure == "spatial":
        channels = 2 if sites is None else sites - 1
        if channels < 1:
            raise ShapeError(f"sites is {sites}; expected at least 2 for 'spatial', one of them for the window")
        return (window, *factorize(kernel[-2], channels)), (1, *factorize(kernel[-1], channels))
    if sites is not None:
        return _balanced(kernel, rows, sites), _balanced(kernel, columns, sites)
    if structure == "channel":
        return (kernel[-2], window, 1), (1, 1, outputs)
    return (inputs, 1), (1, outputs)


def _balanced(kernel: tuple[int, ...], axes: tuple[int, ...], sites: int) -> tuple[int, ...]:
    """The channels in ``sites`` balanced factors.

    What lies before them joins the first, what follows the last.
    """
    channel = next(axis for axis in axes if axis >= len(kernel) - 2)
    place = axes.index(channel)
    factors = list(factorize(kernel[channel], sites))
    factors[0] *= prod(kernel[axis] for axis in axes[:place])
    factors[-1] *= prod(kernel[axis] for axis in axes[place + 1 :])
    return tuple(factors)
