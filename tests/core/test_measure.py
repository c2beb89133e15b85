"""Spectra, entropy and ratios, against the singular values of the full matrix."""

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.strategies import (
    EPS,
    SCALES,
    bond_requests,
    deficient_mpos,
    left_canonical,
    mass,
    mpos,
    norm,
    random_mpo,
    seeds,
    shapes,
    unfoldings,
    walk_rounding,
)
from mponet.errors import InputError, ShapeError
from mponet.operators.decompose import from_matrix
from mponet.operators.measure import compression_ratio, parameter_ratio
from mponet.operators.mpo import MPO, to_matrix
from mponet.operators.shape import MPOShape, inner_bonds


def full_spectra(mpo):
    matrix = to_matrix(mpo)
    scale = np.abs(matrix).max() or 1.0
    unfolded = unfoldings(matrix / scale, mpo.shape.input_dims, mpo.shape.output_dims)
    return [np.linalg.svd(u, compute_uv=False) * scale for u in unfolded]


def rounding(mpo):
    """By Weyl, singular values move by at most the error of the matrix: three walks in total."""
    return EPS * walk_rounding(mpo.shape, 4) * mass(mpo)


# ---------------------------------------------------------------- spectra


@given(deficient_mpos())
def test_spectra_are_the_singular_values_of_the_unfolded_matrix(mpo):
    found, expected = mpo.spectra(), full_spectra(mpo)
    assert len(found) == mpo.shape.sites - 1
    for bond, values, full in zip(mpo.shape.bond_dims[1:-1], found, expected, strict=True):
        assert values.shape == (bond,)
        assert np.all(np.diff(values) <= 0)
        assert norm(values - full[:bond]) <= rounding(mpo) * bond
        assert norm(full[bond:]) <= rounding(mpo) * len(full)


@given(deficient_mpos(min_sites=2))
def test_every_spectrum_holds_the_whole_norm(mpo):
    whole = norm(to_matrix(mpo))
    assert all(abs(norm(values) - whole) <= rounding(mpo) for values in mpo.spectra())


# ---------------------------------------------------------------- entropy


def entropy(values):
    """The entropy as the authors compute it, from the singular values of the full matrix."""
    weights = values**2 / (values**2).sum()
    return -sum(p * log(p) for p in weights if p > 0)


@given(shapes(max_sites=4), seeds)
def test_the_entropy_is_that_of_the_full_matrix(shape, seed):
    mpo = random_mpo(shape, np.random.default_rng(seed))
    found = mpo.entropy()
    for bond, value, full in zip(shape.bond_dims[1:-1], found, full_spectra(mpo), strict=True):
        # p moves by dp <= 2 ds/|s| in all; |d(-p ln p)| <= dp (1 + |ln dp|) for each of the values
        # (Fannes)
        dp = 2 * len(full) * rounding(mpo) / norm(full) + EPS
        assert abs(value - entropy(full)) <= len(full) * dp * (1 + abs(log(dp)))
        assert 0.0 <= value <= log(bond) + 4 * bond * EPS


@given(deficient_mpos(), st.sampled_from(SCALES))
def test_the_entropy_is_bounded_whatever_the_scale(mpo, scale):
    scaled = MPO(mpo.shape, (mpo.cores[0] * scale, *mpo.cores[1:]))
    for bond, value in zip(mpo.shape.bond_dims[1:-1], scaled.entropy(), strict=True):
        assert 0.0 <= value <= log(bond) + 4 * bond * EPS


@pytest.mark.parametrize("scale", SCALES)
def test_entropies_that_are_known(scale):
    """A Kronecker product has no entanglement; swapping two factors has the largest possible."""
    product = from_matrix(np.kron(np.arange(4.0).reshape(2, 2), np.eye(2)) * scale, (2, 2), (2, 2)).mpo
    swap = from_matrix(np.eye(4).reshape(2, 2, 2, 2).transpose(1, 0, 2, 3).reshape(4, 4) * scale, (2, 2), (2, 2)).mpo
    assert product.shape.bond_dims == (1, 1, 1)
    assert product.entropy() == (0.0,)
    assert abs(swap.entropy()[0] - log(4)) <= 16 * EPS


