"""Shapes: clamping, counting, factorising, printing; integers, so everything is exact."""

from math import prod

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.strategies import bond_requests, factors, shapes
from mponet.errors import ShapeError
from mponet.operators.factors import default_sites, factorize
from mponet.operators.measure import compression_ratio
from mponet.operators.shape import MPOShape, inner_bonds

# Gao et al., Phys. Rev. Research 2, 023300 (2020), Fig. 2 (FC2 on MNIST): D of the first layer,
# weights of both MPO layers, and the compression ratio read off the figure.
FIG_2 = (
    (2, 1024, 0.0050),
    (4, 1760, 0.0087),
    (6, 2944, 0.0145),
    (8, 4576, 0.0225),
    (10, 6656, 0.0327),
    (12, 9184, 0.0452),
    (14, 12160, 0.0598),
    (16, 15584, 0.0767),
    (18, 17376, 0.0855),
    (20, 19168, 0.0943),
    (22, 20960, 0.1031),
)

BAD_NUMBERS = (0, -1, 2.5, 2.0, True, "2", None, float("inf"), float("nan"), 2j, np.True_, np.float64(2.0), (2,))


# ---------------------------------------------------------------- clamping


@given(st.data())
def test_no_bond_exceeds_its_neighbours_or_what_was_asked(data):
    inputs, outputs = data.draw(factors())
    asked = data.draw(bond_requests(len(inputs)))
    shape = MPOShape.from_factors(inputs, outputs, asked)
    bonds, sizes = shape.bond_dims, shape.site_sizes
    assert all(bonds[k + 1] <= bonds[k] * sizes[k] for k in range(shape.sites))
    assert all(bonds[k] <= bonds[k + 1] * sizes[k] for k in range(shape.sites))
    assert all(bond <= limit for bond, limit in zip(bonds[1:-1], inner_bonds(asked, shape.sites), strict=True))


@given(shapes())
def test_clamping_twice_changes_nothing(shape):
    assert MPOShape(shape.input_dims, shape.output_dims, shape.bond_dims) == shape
    assert shape.with_bond(shape.bond_dims[1:-1]) == shape


@given(factors(), st.integers(1, 40))
def test_a_uniform_bond_is_capped_by_the_products_of_both_sides(dims, bond):
    shape = MPOShape.from_factors(*dims, bond)
    sizes = shape.site_sizes
    caps = [min(prod(sizes[:k]), prod(sizes[k:])) for k in range(shape.sites + 1)]
    assert shape.bond_dims == tuple(min(bond, cap) for cap in caps)
    assert shape.max_bond_dims == tuple(caps)


@given(st.data())
def test_clamping_takes_no_more_than_it_must(data):
    """The largest legal bonds below those requested: raising any of them breaks a condition."""
    inputs, outputs = data.draw(factors(min_sites=2))
    asked = inner_bonds(data.draw(bond_requests(len(inputs))), len(inputs))
    bonds, sizes = (
        MPOShape.from_factors(inputs, outputs, asked).bond_dims,
        MPOShape.from_factors(inputs, outputs, 1).site_sizes,
    )
    for k in range(1, len(inputs)):
        more = bonds[k] + 1
        assert more > asked[k - 1] or more > bonds[k - 1] * sizes[k - 1] or more > bonds[k + 1] * sizes[k]


def test_bonds_of_the_paper_are_capped_as_it_counts_them():
    assert MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 22).bond_dims == (1, 16, 22, 16, 1)
    assert MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 1).max_bond_dims == (1, 16, 448, 16, 1)
    assert MPOShape.from_factors((2, 2), (2, 2), [9]).bond_dims == (1, 4, 1)
    assert MPOShape.from_factors((2, 2, 2), (1, 1, 1), [2, 1]).bond_dims == (1, 2, 1, 1)
    assert MPOShape.from_factors((4, 2, 2), (1, 1, 1), [4, 1]).bond_dims == (1, 2, 1, 1)


