"""Layers fitted to the inputs that they get in the compressed network."""

from dataclasses import replace

import numpy as np
import pytest

from core.compress.planted import correlated, linear, weight
from mponet.compress import LayerPlan, Layout
from mponet.compress.upstream import DAMPING, CrossSums, adapted, fit_upstream, stages

RNG = np.random.default_rng(0)
N, M, ROWS = 24, 16, 400


def problem(seed, noise=0.4, mean=0.0):
    """Inputs of a layer in both networks, and its matrix."""
    rng = np.random.default_rng(seed)
    dense = correlated(rng, ROWS, N, 0.5, mean=mean)
    mixing = np.eye(N) + noise * rng.standard_normal((N, N)) / np.sqrt(N)
    return dense, dense @ mixing + noise * mean, weight(rng, N, M, 0.2)


def sums_of(compressed, dense):
    sums = CrossSums.zeros(N)
    for rows in np.array_split(np.arange(len(dense)), 5):
        sums.add(compressed[rows], dense[rows])
    return sums


def row(rank):
    return LayerPlan(
        name="a",
        kind="linear",
        type_name="Linear",
        dense_weights=N * M,
        dense_multiplications=N * M,
        layout=Layout("low-rank", (N, 1), (1, M)),
        bonds=(rank,),
    )


def fit(target, sums, rank):
    return fit_upstream(target, row(rank), sums, None, kind="covariance", correct_bias=True)


@pytest.mark.parametrize("seed", range(4))
def test_the_adapted_matrix_is_the_damped_least_squares_solution(seed):
    dense, compressed, matrix = problem(seed)
    found = adapted(matrix, sums_of(compressed, dense))
    damping = np.sqrt(DAMPING * (compressed**2).sum() / N)
    stacked = np.concatenate([compressed, damping * np.eye(N)]), np.concatenate([dense @ matrix, damping * matrix])
    np.testing.assert_allclose(found, np.linalg.lstsq(*stacked, rcond=None)[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rank", [3, 6])
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_are_nearer_to_those_of_the_dense_network(rank, bias):
    dense, compressed, matrix = problem(7, mean=0.5)
    vector = RNG.standard_normal(M) if bias else None
    target = linear("a", matrix, vector)
    wanted = dense @ matrix + (0.0 if vector is None else vector)

    def error(layer):
        return np.linalg.norm(compressed @ layer.matrix() + (0.0 if layer.bias is None else layer.bias) - wanted)

    upstream = fit(target, sums_of(compressed, dense), rank)
    plain = fit(target, sums_of(dense, dense), rank)
    assert error(upstream) < 0.95 * error(plain)
    if bias:  # its mean is that of the dense network
        means = compressed.mean(0) @ upstream.matrix() + upstream.bias
        np.testing.assert_allclose(means, wanted.mean(0), rtol=1e-9)


def test_without_a_change_upstream_the_fit_is_the_plain_one():
    dense, _, matrix = problem(3, mean=0.5)
    sums = sums_of(dense, dense)
    np.testing.assert_allclose(adapted(matrix, sums), matrix, rtol=1e-8, atol=1e-10)
    np.testing.assert_array_equal(adapted(matrix, CrossSums.zeros(N)), matrix)


def test_blocks_are_stages_in_the_order_of_the_network():
    names = ["embed.up", "layers.0.q", "layers.0.k", "layers.1.q", "layers.1.mlp.2.up", "head"]
    found = stages([replace(row(2), name=name) for name in names])
    assert [[layer.name for layer in stage] for stage in found] == [
        ["embed.up"],
        ["layers.0.q", "layers.0.k"],
        ["layers.1.q", "layers.1.mlp.2.up"],
        ["head"],
    ]
