"""Factors for sizes that do not factor well.

Against every choice there is, and what is said if nothing helps.
"""

import warnings
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mponet import MPO, MPOShape, choose_factors
from mponet.errors import InputError, ShapeError, SizeWarning
from mponet.layers.sizes import layer_sizes
from mponet.operators.factors import factorize, padded_factors, padding_limit
from mponet.operators.padding import MAX_PADDING, PaddedShape, factors_well, warn_if_larger

sizes = st.integers(1, 40)
#: What case 43 of people's sizes asks for: (inputs, outputs), larger than a million or not.
AWKWARD = [(127, 113), (1021, 1021), (509, 512), (1000, 997), (768, 50257), (30522, 768)]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SizeWarning)
        yield


def all_factors(size, sites, max_padding):
    """Every order of factors of every allowed product, by trying all tuples."""
    limit = padding_limit(size, max_padding)
    return [f for f in product(range(1, limit + 1), repeat=sites) if size <= prod(f) <= limit]


def multiplications(shape):
    """By walking along the cores, with the number of rows of each product counted."""
    counts = [shape.in_features * shape.out_features]
    for cores in (shape.core_shapes, [(r, i, j, d) for d, i, j, r in reversed(shape.core_shapes)]):
        rows, total = prod(i for _, i, _, _ in cores), 0
        for left, i, j, right in cores:
            rows //= i
            total += rows * (left * i) * (j * right)
            rows *= j
        counts.append(total)
    return min(counts)


@settings(max_examples=25)
@given(sizes, sizes, st.sampled_from([1, 2, 3, 8]), st.sampled_from(["parameters", "multiplications"]))
def test_the_fewest_are_the_fewest_of_all(rows, columns, bond, objective):
    padded = choose_factors(rows, columns, bond, sites=2, objective=objective)
    cost = {"parameters": lambda shape: shape.parameters, "multiplications": multiplications}[objective]
    every = (
        cost(MPOShape.from_factors(a, b, bond))
        for a in all_factors(rows, 2, MAX_PADDING)
        for b in all_factors(columns, 2, MAX_PADDING)
    )
    assert cost(padded.shape) == min(every)
    assert padded.multiplications == multiplications(padded.shape)


@settings(max_examples=15)
@given(st.integers(1, 16), st.integers(1, 16), st.sampled_from([1, 2, 5]))
def test_three_sites_are_close_to_the_fewest(rows, columns, bond):
    """One side after the other finds a minimum, not always the least one."""
    padded = choose_factors(rows, columns, bond, sites=3, objective="parameters")
    every = (
        MPOShape.from_factors(a, b, bond).parameters
        for a in all_factors(rows, 3, MAX_PADDING)
        for b in all_factors(columns, 3, MAX_PADDING)
    )
    assert padded.parameters <= 1.2 * min(every)
    balanced = choose_factors(rows, columns, bond, sites=3, max_padding=0)
    assert padded.parameters <= balanced.parameters


@given(st.integers(1, 3000), st.integers(1, 4))
def test_sizes_that_factor_well_are_not_padded(size, sites):
    factors = padded_factors(size, sites, MAX_PADDING)
    exact = factorize(size, sites)
    assert size <= prod(factors) <= padding_limit(size, MAX_PADDING)
    if prod(factors) == size:
        assert factors == exact
    else:
        assert sum(factors) * prod(factors) * 1.1 < sum(exact) * size
    assert padded_factors(size, sites, 0) == exact


@pytest.mark.parametrize(("rows", "columns"), AWKWARD)
@pytest.mark.parametrize("objective", ["balance", "parameters", "multiplications"])
def test_primes_and_heads_have_few_weights(rows, columns, objective):
    padded = choose_factors(rows, columns, 16, objective=objective)
    dense = rows * columns
    assert padded.parameters < (0.1 if dense > 10**6 else 0.3) * dense
    assert all(0 <= more <= MAX_PADDING * size for more, size in zip(padded.padding, (rows, columns), strict=True))


def test_a_prime_limits_its_own_side_only():
    rows, columns = choose_factors(32768, 509, 4, max_padding=0).shape, choose_factors(32768, 509, 4).shape
    assert rows.input_dims == columns.input_dims == (32, 32, 32)
    assert max(rows.output_dims) == 509
    assert max(columns.output_dims) <= 64


@given(sizes, sizes, st.integers(0, 99))
def test_a_padded_matrix_is_the_matrix_and_zeros(rows, columns, seed):
    padded = choose_factors(rows, columns, 10**6)
    matrix = np.random.default_rng(seed).normal(size=(rows, columns))
    whole = padded.pad(matrix)
    assert whole.shape == (padded.shape.in_features, padded.shape.out_features)
    assert np.array_equal(whole[:rows, :columns], matrix)
    assert np.count_nonzero(whole) == np.count_nonzero(matrix)
    exact = MPO.from_matrix(whole, padded.shape.input_dims, padded.shape.output_dims)
    assert np.allclose(exact.to_matrix()[:rows, :columns], matrix, atol=1e-12)
    with pytest.raises(ShapeError, match="matrix"):
        padded.pad(matrix.T if rows != columns else matrix[:, 1:])


