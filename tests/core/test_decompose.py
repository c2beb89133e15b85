"""Truncation: exact where it should be, as bad as it says where it may be."""

from math import sqrt

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
    matrices,
    norm,
    random_mpo,
    seeds,
    shapes,
    sweep_rounding,
    unfoldings,
    walk_rounding,
)
from mponet.errors import InputError, ShapeError
from mponet.operators.decompose import from_matrix, truncate
from mponet.operators.mpo import MPO, to_matrix
from mponet.operators.shape import MPOShape

tolerances = st.sampled_from([0.0, 1e-3, 0.1, 0.5, 0.9])


def tails(matrix, inputs, outputs, bonds):
    """Per inner bond, the error of the best approximation of that unfolding, from its full SVD."""
    scale = np.abs(matrix).max() or 1.0
    values = [np.linalg.svd(u / scale, compute_uv=False) for u in unfoldings(matrix, inputs, outputs)]
    return [norm(s[bond:]) * scale for s, bond in zip(values, bonds, strict=True)]


# ---------------------------------------------------------------- from a matrix


@given(matrices())
def test_without_limits_the_matrix_comes_back(case):
    matrix, inputs, outputs = case
    found = from_matrix(matrix, inputs, outputs)
    allowed = EPS * sweep_rounding(inputs, outputs) * norm(matrix)
    assert norm(to_matrix(found.mpo) - matrix) <= allowed
    assert found.error <= allowed
    assert found.bound <= allowed
    assert found.mpo.shape == MPOShape.from_factors(inputs, outputs, found.mpo.shape.bond_dims[1:-1] or 1)


@given(matrices(), st.data())
def test_no_bond_exceeds_the_largest_allowed(case, data):
    matrix, inputs, outputs = case
    asked = data.draw(bond_requests(len(inputs)))
    found = from_matrix(matrix, inputs, outputs, max_bond=asked)
    limit = MPOShape.from_factors(inputs, outputs, asked)
    assert all(d <= cap for d, cap in zip(found.mpo.shape.bond_dims, limit.bond_dims, strict=True))


@given(matrices(), st.data(), tolerances)
def test_the_error_is_measured_and_is_the_bound(case, data, tolerance):
    """Each cut projects orthogonally, so the bound is attained: ``error^2 = sum eps_k^2``."""
    matrix, inputs, outputs = case
    asked = data.draw(st.none() | bond_requests(len(inputs)))
    found = from_matrix(matrix, inputs, outputs, max_bond=asked, relative_error=tolerance)
    allowed = EPS * sweep_rounding(inputs, outputs) * norm(matrix)
    assert abs(found.error - norm(matrix - to_matrix(found.mpo))) <= allowed
    assert abs(found.error - found.bound) <= allowed
    assert abs(found.bound - norm(np.array(found.discarded))) <= 4 * EPS * found.bound
    assert abs(found.relative_error * norm(matrix) - found.error) <= 8 * EPS * found.error
    assert len(found.discarded) == len(inputs) - 1


@given(matrices(), tolerances)
def test_the_relative_error_is_honoured(case, tolerance):
    matrix, inputs, outputs = case
    found = from_matrix(matrix, inputs, outputs, relative_error=tolerance)
    assert found.relative_error <= tolerance + EPS * sweep_rounding(inputs, outputs)


def by_projection(matrix, inputs, outputs, tolerance):
    """Bonds and errors of TT-SVD by projections; each cut gets an equal part of what is left."""
    left, bonds, errors = (tolerance * norm(matrix)) ** 2, [], []
    for cut in range(1, len(inputs)):
        unfolding = unfoldings(matrix, inputs, outputs)[cut - 1]
        u, s, _ = np.linalg.svd(unfolding, full_matrices=False)
        allowed = sqrt(left / (len(inputs) - cut))
        bonds.append(next(d for d in range(1, len(s) + 1) if norm(s[d:]) <= allowed))
        errors.append(norm(s[bonds[-1] :]))
        left -= errors[-1] ** 2
        paired = (u[:, : bonds[-1]] @ (u[:, : bonds[-1]].T @ unfolding)).reshape(
            [n for pair in zip(inputs, outputs, strict=True) for n in pair]
        )
        order = (*range(0, 2 * len(inputs), 2), *range(1, 2 * len(inputs), 2))
        matrix = paired.transpose(order).reshape(matrix.shape)
    return bonds, errors


@given(seeds, st.sampled_from([0.05, 0.2, 0.4, 0.6]), st.sampled_from([0.5, 1.0, 2.0]))
def test_the_error_is_shared_among_the_bonds(seed, tolerance, decay):
    """Each cut takes at most its part of the remaining budget, and as much of it as it can."""
    inputs, outputs = (3, 2, 3, 2), (2, 3, 2, 3)
    matrix = np.random.default_rng(seed).normal(size=(36, 36)) / (1 + np.arange(36)) ** decay
    kept = from_matrix(matrix, inputs, outputs, relative_error=tolerance)
    bonds, errors = by_projection(matrix, inputs, outputs, tolerance)
    assert kept.mpo.shape.bond_dims[1:-1] == tuple(bonds)
    assert np.abs(np.subtract(kept.discarded, errors)).max() <= 4 * EPS * sweep_rounding(inputs, outputs) * norm(matrix)


