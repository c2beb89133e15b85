"""Operators nearest to a matrix on given inputs.

Exact where they can be, monotone and better than TT-SVD elsewhere.
"""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mponet.errors import InputError, ShapeError
from mponet.operators import environment
from mponet.operators.decompose import from_matrix
from mponet.operators.fit import fit, fit_matrix
from mponet.operators.metric import Metric, leading_eigenvectors, low_rank, output_spectrum
from mponet.operators.mpo import to_matrix
from mponet.operators.shape import MPOShape

seeds = st.integers(0, 2**32 - 1)
SQUARE = MPOShape.from_factors((2, 2), (2, 2), 1)


def inputs(rng, rows, size, decay=1.0):
    basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
    return (rng.standard_normal((rows, size)) * np.arange(1, size + 1) ** -decay) @ basis


def output_error(x, weight, other):
    """The oracle: outputs on the inputs themselves."""
    return np.linalg.norm(x @ (weight - other)) / np.linalg.norm(x @ weight)


@settings(deadline=None, max_examples=40)
@given(seeds, st.integers(2, 12), st.integers(2, 12), st.integers(1, 40))
def test_low_rank_loses_the_sum_of_the_dropped_squares_and_is_never_worse_than_plain(seed, n, m, rows):
    rng = np.random.default_rng(seed)
    x, weight = inputs(rng, rows, n), rng.standard_normal((n, m))
    spectrum = output_spectrum(weight, Metric.from_inputs(x))
    exact = np.linalg.svd(x @ weight, compute_uv=False) ** 2
    u, s, vt = np.linalg.svd(weight, full_matrices=False)
    for rank in range(1, len(spectrum.squares) + 1):
        error = output_error(x, weight, to_matrix(low_rank(weight, spectrum, rank)))
        assert error**2 == pytest.approx(exact[rank:].sum() / exact.sum(), abs=1e-12)
        assert spectrum.errors[rank] == pytest.approx(error**2, abs=1e-12)
        assert error <= output_error(x, weight, (u[:, :rank] * s[:rank]) @ vt[:rank]) + 1e-7


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        MPOShape.from_factors((4, 6), (4, 5), 6),
        MPOShape.from_factors((24, 1), (4, 5), 3),
        MPOShape.from_factors((2, 3, 4), (4, 1, 5), 4),
        MPOShape.from_factors((6, 2, 2), (2, 5, 2), (7, 3)),
    ],
    ids=str,
)
def test_sweeps_never_raise_the_error_and_report_it_truly(shape, diagonal):
    rng = np.random.default_rng(1)
    x, weight = inputs(rng, 100, 24), rng.standard_normal((24, 20))
    if diagonal:
        x = np.diag(np.linalg.norm(x, axis=0))
    found = fit(weight, shape, Metric((x**2).sum(0)) if diagonal else Metric.from_inputs(x), min_gain=0.0)
    assert len(found.history) > 2
    assert all(later <= earlier for earlier, later in zip(found.history, found.history[1:], strict=False))
    assert found.error == pytest.approx(output_error(x, weight, to_matrix(found.mpo)), rel=1e-9)
    assert found.mpo.shape == shape


@pytest.mark.parametrize(
    ("input_dims", "output_dims", "bonds"),
    [
        ((3, 2, 2), (2, 2, 2), (3, 2)),
        ((12, 1), (2, 4), (2,)),
        ((1, 12, 1), (2, 2, 2), (2, 2)),
        ((1, 3, 4), (2, 2, 2), (2, 3)),
        ((4, 3, 1), (2, 2, 2), (3, 2)),
    ],
    ids=str,
)
def test_every_core_is_at_its_least_squares_optimum(input_dims, output_dims, bonds):
    """The oracle knows nothing of environments.

    The matrix is linear in a core, so columns are built by basis cores.
    """
    rng = np.random.default_rng(2)
    x, weight = inputs(rng, 80, 12), rng.standard_normal((12, 8))
    shape = MPOShape.from_factors(input_dims, output_dims, bonds)
    found = fit(weight, shape, Metric.from_inputs(x), max_sweeps=300, min_gain=0.0)
    for k, core in enumerate(found.mpo.cores):
        columns = []
        for unit in np.eye(core.size):
            cores = [*found.mpo.cores]
            cores[k] = unit.reshape(core.shape)
            columns.append((x @ to_matrix(type(found.mpo)(found.mpo.shape, tuple(cores)))).reshape(-1))
        best = np.linalg.lstsq(np.array(columns).T, (x @ weight).reshape(-1), rcond=None)[0]
        rest = np.linalg.norm(np.array(columns).T @ best - (x @ weight).reshape(-1)) / np.linalg.norm(x @ weight)
        assert found.error == pytest.approx(rest, rel=1e-4)


