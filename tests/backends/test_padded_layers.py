"""Layers whose operator is padded by zeros, in every framework."""

import warnings

import numpy as np
import pytest

from frameworks import probe
from mponet import choose_factors
from mponet.errors import InputError, ShapeError, SizeWarning
from mponet.operators.initialize import exact_variance

pytestmark = pytest.mark.usefixtures("double_precision")
#: (inputs, outputs, bond): a prime on either side, both, and a size with a large prime factor.
SIZES = [(127, 113, 8), (127, 64, 4), (64, 113, 4), (1021, 10, 3), (2 * 53, 3 * 59, 5)]


@pytest.fixture(scope="module")
def lab(backend_name, backend):
    return probe(backend_name)


def operator(rows, columns, bond, seed=0):
    """Sizes with padding, an operator and a bias for them."""
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SizeWarning)
        sizes = choose_factors(rows, columns, bond)
    assert any(sizes.padding)
    return sizes, exact_variance(sizes.shape, rng), rng.normal(size=columns)


def numbers(array):
    return np.asarray(array.detach() if hasattr(array, "detach") else array)


@pytest.mark.parametrize("batch", [1, 5, 200])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_a_padded_layer_is_the_part_of_its_operator(lab, sizes, batch, biased):
    known, mpo, bias = operator(*sizes)
    layer = lab.layer.from_mpo(mpo, bias if biased else None, padding=known.padding, dtype=lab.float64)
    rows, columns, _ = sizes
    matrix = mpo.to_matrix()[:rows, :columns]
    assert (layer.in_features, layer.out_features, layer.padding) == (rows, columns, known.padding)
    assert layer.shape == mpo.shape
    inputs = np.random.default_rng(1).normal(size=(batch, rows))
    expected = inputs @ matrix + (bias if biased else 0.0)
    allowed = 1e-13 * max(1.0, np.abs(expected).max())
    assert np.abs(lab.call(layer, inputs) - expected).max() <= allowed
    assert (
        np.abs(lab.call(layer, inputs.reshape(1, batch, 1, rows)).reshape(batch, columns) - expected).max() <= allowed
    )
    assert np.abs(lab.dense_call(layer.to_dense(), inputs) - expected).max() <= allowed
    assert np.array_equal(layer.to_matrix(), matrix)
    assert all(np.array_equal(a, b) for a, b in zip(layer.to_mpo().cores, mpo.cores, strict=True))
    kernel = numbers(layer.weight).T if hasattr(layer, "weight") else numbers(layer.kernel)
    assert np.abs(kernel - matrix).max() <= 1e-14


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_gradients_of_a_padded_layer_are_those_of_its_operator(lab, sizes):
    known, mpo, bias = operator(*sizes)
    layer = lab.layer.from_mpo(mpo, bias, padding=known.padding, dtype=lab.float64)
    rng = np.random.default_rng(2)
    inputs, slope = rng.normal(size=(4, sizes[0])), rng.normal(size=(4, sizes[1]))
    found = lab.gradients(layer, inputs, slope)
    more = [((0, 0), (0, zeros)) for zeros in known.padding]
    wide = [np.pad(array, zeros) for array, zeros in zip((inputs, slope), more, strict=True)]
    expected = lab.einsum_gradients(
        mpo.cores, wide[0].reshape(-1, *mpo.shape.input_dims), wide[1].reshape(-1, *mpo.shape.output_dims)
    )
    expected[0] = expected[0].reshape(wide[0].shape)[:, : sizes[0]]
    for ours, theirs in zip(found, [*expected, slope.sum(0)], strict=True):
        assert np.abs(ours.ravel() - theirs.ravel()).max() <= 1e-12 * max(1.0, np.abs(theirs).max())


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes_alone_give_a_padded_layer(lab, sizes):
    known, _, _ = operator(*sizes)
    layer = lab.sized(*sizes)
    assert (layer.shape, layer.padding) == (known.shape, known.padding)
    assert layer.shape.parameters < sizes[0] * sizes[1]
    assert f"padding={known.padding}" in repr(layer)
    assert "outputs are zeros" in layer.explain(8)
    plain = lab.sized(*sizes, padding=(0, 0))
    assert (plain.shape.in_features, plain.shape.out_features) == sizes[:2]
    assert "zeros" not in plain.explain(8)
    few = lab.sized(*sizes, objective="parameters")
    assert few.shape == choose_factors(*sizes, objective="parameters").shape
    with pytest.raises(InputError, match="objective is 'speed'; expected one of"):
        lab.sized(*sizes, objective="speed")
    with pytest.raises(ShapeError, match="padding is"):
        lab.sized(*sizes, padding=(-1, 0))


def test_starting_values_have_the_variance_of_the_layer_and_not_of_its_operator(lab):
    """The bond is full, so that the number of terms makes the entries nearly independent."""
    with pytest.warns(SizeWarning):
        layer = lab.sized(31, 257, 10**6, initializer="he")
    assert any(layer.padding)
    assert np.var(layer.to_matrix()) == pytest.approx(2 / 31, rel=0.15)


@pytest.mark.parametrize("sizes", SIZES[:2], ids=str)
def test_a_dense_layer_of_awkward_sizes_comes_back(lab, sizes):
    rows, columns, _ = sizes
    rng = np.random.default_rng(3)
    matrix, bias = rng.normal(size=(rows, columns)), rng.normal(size=columns)
    dense = lab.dense(matrix, bias)
    exact = lab.layer.from_dense(dense)
    assert any(exact.padding)
    assert np.abs(exact.to_matrix() - matrix).max() <= 1e-12
    inputs = rng.normal(size=(3, rows))
    assert np.abs(lab.call(exact, inputs) - lab.dense_call(dense, inputs)).max() <= 1e-11
    assert np.abs(lab.dense_call(exact.to_dense(), inputs) - lab.dense_call(dense, inputs)).max() <= 1e-11
    cut = lab.layer.from_dense(dense, max_bond=4)
    assert cut.padding == exact.padding and max(cut.shape.bond_dims) == 4
    assert lab.layer.from_dense(dense, padding=(0, 0), max_bond=4).padding == (0, 0)
    few = lab.layer.from_dense(dense, objective="parameters", max_bond=4)
    assert few.shape.parameters <= cut.shape.parameters
    shape = exact.shape
    again = lab.layer.from_matrix(
        matrix, shape.input_dims, shape.output_dims, padding=exact.padding, bias=bias, dtype=lab.float64
    )
    assert np.abs(again.to_matrix() - matrix).max() <= 1e-12
    with pytest.raises(ShapeError):
        lab.layer.from_matrix(matrix, shape.input_dims, shape.output_dims, dtype=lab.float64)


def test_padding_is_saved_and_loaded(lab, tmp_path):
    known, mpo, bias = operator(127, 113, 8)
    layer = lab.layer.from_mpo(mpo, bias, padding=known.padding, dtype=lab.float64)
    inputs = np.random.default_rng(4).normal(size=(3, 127))
    again = lab.reloaded(layer, tmp_path, lab.sized(127, 113, 8, dtype=lab.float64))
    assert again.padding == known.padding
    assert np.array_equal(lab.call(again, inputs), lab.call(layer, inputs))


def test_a_padded_layer_refuses_the_width_of_its_operator(lab):
    layer = lab.sized(127, 113, 8)
    with pytest.raises(ShapeError, match=r"expected \(..., 127\)"):
        lab.call(layer, np.ones((2, 130)))
    with pytest.raises(ShapeError, match="bias has the shape"):
        layer.assign(layer.to_mpo(), np.ones(117))