# ---------------------------------------------------------------- counts


@pytest.mark.parametrize(("bond", "weights", "rho"), FIG_2)
def test_fc2_has_the_weights_and_the_ratio_of_figure_2(bond, weights, rho):
    layers = (
        MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), bond),
        MPOShape.from_factors((4, 4, 4, 4), (1, 1, 10, 1), 4),
    )
    assert sum(layer.parameters for layer in layers) == weights
    assert compression_ratio(layers) == weights / 203264
    # read off a figure: one unit of the fourth decimal, which is also how it is printed
    assert abs(compression_ratio(layers) - rho) < 1e-4


@given(shapes())
def test_counts_are_those_of_the_arrays(shape):
    assert shape.sites == len(shape.input_dims) == len(shape.core_shapes)
    assert shape.in_features == np.zeros(shape.input_dims).size
    assert shape.out_features == np.zeros(shape.output_dims).size
    assert shape.parameters == sum(np.zeros(size).size for size in shape.core_shapes)
    assert shape.dense_parameters == shape.in_features * shape.out_features
    assert [size[1:3] for size in shape.core_shapes] == list(zip(shape.input_dims, shape.output_dims, strict=True))
    assert tuple(size[0] for size in shape.core_shapes) == shape.bond_dims[:-1]
    assert tuple(size[3] for size in shape.core_shapes) == shape.bond_dims[1:]


# ---------------------------------------------------------------- printing


def test_shapes_print_as_the_paper_writes_them():
    assert str(MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 16)) == "M^{4,4,4,4}_{4,7,7,4}(16)"
    assert str(MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 22)) == "M^{4,4,4,4}_{4,7,7,4}(16,22,16)"
    assert str(MPOShape.from_factors((6,), (5,), 3)) == "M^{5}_{6}(1)"


# ---------------------------------------------------------------- factors


@pytest.mark.parametrize(
    ("size", "sites", "expected"),
    [
        (784, 4, (4, 7, 7, 4)),
        (256, 4, (4, 4, 4, 4)),
        (10, 4, (1, 5, 2, 1)),
        (13, 3, (1, 13, 1)),
        (13, 1, (13,)),
        (1, 3, (1, 1, 1)),
        (4096, 2, (64, 64)),
        (360, 3, (8, 9, 5)),  # 6 * 6 * 10 has the same sum and a larger maximum
        (4620, 3, (15, 22, 14)),  # 11 * 20 * 21 has a smaller maximum and a larger sum
    ],
)
def test_factors_of_the_paper_and_of_primes(size, sites, expected):
    assert factorize(size, sites) == expected


@given(st.integers(1, 5000), st.integers(1, 6))
def test_factors_multiply_to_the_size(size, sites):
    split = factorize(size, sites)
    assert prod(split) == size
    assert len(split) == sites


def every_split(size, sites):
    if sites == 1:
        return [(size,)]
    divisors = [d for d in range(1, size + 1) if size % d == 0]
    return [(d, *rest) for d in divisors for rest in every_split(size // d, sites - 1)]


@given(st.integers(1, 200), st.integers(1, 4))
def test_no_other_split_has_a_smaller_sum(size, sites):
    best = min((sum(split), max(split)) for split in every_split(size, sites))
    split = factorize(size, sites)
    assert (sum(split), max(split)) == best


@given(st.integers(1, 3000), st.integers(1, 5))
def test_the_largest_factor_stands_inside(size, sites):
    split = factorize(size, sites)
    inner = split[1:-1] if sites > 2 else split
    assert max(split) == max(inner)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(2, 100))
def test_default_sites_are_the_fewest_that_keep_factors_small(rows, columns, largest):
    sites = default_sites(rows, columns, largest)

    def fits(count):
        # a prime above the limit cannot be split: then the best is that prime alone
        # and 21 factors of at most 10^6 are all prime
        return all(max(factorize(size, count)) <= max(largest, *factorize(size, 21)) for size in (rows, columns))

    assert sites >= 2
    assert fits(sites)
    assert sites == 2 or not fits(sites - 1)


def test_a_plateau_does_not_stop_the_search_for_sites():
    """77^3 has a factor of 77 with three and with four sites, and only with five one below 64."""
    assert [max(factorize(77**3, sites)) for sites in (3, 4, 5)] == [77, 77, 49]
    assert default_sites(77**3, 1) == 5


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 50))
def test_a_shape_from_sizes_has_these_sizes(rows, columns, bond):
    shape = MPOShape.from_sizes(rows, columns, bond)
    assert (shape.in_features, shape.out_features) == (rows, columns)
    assert shape.sites == default_sites(rows, columns)
    assert MPOShape.from_sizes(rows, columns, bond, sites=3).input_dims == factorize(rows, 3)