def test_sweeps_reach_the_exact_answer_of_low_rank():
    rng = np.random.default_rng(3)
    x, weight = inputs(rng, 200, 20, 0.5), rng.standard_normal((20, 16))
    shape, metric = MPOShape.from_factors((20, 1), (1, 16), 6), Metric.from_inputs(x)
    start = from_matrix(weight, (20, 1), (1, 16), max_bond=6).mpo
    swept = fit(weight, shape, metric, start=start, max_sweeps=300, min_gain=0.0)
    exact = fit(weight, shape, metric)
    assert swept.history[0] > 1.02 * exact.error
    assert swept.error == pytest.approx(exact.error, rel=1e-5)


def test_least_squares_at_least_halve_the_output_error_of_tt_svd():
    rng = np.random.default_rng(4)
    x, weight = inputs(rng, 1000, 64, 1.0), rng.standard_normal((64, 64))
    found = fit(weight, MPOShape.from_factors((8, 8), (8, 8), 16), Metric.from_inputs(x))
    start = from_matrix(weight, (8, 8), (8, 8), max_bond=16).mpo
    assert found.history[0] == pytest.approx(output_error(x, weight, to_matrix(start)))
    assert found.error < found.history[0] / 2


@pytest.mark.parametrize("rows", [1, 5, 400])
@pytest.mark.parametrize(
    "shape",
    [
        MPOShape.from_factors((4, 4), (3, 4), 12),
        MPOShape.from_factors((16, 1), (1, 12), 12),
        MPOShape.from_factors((16,), (12,), ()),
    ],
    ids=str,
)
def test_full_bonds_give_the_matrix_itself_also_in_directions_without_inputs(shape, rows):
    rng = np.random.default_rng(5)
    weight = rng.standard_normal((16, 12))
    found = fit(weight, shape, Metric.from_inputs(inputs(rng, rows, 16)))
    np.testing.assert_allclose(to_matrix(found.mpo), weight, rtol=0, atol=1e-12)
    assert found.error < 1e-12


def test_large_blocks_go_by_conjugate_gradients_and_fall_as_well(monkeypatch):
    rng = np.random.default_rng(6)
    x, weight = inputs(rng, 300, 24, 0.3), rng.standard_normal((24, 20))
    shape, metric = MPOShape.from_factors((4, 6), (4, 5), 6), Metric.from_inputs(x)
    direct = fit(weight, shape, metric, max_sweeps=30, min_gain=0.0)
    monkeypatch.setattr("mponet.operators.environment.MAX_GRAM_SIZE", 1)
    iterated = fit(weight, shape, metric, max_sweeps=30, min_gain=0.0)
    assert all(later <= earlier for earlier, later in zip(iterated.history, iterated.history[1:], strict=False))
    assert iterated.error == pytest.approx(direct.error, rel=0.02)


def test_a_randomised_spectrum_states_its_error_exactly():
    rng = np.random.default_rng(7)
    x, weight = inputs(rng, 1000, 300), rng.standard_normal((300, 320))
    metric = Metric.from_inputs(x)
    spectrum = output_spectrum(weight, metric, rank=8)
    exact = np.linalg.svd(x @ weight, compute_uv=False) ** 2
    assert len(spectrum.squares) == 8
    np.testing.assert_allclose(spectrum.squares, exact[:8], rtol=1e-4)
    measured = output_error(x, weight, to_matrix(low_rank(weight, spectrum, 8)))
    assert spectrum.errors[8] == pytest.approx(measured**2, rel=1e-3)