def test_small_singular_values_are_no_rounding():
    """1 and 1e-13 are both kept: zero to rounding is 8 EPS for each of 6 bond rows, 1.1e-14."""
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[3, 3] = 1.0, 1e-13
    assert from_matrix(matrix, (2, 2), (2, 2)).mpo.shape.bond_dims == (1, 2, 1)
    assert truncate(from_matrix(matrix, (2, 2), (2, 2)).mpo).mpo.shape.bond_dims == (1, 2, 1)
    matrix[3, 3] = 1e-15
    assert from_matrix(matrix, (2, 2), (2, 2)).mpo.shape.bond_dims == (1, 1, 1)


@given(matrices(min_sites=2, max_sites=2), tolerances)
def test_a_single_cut_keeps_no_more_than_the_tolerance_needs(case, tolerance):
    matrix, inputs, outputs = case
    bond = from_matrix(matrix, inputs, outputs, relative_error=tolerance).mpo.shape.bond_dims[1]
    (less,) = tails(matrix, inputs, outputs, [bond - 1])
    assert bond == 1 or less >= (tolerance - EPS * sweep_rounding(inputs, outputs)) * norm(matrix)


@given(matrices(), st.data())
def test_a_largest_bond_costs_no_more_than_the_sum_of_its_cuts(case, data):
    """Oseledets, Thm. 2.2 and Cor. 2.4: between the worst single cut and all cuts in quadrature."""
    matrix, inputs, outputs = case
    asked = data.draw(bond_requests(len(inputs)))
    found = from_matrix(matrix, inputs, outputs, max_bond=asked)
    limits = asked if isinstance(asked, list) else [asked] * (len(inputs) - 1)
    alone = tails(matrix, inputs, outputs, limits)
    allowed = EPS * sweep_rounding(inputs, outputs) * norm(matrix)
    assert max(alone, default=0.0) - allowed <= found.error <= norm(np.array(alone)) + allowed


@given(matrices(min_sites=2), st.data(), tolerances)
def test_with_both_limits_the_bond_wins(case, data, tolerance):
    matrix, inputs, outputs = case
    bond = data.draw(st.integers(1, 3))
    both = from_matrix(matrix, inputs, outputs, max_bond=bond, relative_error=tolerance)
    one = from_matrix(matrix, inputs, outputs, max_bond=bond)
    assert max(both.mpo.shape.bond_dims) <= bond
    allowed = EPS * sweep_rounding(inputs, outputs)
    # what the tolerance gives away comes on top of what the bond takes, in quadrature at every cut
    assert both.relative_error <= sqrt(one.relative_error**2 + tolerance**2) * sqrt(len(inputs)) + allowed


@given(shapes(max_sites=4), seeds, st.sampled_from(SCALES))
def test_the_rank_of_an_operator_is_found_again(shape, seed, scale):
    mpo = left_canonical(random_mpo(shape, np.random.default_rng(seed)))
    matrix = to_matrix(mpo) * scale
    assert from_matrix(matrix, shape.input_dims, shape.output_dims).mpo.shape == shape


def test_a_cut_is_not_made_early_for_a_smaller_neighbour():
    """With a second bond of 1, the nearest is the best rank-one matrix, whatever the first bond."""
    rng = np.random.default_rng(5)
    matrix, dims = rng.normal(size=(16, 1)), ((4, 2, 2), (1, 1, 1))
    found = from_matrix(matrix, *dims, max_bond=[4, 1])
    (_, best) = tails(matrix, *dims, [4, 1])
    assert found.mpo.shape.bond_dims == (1, 2, 1, 1)
    assert abs(found.error - best) <= EPS * sweep_rounding(*dims) * norm(matrix)


def test_zero_has_bonds_of_one_and_no_error():
    found = from_matrix(np.zeros((6, 6)), (2, 3), (3, 2))
    assert found.mpo.shape.bond_dims == (1, 1, 1)
    assert (found.error, found.relative_error, found.bound, found.discarded) == (0.0, 0.0, 0.0, (0.0,))


def test_the_matrix_is_left_alone():
    matrix = np.arange(36.0).reshape(6, 6)
    found = from_matrix(matrix, (2, 3), (3, 2), max_bond=1)
    assert np.array_equal(matrix, np.arange(36.0).reshape(6, 6))
    assert matrix.flags.writeable
    assert "relative_error" in repr(found)
    assert "M^{3,2}_{2,3}(1)" in repr(found)