def test_a_shape_from_sizes_takes_factors_as_they_are():
    assert MPOShape.from_sizes((7, 4), 10, 2) == MPOShape.from_factors((7, 4), factorize(10, 2), 2)
    assert MPOShape.from_sizes(28, (1, 2, 5), 2) == MPOShape.from_factors(factorize(28, 3), (1, 2, 5), 2)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("bad", BAD_NUMBERS, ids=repr)
def test_what_is_no_positive_whole_number_is_refused(bad):
    for attempt in (
        lambda: MPOShape.from_factors((2, bad), (2, 2), 2),
        lambda: MPOShape.from_factors((2, 2), (bad, 2), 2),
        lambda: MPOShape.from_factors((2, 2), (2, 2), [bad]),
        lambda: MPOShape((2,), (2,), (1, bad)),
        lambda: factorize(bad, 2),
        lambda: factorize(4, bad),
        lambda: default_sites(bad, 4),
        lambda: MPOShape.from_sizes(4, 4, 2, sites=0 if bad is None else bad),
    ):
        with pytest.raises(ShapeError):
            attempt()


@pytest.mark.parametrize("bad", [bad for bad in BAD_NUMBERS if bad != (2,)], ids=repr)
def test_a_bad_bond_is_refused_even_where_a_single_site_has_none(bad):
    for dims in ((2, 2), (2,)):
        with pytest.raises(ShapeError):
            MPOShape.from_factors(dims, dims, bad)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_integers_of_numpy_become_those_of_python(kind):
    shape = MPOShape.from_factors(np.array([2, 3], kind), [kind(4), 5], kind(2))
    assert shape == MPOShape.from_factors((2, 3), (4, 5), 2)
    assert all(type(n) is int for n in (*shape.input_dims, *shape.output_dims, *shape.bond_dims))
    assert factorize(kind(12), kind(2)) == (4, 3)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: MPOShape.from_factors((), (), 2),
        lambda: MPOShape.from_factors((2, 2), (2,), 2),
        lambda: MPOShape.from_factors((2, 2), (2, 2), [2, 2]),
        lambda: MPOShape.from_factors((2, 2), (2, 2), []),
        lambda: MPOShape.from_factors(4, 4, 2),
        lambda: MPOShape.from_factors("22", (2, 2), 2),
        lambda: MPOShape.from_factors((2, 2), (2, 2), "2"),
        lambda: MPOShape((2, 2), (2, 2), (2, 2, 1)),
        lambda: MPOShape((2, 2), (2, 2), (1, 2, 2)),
        lambda: MPOShape((2, 2), (2, 2), (1, 1)),
    ],
)
def test_what_does_not_fit_together_is_refused(attempt):
    with pytest.raises(ShapeError, match="expected"):
        attempt()


@given(shapes(), shapes())
def test_equal_shapes_are_one_key(first, second):
    assume(first != second)
    assert len({first, second, MPOShape(first.input_dims, first.output_dims, first.bond_dims)}) == 2