# ---------------------------------------------------------------- warnings and errors


@given(sizes, sizes, st.integers(1, 20), st.integers(1, 3))
def test_more_weights_than_the_matrix_are_announced(rows, columns, bond, sites):
    shape = MPOShape.from_factors(factorize(rows, sites), factorize(columns, sites), bond)
    assume(shape.parameters > rows * columns)
    with pytest.warns(SizeWarning, match=f"{shape.parameters} weights, the dense matrix {rows * columns}"):
        warn_if_larger(shape)


@given(sizes, sizes, st.integers(1, 20), st.integers(1, 3))
def test_no_more_weights_are_not_announced(rows, columns, bond, sites):
    shape = MPOShape.from_factors(factorize(rows, sites), factorize(columns, sites), bond)
    assume(shape.parameters <= rows * columns)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_larger(shape)


def test_the_warning_says_what_helps():
    with pytest.warns(SizeWarning, match=r"factors \(13, 10\) and \(13, 9\)"):
        warn_if_larger(MPOShape.from_factors((127, 1), (113, 1), 8))
    with pytest.warns(SizeWarning, match="a bond of 11 takes 528"):
        choose_factors(9, 64, 16)
    with pytest.warns(SizeWarning, match="keep the dense layer"):
        choose_factors(3, 1, 16)


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, "4", None])
def test_sizes_that_are_none_are_refused(bad):
    for call in (
        lambda: choose_factors(bad, 4, 2),
        lambda: choose_factors(4, bad, 2),
        lambda: choose_factors(4, 4, bad),
    ):
        with pytest.raises(ShapeError, match="expected"):
            call()


def test_options_that_mean_nothing_are_refused():
    with pytest.raises(InputError, match="expected one of balance, parameters, multiplications"):
        choose_factors(4, 4, 2, objective="speed")
    with pytest.raises(InputError, match="max_padding"):
        choose_factors(4, 4, 2, max_padding=-0.1)


# ---------------------------------------------------------------- shapes of layers


@pytest.mark.parametrize(("rows", "columns"), AWKWARD)
@pytest.mark.parametrize("padding", [None, (0, 0)])
def test_a_layer_of_awkward_sizes_has_few_weights_with_and_without_padding(rows, columns, padding):
    sizes = layer_sizes(rows, columns, 16, padding=padding)
    dense = rows * columns
    assert (sizes.in_features, sizes.out_features) == (rows, columns)
    assert sizes.parameters < (0.1 if dense > 10**6 else 0.3) * dense
    assert padding is None or sizes.padding == padding


@given(st.integers(1, 2000), st.integers(1, 2000), st.sampled_from([1, 4, 16]))
def test_sizes_that_factor_well_keep_balanced_factors(rows, columns, bond):
    balanced, sizes = MPOShape.from_sizes(rows, columns, bond), layer_sizes(rows, columns, bond)
    if all(factors_well(size, balanced.sites) for size in (rows, columns)):
        assert sizes.shape == balanced
    else:
        assert any(sizes.padding)
    assert layer_sizes(rows, columns, bond, padding=(0, 0)).shape.parameters <= balanced.parameters


@pytest.mark.parametrize("objective", ["parameters", "multiplications"])
@given(rows=sizes, columns=sizes, bond=st.sampled_from([1, 4]))
def test_a_layer_has_the_factors_that_its_objective_chooses(objective, rows, columns, bond):
    chosen = choose_factors(rows, columns, bond, objective=objective)
    assert layer_sizes(rows, columns, bond, objective=objective) == chosen
    assert layer_sizes(rows, columns, bond, padding=(0, 0), objective=objective).padding == (0, 0)


def test_factors_that_are_given_are_taken():
    assert layer_sizes((127, 1), (113, 1), 16).shape.input_dims == (127, 1)
    assert layer_sizes((127, 1), 113, 16) == PaddedShape(127, 113, MPOShape((127, 1), (13, 9), (1, 16, 1)))
    with pytest.warns(SizeWarning, match="14352 weights, the dense matrix 14351"):
        layer_sizes((127, 1), (113, 1), 8)


def test_padding_that_is_given_is_taken():
    wanted = PaddedShape(127, 113, MPOShape((13, 10), (13, 9), (1, 8, 1)))
    for sides in (((13, 10), (13, 9)), (127, 113), ((13, 10), 113), (127, (13, 9))):
        assert layer_sizes(*sides, 8, padding=(3, 4)) == wanted
        assert layer_sizes(*sides, (8,), padding=[np.int64(3), 4]) == wanted
    assert layer_sizes(127, 113, (8,)) == wanted


@pytest.mark.parametrize("padding", [3, (3,), (1, 2, 3), (-1, 0), (True, 0), (0.5, 0), "ab", (130, 0), (0, 117)])
def test_padding_that_does_not_fit_is_refused(padding):
    with pytest.raises(ShapeError, match=r"padding is .*expected"):
        layer_sizes((13, 10), (13, 9), 8, padding=padding)


def test_an_operator_that_is_too_small_is_refused():
    with pytest.raises(ShapeError, match="expected at least 127 inputs and 113 outputs"):
        PaddedShape(127, 113, MPOShape((13, 10), (13, 8), (1, 8, 1)))