def test_zero_has_no_entropy():
    zero = MPO.from_cores([np.zeros((1, 2, 2, 3)), np.zeros((3, 2, 2, 1))])
    assert zero.entropy() == (0.0,)
    assert str(zero.entropy()[0]) == "0.0"


def test_a_single_site_has_no_bond_to_measure():
    mpo = MPO.from_cores([np.ones((1, 3, 2, 1))])
    assert (mpo.spectra(), mpo.entropy(), mpo.truncation_error(1)) == ((), (), ())


# ---------------------------------------------------------------- truncation error


@given(mpos(), st.data())
def test_the_truncation_error_is_the_tail_of_the_full_spectrum(mpo, data):
    asked = data.draw(bond_requests(mpo.shape.sites))
    found = mpo.truncation_error(asked)
    limits = inner_bonds(asked, mpo.shape.sites)
    for value, limit, full in zip(found, limits, full_spectra(mpo), strict=True):
        assert abs(value - norm(full[limit:])) <= rounding(mpo) * len(full)


def test_the_truncation_error_is_of_each_bond_alone():
    """Also where a neighbour is cut so far that it would clamp this bond."""
    rng = np.random.default_rng(0)
    mpo = left_canonical(random_mpo(MPOShape.from_factors((4, 2, 2), (1, 1, 1), 4), rng))
    assert mpo.shape.bond_dims == (1, 4, 2, 1)
    first, second = mpo.truncation_error([4, 1])
    assert first == 0.0
    assert second == mpo.truncation_error(1)[1] > 0.0


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_the_truncation_error_survives_squares_out_of_range(scale):
    mpo = random_mpo(MPOShape.from_factors((2, 3), (3, 2), 6), np.random.default_rng(1))
    scaled = MPO(mpo.shape, (mpo.cores[0] * scale, mpo.cores[1]))
    (found,), (expected,) = scaled.truncation_error(2), mpo.truncation_error(2)
    assert abs(found / scale - expected) <= 2 * rounding(mpo)


@pytest.mark.parametrize("bond", [0, 2.5, True, [1, 1], "1"])
def test_a_bond_that_means_nothing_is_refused(bond):
    with pytest.raises(ShapeError, match="bond"):
        random_mpo(MPOShape.from_factors((2, 2), (2, 2), 4), np.random.default_rng(0)).truncation_error(bond)


# ---------------------------------------------------------------- ratios


def test_lenet5_has_the_ratio_of_the_paper():
    """Table I prints 0.05 for LeNet-5; the weights of its layers are counted by Eq. 6."""
    layers = (
        MPOShape.from_factors((2, 10, 10, 2), (2, 5, 6, 2), 4),
        MPOShape.from_factors((2, 5, 6, 2), (2, 3, 7, 2), 4),
        MPOShape.from_factors((2, 3, 7, 2), (1, 5, 2, 1), 2),
    )
    assert [layer.parameters for layer in layers] == [1792, 944, 124]
    assert [layer.dense_parameters for layer in layers] == [48000, 10080, 840]
    assert compression_ratio(layers) == 2860 / 58920


@given(st.lists(shapes(), min_size=1, max_size=4))
def test_the_ratio_is_of_sums_not_a_mean_of_ratios(layers):
    weights, dense = sum(s.parameters for s in layers), sum(s.dense_parameters for s in layers)
    assert compression_ratio(iter(layers)) == weights / dense
    assert compression_ratio(layers, [7] * len(layers)) == weights / (7 * len(layers))


@pytest.mark.parametrize(("count", "dense"), [(0, None), (0, []), (1, []), (1, [3, 4]), (1, [0]), (2, [5, -5])])
def test_layers_without_their_originals_are_refused(count, dense):
    with pytest.raises(InputError, match="expected"):
        compression_ratio([MPOShape.from_factors((2, 2), (2, 2), 2)] * count, dense)


def test_the_ratio_of_whole_networks():
    assert parameter_ratio(5646, 61612) == 5646 / 61612
