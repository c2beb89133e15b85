"""Covariances of few rows are shrunk towards their diagonal; fits in them hold on other rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mponet.layers.inputs import InputStatistics
from mponet.operators.fit import fit
from mponet.operators.metric import Metric
from mponet.operators.mpo import to_matrix
from mponet.operators.shape import MPOShape
from mponet.operators.shrinkage import ENOUGH_ROWS, shrinkage, shrunk

FEATURES = 40


def inputs(seed, count, decay=0.7):
    """Rows of features that depend on each other and differ in scale."""
    mixing = np.random.default_rng(0).standard_normal((FEATURES, FEATURES))
    mixing *= np.arange(1, FEATURES + 1)[:, None] ** -decay
    return np.random.default_rng(seed).standard_normal((count, FEATURES)) @ mixing * np.geomspace(1, 100, FEATURES)


@pytest.mark.parametrize("rows", [FEATURES // 8, FEATURES // 2, FEATURES, 3 * FEATURES])
def test_correlations_are_nearer_to_those_of_many_rows(rows):
    many = inputs(1, 100_000)
    scale = np.outer(many.std(0), many.std(0))
    true = many.T @ many / len(many) / scale
    plain, better = [], []
    for seed in range(2, 12):
        x = inputs(seed, rows)
        plain.append(np.linalg.norm(x.T @ x / rows / scale - true))
        better.append(np.linalg.norm(shrunk(x.T @ x / rows, rows) / scale - true))
    assert np.mean(better) < np.mean(plain)


@pytest.mark.parametrize("rows", [4, 10, 30])
def test_fits_to_few_rows_hold_on_other_rows(rows):
    weight = np.random.default_rng(5).standard_normal((FEATURES, 24))
    shape = MPOShape.from_factors((FEATURES, 1), (1, 24), 12)
    x, others = inputs(6, rows), Metric.from_inputs(inputs(7, 5000))
    exact = fit(weight, shape, Metric.from_inputs(x))
    known = InputStatistics.of(x, None, FEATURES, has_bias=False)
    assert known is not None
    found = fit(weight, shape, known.metric)
    lost, kept = (others.relative_error(weight, to_matrix(f.mpo)) for f in (exact, found))
    assert kept < 0.9 * lost, (kept, lost)


@given(st.integers(1, 60), st.integers(2, 12), st.integers(0, 10))
def test_it_is_a_covariance_with_the_same_diagonal(rows, size, seed):
    x = np.random.default_rng(seed).standard_normal((rows, size))
    x[:, 0] *= seed % 3 > 0  # a feature that is always zero
    c = x.T @ x
    found = shrunk(c, rows)
    np.testing.assert_array_equal(np.diagonal(found), np.diagonal(c))
    assert np.linalg.eigvalsh(found).min() >= -1e-9 * np.trace(c)
    assert 0.0 <= shrinkage(c, rows) <= 1.0
    assert shrinkage(c, rows) == pytest.approx(shrinkage(7.0 * c, rows))
    scale = np.geomspace(1e-3, 1e3, size)  # units of the features do not matter
    assert shrinkage(c, rows) == pytest.approx(shrinkage(c * np.outer(scale, scale), rows))


def test_many_rows_and_single_features_are_left_as_they_are():
    x = inputs(3, ENOUGH_ROWS * FEATURES)
    c = x.T @ x
    assert shrunk(c, len(x)) is c
    assert shrinkage(c, 10**9) < 1e-6
    np.testing.assert_array_equal(shrunk(np.array([[2.0]]), 1), [[2.0]])
    np.testing.assert_array_equal(shrunk(np.zeros((3, 3)), 1), np.zeros((3, 3)))
    given_one = InputStatistics.of(None, c, FEATURES, has_bias=True)
    assert given_one is not None
    np.testing.assert_array_equal(given_one.metric.covariance, c)
