"""The integers of an MPO: physical dimensions, bond dimensions and what follows from them.

``M^{J}_{I}(D)`` is the paper's notation (Eq. 8): output factors ``J`` on top, input factors ``I``
at the bottom.  Core ``k`` has the axes ``(left, input, output, right)`` and shape ``(D_{k-1}, I_k,
J_k, D_k)``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import cast

from mponet.display import NotebookRepr
from mponet.errors import ShapeError
from mponet.operators.factors import default_sites, dimensions, factorize


@dataclass(frozen=True, slots=True)
class MPOShape(NotebookRepr):
    """Physical and bond dimensions of a matrix product operator.

    A bond that is asked for is clamped to what the operator can use, so that no parameter is
    redundant: ``D_k <= D_{k-1} I_k J_k`` and ``D_k <= D_{k+1} I_{k+1} J_{k+1}``.  For one bond
    dimension asked for everywhere this is ``min(prod_{l<=k} I_l J_l, prod_{l>k} I_l J_l)``, the cap
    that Fig. 2 of the paper uses silently.

    Attributes:
        input_dims: ``(I_1, ..., I_n)``; their product is the number of inputs.
        output_dims: ``(J_1, ..., J_n)``; their product is the number of outputs.
        bond_dims: ``(1, D_1, ..., D_{n-1}, 1)`` after clamping, boundaries included.

    Raises:
        ShapeError: a dimension is not a positive whole number, or the three tuples do not fit
            together.

    Example:
        >>> from mponet import MPOShape
        >>> shape = MPOShape((2, 2), (2, 2), (1, 100, 1))
        >>> shape.bond_dims, shape.parameters, shape.dense_parameters
        ((1, 4, 1), 32, 16)
    """

    input_dims: tuple[int, ...]
    output_dims: tuple[int, ...]
    bond_dims: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("input_dims", "output_dims", "bond_dims"):
            object.__setattr__(self, name, dimensions(getattr(self, name), name))
        sites = len(self.input_dims)
        if sites == 0 or len(self.output_dims) != sites:
            raise ShapeError(
                f"input_dims has {sites} factors and output_dims has {len(self.output_dims)}; expected the same "
                "number, at least one; pad the shorter tuple with 1"
            )
        if len(self.bond_dims) != sites + 1 or self.bond_dims[0] != 1 or self.bond_dims[-1] != 1:
            raise ShapeError(
                f"bond_dims is {self.bond_dims}; expected {sites + 1} numbers, the first and last of them 1; "
                "use MPOShape.from_factors(...) to give inner bonds only"
            )
        object.__setattr__(self, "bond_dims", _clamped(self.bond_dims, self.site_sizes))

    @classmethod
    def from_factors(
        cls, input_dims: Sequence[int], output_dims: Sequence[int], bond: int | Sequence[int]
    ) -> "MPOShape":
        """The shape with inner bonds ``bond``.

        One number for all, or one for each of the ``n - 1`` bonds.

        Raises:
            ShapeError: a dimension is not a positive whole number, or their counts do not fit
                together.

        Example:
            >>> from mponet import MPOShape
            >>> print(MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 4))
            M^{4,4,4,4}_{4,7,7,4}(4)
        """
        inputs = dimensions(input_dims, "input_dims")
        return cls(inputs, dimensions(output_dims, "output_dims"), (1, *inner_bonds(bond, len(inputs)), 1))

    @classmethod
    def from_sizes(
        cls,
        inputs: int | Sequence[int],
        outputs: int | Sequence[int],
        bond: int | Sequence[int],
        sites: int | None = None,
    ) -> "MPOShape":
        """The shape from sizes, split by `factorize`, or from factors, taken as they are.

        Args:
            inputs: number of inputs, or its factors.
            outputs: number of outputs, or its factors.
            bond: as in `from_factors`.
            sites: number of factors; None takes that of the factors given, else `default_sites`.

        Raises:
            ShapeError: a dimension is not a positive whole number, or their counts do not fit
                together.

        Example:
            >>> from mponet import MPOShape
            >>> MPOShape.from_sizes(784, 256, bond=4).core_shapes
            ((1, 28, 16, 4), (4, 28, 16, 1))
        """
        given = [len(size) for size in (inputs, outputs) if isinstance(size, Sequence)]
        if sites is None:
            sites = given[0] if given else default_sites(cast(int, inputs), cast(int, outputs))
        rows, columns = (s if isinstance(s, Sequence) else factorize(s, sites) for s in (inputs, outputs))
        return cls.from_factors(rows, columns, bond)

    @property
    def sites(self) -> int:
        """Number of sites (cores) ``n``."""
        return len(self.input_dims)

    @property
    def in_features(self) -> int:
        """``prod I_k``, the length of an input vector."""
        return prod(self.input_dims)

    @property
    def out_features(self) -> int:
        """``prod J_k``, the length of an output vector."""
        return prod(self.output_dims)

    @property
    def site_sizes(self) -> tuple[int, ...]:
        """``I_k J_k`` of each site."""
        return tuple(i * j for i, j in zip(self.input_dims, self.output_dims, strict=True))

    @property
    def core_shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """``(D_{k-1}, I_k, J_k, D_k)`` of each core."""
        return tuple(
            zip(
                self.bond_dims[:-1],
                self.input_dims,
                self.output_dims,
                self.bond_dims[1:],
                strict=True,
            )
        )

    @property
    def max_bond_dims(self) -> tuple[int, ...]:
        """The largest useful bonds, boundaries included.

        With them every matrix of this size is exact.
        """
        return _clamped((1, *(self.in_features * self.out_features,) * (self.sites - 1), 1), self.site_sizes)

    @property
    def parameters(self) -> int:
        """Number of core entries, ``sum D_{k-1} I_k J_k D_k``.

        This is Eq. 6 of the paper, at the clamped bonds.
        """
        return sum(prod(shape) for shape in self.core_shapes)

    @property
    def dense_parameters(self) -> int:
        """Number of entries of the full matrix, ``in_features * out_features``."""
        return self.in_features * self.out_features

    def with_bond(self, bond: int | Sequence[int]) -> "MPOShape":
        """The same factors with other inner bonds."""
        return MPOShape.from_factors(self.input_dims, self.output_dims, bond)

    def __str__(self) -> str:
        outputs = ",".join(map(str, self.output_dims))
        inputs = ",".join(map(str, self.input_dims))
        inner = self.bond_dims[1:-1]
        bonds = str(inner[0]) if len(set(inner)) == 1 else ",".join(map(str, inner))
        return f"M^{{{outputs}}}_{{{inputs}}}({bonds or '1'})"


def inner_bonds(bond: int | Sequence[int], sites: int) -> tuple[int, ...]:
    """The ``sites - 1`` inner bonds that are asked for, not clamped.

    One number for all, or one for each.

    Raises:
        ShapeError: a bond is not a positive whole number, or their count is wrong.
    """
    # one number is checked before it is repeated: with a single site a bad one would vanish unseen
    asked = dimensions(bond if isinstance(bond, Iterable) else (bond,), "bond")
    if not isinstance(bond, Iterable):
        return asked * (sites - 1)
    if len(asked) != sites - 1:
        raise ShapeError(f"bond is {bond!r}; expected one number, or {sites - 1}: one for each inner bond")
    return asked


def _clamped(bonds: tuple[int, ...], site_sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Clamp from the left, then from the right.

    One pass each is enough because every site size is at least 1.
    """
    result = list(bonds)
    for k, size in enumerate(site_sizes):
        result[k + 1] = min(result[k + 1], result[k] * size)
    for k in reversed(range(len(site_sizes))):
        result[k] = min(result[k], result[k + 1] * site_sizes[k])
    return tuple(result)