@pytest.mark.parametrize("shape", [(6, 5), (5, 6), (36,), (1, 6, 6)])
def test_a_matrix_of_another_shape_is_refused(shape):
    with pytest.raises(ShapeError, match="expected"):
        from_matrix(np.ones(shape), (2, 3), (3, 2))


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, 2.0, np.nan, np.inf])
def test_a_tolerance_that_means_nothing_is_refused(tolerance):
    mpo = from_matrix(np.eye(4), (2, 2), (2, 2)).mpo
    with pytest.raises(InputError, match="relative_error"):
        from_matrix(np.eye(4), (2, 2), (2, 2), relative_error=tolerance)
    with pytest.raises(InputError, match="relative_error"):
        truncate(mpo, relative_error=tolerance)


@pytest.mark.parametrize("bond", [0, -1, 2.5, True, "2", [2, 2], []])
def test_a_largest_bond_that_means_nothing_is_refused(bond):
    mpo = from_matrix(np.eye(4), (2, 2), (2, 2)).mpo
    with pytest.raises(ShapeError, match="bond"):
        from_matrix(np.eye(4), (2, 2), (2, 2), max_bond=bond)
    with pytest.raises(ShapeError, match="bond"):
        truncate(mpo, max_bond=bond)


@pytest.mark.parametrize("bad", [np.full((4, 4), np.nan), np.full((4, 4), np.inf), np.ones((4, 4), complex)])
def test_a_matrix_that_is_no_matrix_of_numbers_is_refused(bad):
    with pytest.raises(InputError, match="matrix"):
        from_matrix(bad, (2, 2), (2, 2))


# ---------------------------------------------------------------- from an operator


@given(deficient_mpos(max_size=256), st.data(), tolerances)
def test_a_truncated_operator_is_as_far_off_as_it_says(mpo, data, tolerance):
    asked = data.draw(st.none() | bond_requests(mpo.shape.sites))
    found = truncate(mpo, max_bond=asked, relative_error=tolerance)
    dense = norm(to_matrix(mpo) - to_matrix(found.mpo))
    # six walks: canonical form, cuts, the two halves of the difference and its norm, and the
    # matrices here
    allowed = 4 * EPS * walk_rounding(mpo.shape, 6) * mass(mpo)
    assert abs(found.error - dense) <= allowed
    assert abs(found.error - found.bound) <= allowed
    assert len(found.discarded) == mpo.shape.sites - 1
    limit = mpo.shape if asked is None else mpo.shape.with_bond(asked)
    assert all(d <= cap for d, cap in zip(found.mpo.shape.bond_dims, limit.bond_dims, strict=True))
    if asked is None:
        assert found.error <= tolerance * norm(to_matrix(mpo)) + allowed


@given(shapes(max_sites=4, max_size=256), seeds, tolerances)
def test_an_operator_and_its_matrix_are_cut_alike(shape, seed, tolerance):
    mpo = left_canonical(random_mpo(shape, np.random.default_rng(seed)))
    matrix = to_matrix(mpo)
    by_core = truncate(mpo, max_bond=2, relative_error=tolerance)
    uses_dense_gradient = from_matrix(matrix, shape.input_dims, shape.output_dims, max_bond=2, relative_error=tolerance)
    assert by_core.mpo.shape == uses_dense_gradient.mpo.shape
    allowed = 4 * EPS * walk_rounding(shape, 6) * mass(mpo) + EPS * sweep_rounding(*case(shape)) * norm(matrix)
    assert abs(by_core.error - uses_dense_gradient.error) <= allowed


def case(shape):
    return shape.input_dims, shape.output_dims


@given(shapes(max_sites=4, max_size=256), seeds, st.sampled_from(SCALES))
def test_bonds_that_carry_nothing_are_dropped(shape, seed, scale):
    """Twice an operator, as a direct sum, has twice the bonds and the same rank."""
    mpo = left_canonical(random_mpo(shape, np.random.default_rng(seed)))
    first = MPO(shape, (mpo.cores[0] * scale, *mpo.cores[1:]))
    minus = MPO(shape, (mpo.cores[0] * -scale, *mpo.cores[1:]))
    found = truncate(first - minus)
    assert found.mpo.shape == shape
    assert norm(to_matrix(found.mpo) / scale - 2 * to_matrix(mpo)) <= 16 * EPS * walk_rounding(shape, 6) * mass(mpo)


def test_many_sites_need_no_matrix():
    """2^60 entries: the cut-off for zero must not depend on the size of the full matrix."""
    shape = MPOShape.from_factors((2,) * 30, (2,) * 30, 3)
    mpo = left_canonical(random_mpo(shape, np.random.default_rng(0)))
    assert truncate(mpo).mpo.shape == shape
    assert truncate(mpo, relative_error=1e-6).relative_error <= 1e-6
    found = truncate(mpo, max_bond=2)
    # at most 2 * 30 walks of norm-wise stable steps on an operator in canonical form
    assert abs(found.error - found.bound) <= 4 * EPS * walk_rounding(shape, 6) * found.bound / found.relative_error
