"""Operators as values: matrices, canonical forms, norm, difference, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.strategies import (
    EPS,
    deficient_mpos,
    left_canonical,
    mass,
    mpos,
    norm,
    random_mpo,
    seeds,
    shapes,
    walk_rounding,
)
from mponet.errors import InputError, ShapeError
from mponet.operators.arrays import as_float64
from mponet.operators.mpo import MPO, to_matrix
from mponet.operators.shape import MPOShape


def by_einsum(mpo):
    """The matrix by one einsum over everything: slow, and nothing like `to_matrix`."""
    sites = mpo.shape.sites
    letters = iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    inputs, outputs, chain = ([next(letters) for _ in range(n)] for n in (sites, sites, sites + 1))
    terms = ",".join(chain[k] + inputs[k] + outputs[k] + chain[k + 1] for k in range(sites))
    full = np.einsum(f"{terms}->{''.join(inputs + outputs)}", *mpo.cores, optimize="greedy")
    return full.reshape(mpo.shape.in_features, mpo.shape.out_features)


def close(mpo, first, second, walks=1):
    return norm(first - second) <= EPS * walk_rounding(mpo.shape, walks) * mass(mpo)


# ---------------------------------------------------------------- the matrix


@given(mpos())
def test_the_matrix_is_the_sum_over_all_bonds(mpo):
    assert close(mpo, to_matrix(mpo), by_einsum(mpo), walks=2)


def test_the_first_factor_is_the_most_significant():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(20.0).reshape(4, 5)
    product = MPO.from_cores([a[None, :, :, None], b[None, :, :, None]])
    assert np.array_equal(to_matrix(product), np.kron(a, b))


# ---------------------------------------------------------------- canonical forms


def is_left_isometry(core):
    flat = core.reshape(-1, core.shape[3])
    # Householder QR: ||Q'Q - 1|| <= c m n EPS
    return norm(flat.T @ flat - np.eye(core.shape[3])) <= 10 * EPS * core.size


def is_right_isometry(core):
    flat = core.reshape(core.shape[0], -1)
    return norm(flat @ flat.T - np.eye(core.shape[0])) <= 10 * EPS * core.size


@given(deficient_mpos(), st.data())
def test_a_canonical_form_keeps_the_matrix_and_the_shape(mpo, data):
    center = data.draw(st.integers(1, mpo.shape.sites))
    form = mpo.canonical(center)
    assert form.shape == mpo.shape
    assert close(mpo, to_matrix(form), to_matrix(mpo), walks=3)
    assert all(is_left_isometry(core) for core in form.cores[: center - 1])
    assert all(is_right_isometry(core) for core in form.cores[center:])


@given(mpos())
def test_left_and_right_forms_are_the_two_ends(mpo):
    left, right = mpo.canonical(mpo.shape.sites), mpo.canonical()
    assert all(is_left_isometry(core) for core in left.cores[:-1])
    assert all(is_right_isometry(core) for core in right.cores[1:])
    assert close(mpo, norm(left.cores[-1]), norm(to_matrix(mpo)), walks=3)
    assert close(mpo, norm(right.cores[0]), norm(to_matrix(mpo)), walks=3)


@pytest.mark.parametrize("center", [0, 3, -1])
def test_a_center_outside_the_chain_is_refused(center):
    with pytest.raises(ShapeError, match="center"):
        random_mpo(MPOShape.from_factors((2, 2), (2, 2), 2), np.random.default_rng(0)).canonical(center)


# ---------------------------------------------------------------- norm and difference


@given(deficient_mpos())
def test_the_norm_is_that_of_the_matrix(mpo):
    assert close(mpo, mpo.norm(), norm(to_matrix(mpo)), walks=3)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_the_norm_survives_squares_out_of_range(scale):
    mpo = random_mpo(MPOShape.from_factors((2, 3), (3, 2), 4), np.random.default_rng(1))
    scaled = MPO(mpo.shape, (mpo.cores[0] * scale, mpo.cores[1]))
    assert abs(scaled.norm() / scale - mpo.norm()) <= EPS * walk_rounding(mpo.shape, 2) * mass(mpo)


def test_the_norm_of_zero_is_zero():
    assert MPO.from_cores([np.zeros((1, 2, 2, 2)), np.zeros((2, 2, 2, 1))]).norm() == 0.0


@given(st.data())
def test_the_difference_is_the_difference_of_the_matrices(data):
    first = data.draw(mpos(max_size=256))
    second = random_mpo(first.shape.with_bond(data.draw(st.integers(1, 9))), np.random.default_rng(data.draw(seeds)))
    difference = first - second
    error = norm(to_matrix(difference) - (to_matrix(first) - to_matrix(second)))
    # the cores of the direct sum weigh at most as much as those of both operators together
    weight = np.prod([norm(a) + norm(b) for a, b in zip(first.cores, second.cores, strict=True)])
    rounding = walk_rounding(first.shape, 4) + walk_rounding(second.shape, 4)
    assert error <= 2 * EPS * rounding * weight
    assert difference.shape.input_dims == first.shape.input_dims


@given(mpos(max_size=256))
def test_nothing_is_left_of_an_operator_minus_itself(mpo):
    weight = np.prod([2 * norm(core) for core in mpo.cores])
    assert (mpo - mpo).norm() <= 4 * EPS * walk_rounding(mpo.shape, 4) * weight


def test_operators_with_other_factors_have_no_difference():
    rng = np.random.default_rng(0)
    one, two = (random_mpo(MPOShape.from_factors(dims, (2, 2), 2), rng) for dims in ((2, 3), (3, 2)))
    with pytest.raises(ShapeError, match="subtract"):
        (one - two)


# ---------------------------------------------------------------- cores that are given


@given(shapes(max_sites=4, max_size=256), st.integers(1, 30), seeds)
def test_wasteful_bonds_are_reduced_and_the_matrix_kept(shape, bond, seed):
    rng = np.random.default_rng(seed)
    wide = (1, *(bond,) * (shape.sites - 1), 1)
    cores = [
        rng.normal(size=(wide[k], i, j, wide[k + 1]))
        for k, (i, j) in enumerate(zip(shape.input_dims, shape.output_dims, strict=True))
    ]
    mpo = MPO.from_cores(cores)
    assert mpo.shape == shape.with_bond(bond)
    full = cores[0]
    for core in cores[1:]:
        full = np.tensordot(full, core, axes=1)
    sites = shape.sites
    full = full.reshape([n for pair in zip(shape.input_dims, shape.output_dims, strict=True) for n in pair])
    full = full.transpose([*range(0, 2 * sites, 2), *range(1, 2 * sites, 2)])
    sides = sum(core.shape[0] * core[0, ..., 0].size + core[0, ..., 0].size * core.shape[3] for core in cores)
    allowed = 40 * EPS * sides * np.prod([norm(core) for core in cores])  # four walks along the wide cores
    assert norm(to_matrix(mpo) - full.reshape(shape.in_features, shape.out_features)) <= allowed


@given(mpos())
def test_useful_cores_are_taken_as_they_are(mpo):
    again = MPO.from_cores(mpo.cores)
    assert again.shape == mpo.shape
    assert all(np.array_equal(a, b) for a, b in zip(again.cores, mpo.cores, strict=True))


@pytest.mark.parametrize(
    "shapes",
    [
        [],
        [(1, 2, 2)],
        [(1, 2, 2, 3), (2, 2, 2, 1)],
        [(2, 2, 2, 1)],
        [(1, 2, 2, 2)],
        [(1, 0, 2, 1)],
        [(1, 2, 2, 0), (0, 2, 2, 1)],
    ],
)
def test_cores_that_are_no_chain_are_refused(shapes):
    with pytest.raises(ShapeError, match="expected"):
        MPO.from_cores([np.ones(size) for size in shapes])


def test_cores_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match="from_cores"):
        MPO(MPOShape.from_factors((2, 2), (2, 2), 2), (np.ones((1, 2, 2, 2)), np.ones((2, 2, 3, 1))))


# ---------------------------------------------------------------- memory


def test_cores_are_read_only_and_nobody_elses():
    mine = np.ones((1, 2, 3, 1))
    window = mine[:]
    window.flags.writeable = False  # read-only, and yet it changes with `mine`
    for given_core in (mine, window):
        mpo = MPO.from_cores([given_core])
        mine[...] = 7.0
        assert np.array_equal(to_matrix(mpo), np.ones((2, 3)))
        mine[...] = 1.0
        with pytest.raises(ValueError, match="read-only"):
            mpo.cores[0][...] = 0.0
    assert mine.flags.writeable


@given(deficient_mpos())
def test_no_function_changes_its_argument(mpo):
    before = [core.copy() for core in mpo.cores]
    for function in (to_matrix, left_canonical, MPO.canonical, MPO.norm, MPO.truncate, MPO.spectra, lambda m: m - m):
        function(mpo)
    assert all(np.array_equal(a, b) for a, b in zip(before, mpo.cores, strict=True))


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_and_counted(bad):
    core = np.ones((1, 2, 2, 1))
    core[0, 1, :, 0] = bad
    with pytest.raises(InputError, match="2 non-finite of 4"):
        MPO.from_cores([core])


@pytest.mark.parametrize(
    "bad",
    [
        np.ones((1, 2, 2, 1), complex),
        np.full((1, 2, 2, 1), "1"),
        np.full((1, 2, 2, 1), b"1"),
        np.full((1, 2, 2, 1), None),
        np.zeros((1, 2, 2, 1), "m8[s]"),
        np.zeros((1, 2, 2, 1), [("a", "f8")]),
        [[1.0], [1.0, 2.0]],
    ],
    ids=["complex", "text", "bytes", "objects", "durations", "records", "ragged"],
)
def test_what_is_no_real_number_is_refused(bad):
    with pytest.raises(InputError, match="core 1"):
        MPO.from_cores([bad])


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint64, np.float16, np.float32, ">f8"])
def test_real_numbers_of_every_kind_become_float64(dtype):
    array = as_float64(np.ones((2, 2), dtype), "matrix")
    assert array.dtype == np.float64
    assert array.dtype.isnative
    assert np.array_equal(array, np.ones((2, 2)))


def test_an_operator_prints_its_shape_and_size():
    assert repr(MPO.from_cores([np.ones((1, 2, 3, 1))])) == "MPO(M^{3}_{2}(1), 6 parameters)"
