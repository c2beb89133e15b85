"""Starting values: variances that hold for every shape, bounded by statistics and not by taste.

For normal cores the expectation of ``||W||_F^2`` and of its square are known exactly, so the mean
over ``n`` draws must lie within five of its own standard deviations: a fair draw fails once in two
million.
"""

from math import erf, exp, pi, prod, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.strategies import EPS, seeds, shapes
from mponet.errors import InputError
from mponet.operators.initialize import (
    VARIANCES,
    exact_variance,
    normal,
    paper_cores,
    target_variance,
    truncated_normal,
)
from mponet.operators.mpo import to_matrix
from mponet.operators.shape import MPOShape

SHAPES = (
    MPOShape.from_factors((16, 16), (16, 16), 4),
    MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 16),
    MPOShape.from_factors((2, 10, 10, 2), (2, 5, 6, 2), 4),
    MPOShape.from_factors((4, 1, 4, 3), (1, 5, 4, 4), [3, 7, 5]),
    MPOShape.from_factors((30,), (20,), 1),
)
DRAWS = 200

# Moments of a standard normal cut at two sigma: E z^2 and E z^4 by parts.
INSIDE = erf(2 / sqrt(2))
DENSITY = exp(-2.0) / sqrt(2 * pi)
SECOND = 1 - 2 * 2 * DENSITY / INSIDE
FOURTH = 3 - 2 * (2**3 + 3 * 2) * DENSITY / INSIDE


def second_moment(shape, variances):
    """``E ||W||_F^4`` for independent normal cores, by Wick's theorem.

    Four copies of each core pair up in three ways; a pairing within the two norms sums its physical
    index freely, one across them does not, and neighbouring pairings meet in a Gram matrix: D^2
    where they agree, D where they do not.
    """
    weights = np.array([1.0, 0.0, 0.0])
    for variance, size, left in zip(variances, shape.site_sizes, shape.bond_dims[:-1], strict=True):
        gram = np.full((3, 3), float(left)) + np.eye(3) * (left**2 - left)
        weights = variance**2 * np.array([size**2, size, size]) * (weights @ gram)
    return weights.sum()


def spread(shape, variances):
    """(expectation, standard deviation of the mean over DRAWS) of ``||W||_F^2``."""
    mean = prod(variances) * prod(shape.site_sizes) * prod(shape.bond_dims)
    return mean, sqrt((second_moment(shape, variances) - mean**2) / DRAWS)


def test_the_fourth_moment_is_right_where_it_is_known():
    """One site: ``||W||^2`` is chi-squared with N degrees of freedom; E[square] = N (N + 2)."""
    assert second_moment(MPOShape.from_factors((5,), (4,), 1), [1.0]) == 20 * 22
    # two sites of size 1 and bond 1: a product of two normals, fourth moment 3 * 3
    assert second_moment(MPOShape.from_factors((1, 1), (1, 1), 1), [1.0, 1.0]) == 9


# ---------------------------------------------------------------- exact variance


@pytest.mark.parametrize("rule", ["glorot", "he", "lecun", 0.37])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_variance_of_the_matrix_is_the_target(shape, rule):
    target = rule if isinstance(rule, float) else target_variance(rule, shape.in_features, shape.out_features)
    rng = np.random.default_rng(20)
    found = np.mean([exact_variance(shape, rng, rule).norm() ** 2 for _ in range(DRAWS)])
    shares = [target ** (1 / shape.sites) / sqrt(size[0] * size[3]) for size in shape.core_shapes]
    mean, deviation = spread(shape, shares)
    assert abs(mean - target * shape.dense_parameters) <= 100 * EPS * mean
    assert abs(found - mean) <= 5 * deviation
    assert 5 * deviation < 0.3 * mean  # or the line above would prove nothing


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.dense_parameters < 10**5], ids=str)
def test_the_entries_of_a_draw_have_the_mean_zero(shape):
    """``sum W`` over all entries has variance ``Var(W) N``: entries are uncorrelated."""
    rng = np.random.default_rng(21)
    sums = [to_matrix(exact_variance(shape, rng)).sum() for _ in range(DRAWS)]
    variance = target_variance("glorot", shape.in_features, shape.out_features) * shape.dense_parameters
    assert abs(np.mean(sums)) <= 5 * sqrt(variance / DRAWS)
    assert np.std(sums) > 0.5 * sqrt(variance)