def test_leading_eigenvectors_of_a_known_matrix():
    rng = np.random.default_rng(8)
    basis = np.linalg.qr(rng.standard_normal((200, 200)))[0]
    values, vectors = leading_eigenvectors((basis * np.arange(1.0, 201.0) ** -2) @ basis.T, 3, rng)
    np.testing.assert_allclose(values, [1.0, 1 / 4, 1 / 9], rtol=1e-6)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)


def test_zero_inputs_and_zero_weights_have_no_error():
    shape = MPOShape.from_factors((2, 3), (3, 2), 2)
    assert fit(np.ones((6, 6)), shape, Metric(np.zeros((6, 6)))).error == 0.0
    assert fit(np.zeros((6, 6)), shape, Metric.identity(6)).error == 0.0


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Metric(np.zeros((2, 3))), ShapeError, "expected (in, in)"),
        (lambda: Metric(np.array([[1.0, 2.0], [0.0, 1.0]])), InputError, "not symmetric"),
        (lambda: Metric(np.array([1.0, -1.0])), InputError, "-1"),
        (lambda: Metric(np.array([1.0, np.nan])), InputError, "finite"),
        (lambda: Metric.from_inputs(np.zeros(3)), ShapeError, "(rows, in)"),
        (lambda: fit(np.zeros((4, 4)), MPOShape.from_factors((2, 2), (2, 3), 1)), ShapeError, "(4, 6)"),
        (
            lambda: fit(np.zeros((4, 4)), MPOShape.from_factors((2, 2), (2, 2), 1), Metric.identity(5)),
            ShapeError,
            "5 inputs",
        ),
        (lambda: fit(np.zeros((4, 4)), MPOShape.from_factors((2, 2), (2, 2), 1), max_sweeps=-1), InputError, "-1"),
    ],
)
def test_mistakes_are_named(call, error, text):
    with pytest.raises(error) as raised:
        call()
    assert text in str(raised.value)


# ---------------------------------------------------------------- by bond or by error


@pytest.mark.parametrize("dims", [((12, 1), (1, 10)), ((3, 4), (5, 2)), ((4, 3), (1, 10)), ((2, 3, 2), (5, 1, 2))])
@pytest.mark.parametrize("bond", [1, 3, 5])
def test_on_its_inputs_a_fitted_matrix_is_never_worse_than_a_plain_one(dims, bond):
    rng = np.random.default_rng(bond)
    matrix = rng.standard_normal((12, 10))
    metric = Metric.from_inputs(rng.standard_normal((40, 12)) * np.arange(1, 13) ** -1.0)
    plain = from_matrix(matrix, *dims, max_bond=bond).mpo
    found = fit_matrix(matrix, *dims, metric, max_bond=bond)
    assert found.mpo.shape == plain.shape
    assert found.error <= metric.relative_error(matrix, to_matrix(plain)) * (1 + 1e-12) + 1e-15


@pytest.mark.parametrize("dims", [((12, 1), (1, 10)), ((3, 4), (5, 2)), ((2, 3, 2), (5, 1, 2))])
@pytest.mark.parametrize("error", [0.5, 0.1, 0.0])
def test_a_fitted_matrix_is_within_the_error_of_its_outputs(dims, error):
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((12, 10))
    metric = Metric.from_inputs(rng.standard_normal((40, 12)) * np.arange(1, 13) ** -1.0)
    found = fit_matrix(matrix, *dims, metric, relative_error=error)
    assert metric.relative_error(matrix, to_matrix(found.mpo)) <= max(error, 1e-12)
    if error:
        assert found.mpo.shape.parameters < fit_matrix(matrix, *dims, metric).mpo.shape.parameters


