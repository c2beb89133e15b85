"""Einsums that are products with a matrix, against numpy's einsum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mponet.errors import ShapeError
from mponet.layers.einsum import MatrixEinsum


def by_matrix(equation, inputs, kernel):
    """The einsum as rows times a matrix, the way a layer computes it."""
    einsum = MatrixEinsum.parse(equation)
    rows, columns = einsum.matrix_shape(kernel.shape)
    matrix = kernel.transpose(einsum.kernel_axes).reshape(rows, columns)
    turned = inputs.transpose(einsum.input_axes(inputs.ndim))
    batch = turned.shape[: inputs.ndim - len(einsum.contracted)]
    outputs = (turned.reshape(-1, rows) @ matrix).reshape(*batch, *einsum.dims(kernel.shape)[1])
    return outputs.transpose(einsum.output_axes(outputs.ndim))


@st.composite
def equations(draw):
    """An equation with its batch, summed and new subscripts in any order, and sizes for all."""
    letters = draw(st.permutations("abcdefgh"))
    counts = [draw(st.integers(low, 3)) for low in (0, 1, 1)]
    batch, summed, new = (letters[sum(counts[:k]) : sum(counts[: k + 1])] for k in range(3))
    dots = ["..."] if draw(st.booleans()) else []
    terms = [draw(st.permutations(tokens)) for tokens in ([*batch, *summed, *dots], [*summed, *new])]
    outputs = draw(st.permutations([*batch, *new, *dots]))
    sizes = {letter: draw(st.integers(1, 3)) for letter in letters}
    return terms[0], terms[1], outputs, sizes, draw(st.lists(st.integers(1, 3), max_size=2))


@given(equations())
def test_rows_times_a_matrix_are_the_einsum(case):
    inputs, kernel, outputs, sizes, free = case
    equation = f"{''.join(inputs)},{''.join(kernel)}->{''.join(outputs)}"
    rng = np.random.default_rng(0)
    x = rng.normal(size=[n for token in inputs for n in (free if token == "..." else [sizes[token]])])
    w = rng.normal(size=[sizes[token] for token in kernel])
    np.testing.assert_allclose(by_matrix(equation, x, w), np.einsum(equation, x, w), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("equation", "text"),
    [
        ("bd,dm", "two operands and an arrow"),
        ("bd->bm", "two operands"),
        ("bhd,hdm->bhm", "one matrix for each of its entries"),
        ("bdd,dm->bm", "repeated"),
        ("bd,d->b", "shares no subscript"),
        ("bd,em->bdem", "shares no subscript"),
        ("bde,dm->bm", "summed over one operand alone"),
        ("bd,dem->bm", "summed over one operand alone"),
        ("...d,dm->bm", "summed over one operand alone"),
        ("bd,...dm->b...m", "the kernel has an ellipsis"),
        ("b1,1m->bm", "expected letters"),
    ],
)
def test_other_einsums_are_refused_with_the_reason(equation, text):
    with pytest.raises(ShapeError, match=text):
        MatrixEinsum.parse(equation)


def test_arrays_of_another_rank_are_refused():
    einsum = MatrixEinsum.parse("bd,dm->bm")
    with pytest.raises(ShapeError, match="3 axes"):
        einsum.input_axes(3)
    with pytest.raises(ShapeError, match="1 axes"):
        einsum.output_axes(1)
    with pytest.raises(ShapeError, match="expected 2 axes"):
        einsum.dims((2, 3, 4))