@given(shapes(), seeds, st.sampled_from(["glorot", "he", "lecun", 1e-300, 1e300]))
def test_the_cores_share_the_variance_exactly(shape, seed, rule):
    """Scaled standard normal numbers: ``Var(core_k) sqrt(D_{k-1} D_k)`` is equal for all cores."""
    found = exact_variance(shape, np.random.default_rng(seed), rule)
    target = rule if isinstance(rule, float) else target_variance(rule, shape.in_features, shape.out_features)
    rng = np.random.default_rng(seed)
    for core, size in zip(found.cores, shape.core_shapes, strict=True):
        sigma = sqrt(target ** (1 / shape.sites) / sqrt(size[0] * size[3]))
        # exp(log(t) / n) is off by |log t| EPS relative, and |log t| < 700
        np.testing.assert_allclose(core, rng.normal(size=size) * sigma, rtol=1000 * EPS, atol=0)


def test_the_rules_are_those_of_the_literature():
    assert target_variance("glorot", 6, 4) == 2 / 10
    assert target_variance("he", 6, 4) == 2 / 6
    assert target_variance("lecun", 6, 4) == 1 / 6
    assert set(VARIANCES) == {"glorot", "he", "lecun"}


@pytest.mark.parametrize("rule", ["xavier", "", 0.0, -1.0, float("nan"), float("inf"), 0])
def test_a_rule_that_means_nothing_is_refused(rule):
    with pytest.raises(InputError, match="expected"):
        exact_variance(SHAPES[0], np.random.default_rng(0), rule)


def test_a_whole_number_is_a_variance_too():
    one, other = (exact_variance(SHAPES[0], np.random.default_rng(0), rule) for rule in (2, 2.0))
    assert np.array_equal(one.cores[0], other.cores[0])


# ---------------------------------------------------------------- the paper's cores


def test_the_effective_variance_of_the_paper():
    """TensorFlow's 1.3 * 2, times what cutting at two sigma leaves."""
    assert abs(2.6 * SECOND - 2.0117) < 5e-5


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cores_of_the_paper_have_its_variance_and_its_cut(shape):
    rng = np.random.default_rng(22)
    draws = [paper_cores(shape, rng).cores for _ in range(20)]
    for k, (left, i, j, right) in enumerate(shape.core_shapes):
        values = np.concatenate([cores[k].ravel() for cores in draws])
        nominal = 2.6 / (j * right + left * i)
        deviation = nominal * sqrt((FOURTH - SECOND**2) / values.size)
        assert abs(np.mean(values**2) - SECOND * nominal) <= 5 * deviation
        assert abs(np.mean(values)) <= 5 * sqrt(SECOND * nominal / values.size)
        assert np.abs(values).max() <= 2 * sqrt(nominal) * (1 + 2 * EPS)
        # of values beyond 1.9 sigma there are 1.2 %: the cut is at two, not below
        assert np.abs(values).max() > 1.9 * sqrt(nominal) or values.size < 1000


@given(st.floats(1e-3, 1e3), seeds)
def test_a_truncated_normal_stays_within_two_sigma(sigma, seed):
    values = truncated_normal((50, 40), sigma, np.random.default_rng(seed))
    assert values.shape == (50, 40)
    assert np.abs(values).max() <= 2 * sigma * (1 + EPS)
    assert np.abs(values).max() > sigma  # all 2000 within one sigma: never


@pytest.mark.parametrize("rule", ["glorot", "he", "lecun"])
def test_a_dense_weight_has_the_variance_of_an_mpo(rule):
    values = normal((300, 200), 300, 200, np.random.default_rng(3), rule)
    target = target_variance(rule, 300, 200)
    assert values.shape == (300, 200)
    assert abs(np.mean(values**2) - target) <= 5 * target * sqrt(2 / values.size)


# ---------------------------------------------------------------- repetition


@given(shapes(), seeds)
def test_the_same_seed_gives_the_same_numbers(shape, seed):
    for draw in (exact_variance, paper_cores):
        one, again, other = (draw(shape, np.random.default_rng(s)) for s in (seed, seed, seed + 1))
        assert all(np.array_equal(a, b) for a, b in zip(one.cores, again.cores, strict=True))
        assert not any(np.array_equal(a, b) for a, b in zip(one.cores, other.cores, strict=True))
        assert one.shape == shape