@pytest.mark.parametrize("dims", [((40, 1), (3, 4)), ((1, 40), (3, 4)), ((8, 5), (3, 4)), ((5, 8, 1), (2, 2, 3))])
def test_a_diagonal_metric_gives_what_the_same_metric_as_a_matrix_gives(dims, monkeypatch):
    rng = np.random.default_rng(0)
    matrix, counts = rng.standard_normal((40, 12)), rng.random(40)
    shape = MPOShape.from_factors(*dims, 4)
    expected = fit(matrix, shape, Metric(np.diag(counts)), max_sweeps=3, min_gain=0.0)
    for entries in (2**24, 64):  # all Gram matrices at once, or a few
        monkeypatch.setattr(environment, "MAX_GRAM_ENTRIES", entries)
        found = fit(matrix, shape, Metric(counts), max_sweeps=3, min_gain=0.0)
        np.testing.assert_allclose(found.history, expected.history, rtol=1e-8)


def test_a_long_vocabulary_needs_little_memory():
    rng = np.random.default_rng(0)
    matrix, counts = rng.standard_normal((3000, 256)), np.where(rng.random(3000) < 0.5, 0.0, 1.0)
    tracemalloc.start()
    found = fit(matrix, MPOShape.from_factors((3000, 1), (2, 128), 100), Metric(counts), max_sweeps=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.error < found.history[0] and np.isfinite(found.error)
    assert peak < 20 * matrix.nbytes  # a Gram matrix for each word would take 39 times as much


@pytest.mark.parametrize("sites", [2, 3, 4])
def test_without_data_a_core_is_solved_from_its_sides(sites, monkeypatch):
    """The short way of metrics that weigh all inputs alike gives what the general one gives."""
    weight = np.random.default_rng(sites).standard_normal((24, 36))
    factors = {2: ((4, 6), (6, 6)), 3: ((2, 3, 4), (6, 3, 2)), 4: ((2, 3, 2, 2), (3, 1, 4, 3))}[sites]
    shape, metric = MPOShape.from_factors(*factors, 4), Metric(np.full(24, 3.0))
    start = from_matrix(np.cos(weight), *factors, max_bond=4).mpo  # no optimum, so that sweeps gain
    short = fit(weight, shape, metric, start=start, max_sweeps=4, min_gain=0.0)
    monkeypatch.setattr(Metric, "is_uniform", False)
    general = fit(weight, shape, metric, start=start, max_sweeps=4, min_gain=0.0)
    np.testing.assert_allclose(short.history, general.history, rtol=1e-9)
    assert short.history[0] > 1.01 * short.error


def test_without_data_two_sites_are_the_plain_decomposition():
    weight = np.random.default_rng(0).standard_normal((24, 36))
    found = fit(weight, MPOShape.from_factors((4, 6), (6, 6), 5))
    np.testing.assert_allclose(to_matrix(found.mpo), to_matrix(from_matrix(weight, (4, 6), (6, 6), max_bond=5).mpo))
    swept = fit(weight, found.mpo.shape, Metric(np.eye(24)), max_sweeps=20)
    assert found.error <= swept.error * (1 + 1e-9)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("factors", [((12, 3), (1, 20)), ((3, 12), (4, 5)), ((3, 4, 3), (2, 2, 5))])
def test_conjugate_gradients_gain_nearly_what_direct_solutions_gain(monkeypatch, factors, diagonal):
    rng = np.random.default_rng(2)
    x = inputs(rng, 300, 36)
    metric = Metric((x**2).sum(0)) if diagonal else Metric.from_inputs(x)
    shape = MPOShape.from_factors(*factors, 4)
    weight = rng.standard_normal((36, 20))
    options = {"max_sweeps": 6, "min_gain": 0.0}
    direct = fit(weight, shape, metric, **options)
    monkeypatch.setattr(environment, "MAX_GRAM_SIZE", 0)
    found = fit(weight, shape, metric, **options)
    assert found.error < 1.02 * direct.error
    assert direct.error < 0.98 * direct.history[0]
