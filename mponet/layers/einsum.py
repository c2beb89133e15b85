"""`MatrixEinsum`: an einsum of inputs and a kernel that is a product with a matrix."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from mponet.errors import ShapeError

#: The token of any number of leading axes.
ELLIPSIS = "..."


@dataclass(frozen=True, slots=True)
class MatrixEinsum:
    """``einsum(equation, inputs, kernel)`` as rows of inputs times a matrix.

    The matrix has the summed axes as rows, in the order that they have in the inputs, and the
    kernel's other axes as columns, in the order that they have in the outputs.

    Attributes:
        inputs: subscripts of the inputs; ``...`` is one of them.
        kernel: subscripts of the kernel.
        outputs: subscripts of the outputs.

    Example:
        >>> heads = MatrixEinsum.parse("btd,hdm->bhtm")
        >>> heads.contracted, heads.features, heads.batch
        (('d',), ('h', 'm'), ('b', 't'))
        >>> heads.kernel_axes, heads.output_axes(4)
        ((1, 0, 2), (0, 2, 1, 3))
    """

    inputs: tuple[str, ...]
    kernel: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def parse(cls, equation: str) -> "MatrixEinsum":
        """Read an equation such as ``...d,dhm->...hm``.

        Raises:
            ShapeError: it is not an equation of two operands, or no product with one matrix.
        """
        operands, arrow, result = equation.replace(" ", "").partition("->")
        terms = operands.split(",")
        if not arrow or len(terms) != 2:
            raise ShapeError(f"equation is {equation!r}; expected two operands and an arrow, as in 'bd,dm->bm'")
        inputs, kernel, outputs = (_tokens(term, equation) for term in (*terms, result))
        parsed = cls(inputs, kernel, outputs)
        if problem := parsed._problem():
            raise ShapeError(f"equation is {equation!r}, where {problem}; expected a product with one matrix")
        return parsed

    @property
    def contracted(self) -> tuple[str, ...]:
        """Subscripts that are summed, in the order of the inputs: the rows of the matrix."""
        return tuple(token for token in self.inputs if token in self.kernel)

    @property
    def features(self) -> tuple[str, ...]:
        """Subscripts that the kernel gives, in the order of the outputs: the columns."""
        return tuple(token for token in self.outputs if token in self.kernel)

    @property
    def batch(self) -> tuple[str, ...]:
        """Subscripts of the inputs that are kept, in the order of the outputs."""
        return tuple(token for token in self.outputs if token not in self.kernel)

    @property
    def kernel_axes(self) -> tuple[int, ...]:
        """Permutation of the kernel's axes to ``(*contracted, *features)``."""
        return tuple(self.kernel.index(token) for token in (*self.contracted, *self.features))

    def dims(self, kernel_shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sizes of the contracted subscripts and of the features.

        Raises:
            ShapeError: the kernel has another number of axes.
        """
        if len(kernel_shape) != len(self.kernel):
            raise ShapeError(f"kernel has the shape {tuple(kernel_shape)}; expected {len(self.kernel)} axes for {self}")
        sizes = dict(zip(self.kernel, map(int, kernel_shape), strict=True))
        return tuple(sizes[token] for token in self.contracted), tuple(sizes[token] for token in self.features)

    def matrix_shape(self, kernel_shape: Sequence[int]) -> tuple[int, int]:
        """``(in_features, out_features)`` of the matrix of a kernel."""
        inputs, outputs = self.dims(kernel_shape)
        return prod(inputs), prod(outputs)

    def input_axes(self, rank: int) -> tuple[int, ...]:
        """Permutation of inputs with ``rank`` axes to ``(*batch, *contracted)``.

        Raises:
            ShapeError: they have too few axes, or too many.
        """
        axes = _axes(self.inputs, rank, str(self))
        return tuple(axis for token in (*self.batch, *self.contracted) for axis in axes[token])

    def output_axes(self, rank: int) -> tuple[int, ...]:
        """Permutation of ``(*batch, *features)`` with ``rank`` axes to the outputs.

        Raises:
            ShapeError: there are too few axes, or too many.
        """
        axes = _axes((*self.batch, *self.features), rank, str(self))
        return tuple(axis for token in self.outputs for axis in axes[token])

    def __str__(self) -> str:
        return f"{''.join(self.inputs)},{''.join(self.kernel)}->{''.join(self.outputs)}"

    def _problem(self) -> str:
        """Why it is not a product with one matrix; empty if it is."""
        x, w, y = set(self.inputs), set(self.kernel), set(self.outputs)
        for what, tokens in (("inputs", self.inputs), ("kernel", self.kernel), ("outputs", self.outputs)):
            if len(set(tokens)) < len(tokens):
                return f"a subscript of the {what} is repeated"
        if ELLIPSIS in w:
            return "the kernel has an ellipsis"
        if both := sorted(x & w & y):
            return f"{both[0]} is in both operands and in the outputs, which is one matrix for each of its entries"
        if alone := sorted((x ^ w) - y):
            return f"{alone[0]} is summed over one operand alone"
        if new := sorted(y - x - w):
            return f"{new[0]} of the outputs is in no operand"
        if not x & w or not y & w:
            return "the kernel shares no subscript with the inputs or with the outputs"
        return ""


def _tokens(term: str, equation: str) -> tuple[str, ...]:
    head, dots, tail = term.partition(ELLIPSIS)
    letters = head + tail
    if letters and not (letters.isascii() and letters.isalpha()):
        raise ShapeError(f"equation is {equation!r}; expected letters and at most one ellipsis in each term")
    return (*head, *([dots] if dots else []), *tail)


def _axes(tokens: tuple[str, ...], rank: int, equation: str) -> dict[str, tuple[int, ...]]:
    """Subscript to its axes; an ellipsis has any number of them."""
    free = rank - len(tokens) + (ELLIPSIS in tokens)
    if free < 0 or (free and ELLIPSIS not in tokens):
        raise ShapeError(f"the array has {rank} axes; expected one for each of {''.join(tokens)} in {equation}")
    axes: dict[str, tuple[int, ...]] = {}
    start = 0
    for token in tokens:
        size = free if token == ELLIPSIS else 1
        axes[token] = tuple(range(start, start + size))
        start += size
    return axes
