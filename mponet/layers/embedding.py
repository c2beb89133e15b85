"""What an embedding layer is.

A chain of cores whose input legs are indexed by the digits of a token.

The table ``(num_embeddings, features)`` is the matrix of an operator.  A token is written in the
mixed radix of the input factors, ``i = (i_1 .. i_n)``, and its row is the product of one slice of
each
core: the table is never formed.  The vocabulary is padded to the product of the input factors; the
rows beyond it are part of no result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from mponet.errors import ShapeError
from mponet.operators.arrays import Array, as_float64
from mponet.operators.decompose import Decomposition, from_matrix
from mponet.operators.factors import factorize
from mponet.operators.mpo import MPO, to_matrix
from mponet.operators.shape import MPOShape


@dataclass(frozen=True, slots=True)
class EmbeddingShape:
    """The integers of an embedding whose table is a chain of cores.

    Attributes:
        num_embeddings: length of the vocabulary.
        mpo: factors and bonds of the table; its rows are at least as many as the vocabulary.

    Raises:
        ShapeError: the vocabulary has no entry, or the operator has fewer rows.

    Example:
        >>> shape = EmbeddingShape.from_sizes(30522, 384, bond=16)
        >>> str(shape), shape.parameters
        ('30522 tokens as M^{24,16}_{175,175}(16)', 112000)
    """

    num_embeddings: int
    mpo: MPOShape

    def __post_init__(self) -> None:
        if isinstance(self.num_embeddings, bool) or self.num_embeddings < 1:
            raise ShapeError(f"num_embeddings is {self.num_embeddings!r}; expected a whole number of at least 1")
        if self.mpo.in_features < self.num_embeddings:
            raise ShapeError(
                f"operator is {self.mpo} with {self.mpo.in_features} rows; expected at least {self.num_embeddings}, "
                "one for each token; use larger input_dims"
            )

    @classmethod
    def from_sizes(
        cls,
        num_embeddings: int,
        features: int,
        bond: int | Sequence[int],
        *,
        sites: int | None = None,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
    ) -> Self:
        """The shape from sizes, with the factors that are given or balanced ones.

        Args:
            num_embeddings: length of the vocabulary.
            features: length of a row.
            bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
            sites: number of factors where they are chosen; None takes that of the factors given,
                else 2.
            input_dims: factors whose product is at least ``num_embeddings``; None chooses.
            output_dims: factors of ``features``; None chooses.

        Raises:
            ShapeError: sizes, factors and bonds do not fit together.
        """
        given = next((len(dims) for dims in (input_dims, output_dims) if dims is not None), 2)
        sites = given if sites is None else sites
        rows = padded_dims(num_embeddings, sites) if input_dims is None else input_dims
        columns = factorize(features, sites) if output_dims is None else output_dims
        if prod(columns) != features:
            raise ShapeError(f"output_dims are {tuple(columns)}; expected factors of {features} features")
        return cls(num_embeddings, MPOShape.from_factors(rows, columns, bond))

    @property
    def in_features(self) -> int:
        """``num_embeddings``."""
        return self.num_embeddings

    @property
    def out_features(self) -> int:
        """Length of a row."""
        return self.mpo.out_features

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
        """Number of entries of the table."""
        return self.num_embeddings * self.out_features

    @property
    def head(self) -> MPOShape:
        """The transposed operator, for an output head of the same cores.

        It maps ``features`` to the padded vocabulary.
        """
        return MPOShape(self.mpo.output_dims, self.mpo.input_dims, self.mpo.bond_dims)

    @property
    def indexed(self) -> tuple[int, ...]:
        """Sites, from 0, whose cores are indexed.

        Those with an input factor above 1, at least one.
        """
        return tuple(k for k, size in enumerate(self.mpo.input_dims) if size > 1) or (0,)

    def __str__(self) -> str:
        return f"{self.num_embeddings} tokens as {self.mpo}"


def from_table(
    table: ArrayLike,
    shape: EmbeddingShape,
    *,
    max_bond: int | Sequence[int] | None = None,
    relative_error: float = 0.0,
) -> Decomposition:
    """Decompose a table into the factors of a shape; the rows beyond the vocabulary are zero.

    Args:
        table: ``(num_embeddings, features)``, real and finite.
        shape: the factors; its bonds are not used.
        max_bond: as in `mponet.from_matrix`.
        relative_error: as in `mponet.from_matrix`.

    Raises:
        ShapeError: the table has another shape.
        InputError: see `mponet.from_matrix`.
    """
    factors = shape.mpo
    return from_matrix(
        padded(table, shape), factors.input_dims, factors.output_dims, max_bond=max_bond, relative_error=relative_error
    )


def padded(table: ArrayLike, shape: EmbeddingShape) -> Array:
    """The table with rows of zeros up to the product of the input factors."""
    rows = as_float64(table, "table")
    if rows.shape != (shape.num_embeddings, shape.out_features):
        raise ShapeError(f"table has the shape {rows.shape}; expected ({shape.num_embeddings}, {shape.out_features})")
    return np.pad(rows, ((0, shape.mpo.in_features - shape.num_embeddings), (0, 0)))


def table_of(shape: EmbeddingShape, mpo: MPO) -> Array:
    """The table ``(num_embeddings, features)`` that an operator is, float64."""
    return to_matrix(mpo)[: shape.num_embeddings]


def padded_dims(size: int, sites: int) -> tuple[int, ...]:
    """Nearly equal factors whose product is at least ``size``: what it takes to index a vocabulary.

    Raises:
        ShapeError: ``size`` or ``sites`` is less than 1.

    Example:
        >>> padded_dims(30522, 2), padded_dims(50257, 3)  # 30625 and 50616 rows
        ((175, 175), (37, 37, 37))
    """
    if size < 1 or sites < 1:
        raise ShapeError(f"size is {size} and sites {sites}; expected whole numbers of at least 1")
    dims: list[int] = []
    for left in range(sites, 0, -1):
        factor = ceil(size ** (1 / left) - 1e-9)
        dims.append(factor)
        size = ceil(size / factor)
    return tuple(dims)
