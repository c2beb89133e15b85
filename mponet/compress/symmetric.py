"""`SymmetricSum`: a sum of symmetric matrices of which only the upper triangle is kept."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mponet.errors import ShapeError

Array = NDArray[np.float64]


@dataclass(slots=True, eq=False)
class SymmetricSum:
    """A sum of symmetric matrices ``(size, size)``, or of their diagonals.

    Attributes:
        size: rows of the matrix.
        values: the upper triangle row by row, ``(size (size + 1) / 2,)``, or the diagonal,
            ``(size,)``.
        is_diagonal: whether only the diagonal is kept.

    Raises:
        ShapeError: the number of values does not fit the size.

    Examples:
        >>> import numpy as np
        >>> total = SymmetricSum.zeros(2)
        >>> total.add(np.array([[1.0, 2.0], [2.0, 4.0]]))
        >>> total.values, total.full()
        (array([1., 2., 4.]), array([[1., 2.],
               [2., 4.]]))
    """

    size: int
    values: Array
    is_diagonal: bool = False

    def __post_init__(self) -> None:
        expected = self.size if self.is_diagonal else self.size * (self.size + 1) // 2
        if self.values.shape != (expected,):
            raise ShapeError(f"values have the shape {self.values.shape}; expected ({expected},) for size {self.size}")

    @classmethod
    def zeros(cls, size: int, *, diagonal: bool = False) -> "SymmetricSum":
        """The sum of no matrices."""
        return cls(size, np.zeros(size if diagonal else size * (size + 1) // 2), diagonal)

    def add(self, products: NDArray[np.floating]) -> None:
        """Add a matrix ``(size, size)``, or a diagonal ``(size,)``.

        Raises:
            ShapeError: it has another shape.
        """
        shape = (self.size,) if self.is_diagonal else (self.size, self.size)
        if products.shape != shape:
            raise ShapeError(f"products have the shape {products.shape}; expected {shape}")
        if self.is_diagonal:
            self.values += products
            return
        for row, place in self._rows():
            place += products[row, row:]

    def merge(self, other: "SymmetricSum") -> None:
        """Add another sum.

        Raises:
            ShapeError: it is of other matrices.
        """
        if (self.size, self.is_diagonal) != (other.size, other.is_diagonal):
            raise ShapeError(f"sums of the sizes {self.size} and {other.size} do not add; expected the same kind")
        self.values += other.values

    def full(self) -> Array:
        """The matrix ``(size, size)``, or the diagonal ``(size,)``."""
        if self.is_diagonal:
            return self.values.copy()
        matrix = np.empty((self.size, self.size))
        for row, place in self._rows():
            matrix[row, row:] = place
            matrix[row:, row] = place
        return matrix

    def diagonal(self) -> Array:
        """The diagonal ``(size,)``."""
        if self.is_diagonal:
            return self.values.copy()
        lengths = np.arange(self.size, 0, -1)
        places = np.concatenate([[0], np.cumsum(lengths[:-1])])
        return np.take(self.values, places)

    def copy(self) -> "SymmetricSum":
        """An independent sum of the same values."""
        return SymmetricSum(self.size, self.values.copy(), self.is_diagonal)

    def _rows(self) -> Iterator[tuple[int, Array]]:
        """Each row with its place in ``values``, from the diagonal on."""
        start = 0
        for row in range(self.size):
            stop = start + self.size - row
            yield row, self.values[start:stop]
            start = stop
