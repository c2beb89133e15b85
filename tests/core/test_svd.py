"""Singular value decompositions: partial against full ones, and a fallback if LAPACK fails."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.strategies import EPS, norm, seeds
from mponet import MPO, from_matrix
from mponet.errors import InputError
from mponet.operators import svd as module
from mponet.operators.svd import MAX_GAIN, MIN_PARTIAL_SIDE, singular_values, svd

SIDE = MIN_PARTIAL_SIDE
#: Singular values by kind: what a method that finds few of them may stumble over.
SPECTRA = {
    "exponential": lambda n: 0.9 ** np.arange(n),
    "slow": lambda n: (1.0 + np.arange(n)) ** -0.5,
    "low rank": lambda n: 1.0 * (np.arange(n) < 5),
    "rank one": lambda n: 1.0 * (np.arange(n) < 1),
    "zero": lambda n: np.zeros(n),
    "equal": lambda n: np.ones(n),
    "repeated, then a step": lambda n: np.where(np.arange(n) < 20, 1.0, 1e-3),
    "twenty decades": lambda n: 10.0 ** (-20 * np.arange(n) / n),
}


def with_values(values, rows, columns, rng):
    u, _ = np.linalg.qr(rng.normal(size=(rows, len(values))))
    v, _ = np.linalg.qr(rng.normal(size=(columns, len(values))))
    return (u * values) @ v.T


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize(("rows", "columns"), [(SIDE, SIDE), (SIDE, 2 * SIDE), (2 * SIDE, SIDE)])
def test_a_partial_decomposition_is_almost_the_best(kind, rows, columns):
    values = SPECTRA[kind](SIDE)
    matrix = with_values(values, rows, columns, np.random.default_rng(3))
    found = svd(matrix, 8)
    kept = (found.u[:, :8] * found.s[:8]) @ found.vt[:8]
    rounding = 100 * EPS * (rows + columns) * norm(values)
    # Twice the gain that is allowed for one more step: the steps after it gain less.
    assert norm(matrix - kept) <= (1 + 2 * MAX_GAIN) * norm(values[8:]) + rounding
    assert abs(norm(matrix - (found.u * found.s) @ found.vt) - found.rest) <= rounding
    for basis in (found.u, found.vt.T):
        assert norm(basis.T @ basis - np.eye(basis.shape[1])) <= 100 * EPS * sum(basis.shape)
    assert np.all(found.s[:8] <= values[:8] + rounding)  # those of a projection are never larger


def test_few_values_are_found_without_all_of_them(monkeypatch):
    shapes = []
    full = np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda m, **options: shapes.append(m.shape) or full(m, **options))
    svd(with_values(SPECTRA["exponential"](SIDE), SIDE, SIDE, np.random.default_rng(0)), 8)
    assert shapes
    assert max(min(shape) for shape in shapes) <= SIDE // 4


@pytest.mark.parametrize(("rows", "rank"), [(SIDE - 1, 8), (SIDE, None), (SIDE, SIDE // 2)])
def test_small_matrices_and_high_ranks_are_decomposed_fully(rows, rank):
    matrix = np.random.default_rng(1).normal(size=(rows, SIDE))
    found = svd(matrix, rank)
    assert len(found.s) == rows
    assert found.rest == 0.0


def test_a_space_that_is_not_good_enough_is_dropped(monkeypatch):
    matrix = np.random.default_rng(1).normal(size=(SIDE, SIDE))
    monkeypatch.setattr(module, "MAX_GAIN", 0.0)
    assert len(svd(matrix, 8).s) == SIDE


@settings(max_examples=5)
@given(seeds, st.sampled_from([0.0, 0.3]))
def test_a_large_matrix_is_cut_as_a_full_decomposition_would(seed, tolerance):
    side = 20  # two sites of 400 entries
    rng = np.random.default_rng(seed)
    paired = with_values(0.8 ** np.arange(side**2), side**2, side**2, rng)
    matrix = paired.reshape(side, side, side, side).transpose(0, 2, 1, 3).reshape(side**2, side**2)
    kept = from_matrix(matrix, (side, side), (side, side), max_bond=12, relative_error=tolerance)
    values = np.linalg.svd(paired, compute_uv=False)
    allowed = tolerance * norm(values)
    bond = next((d for d in range(1, 12) if norm(values[d:]) <= allowed), 12)
    assert kept.mpo.shape.bond_dims == (1, bond, 1)
    assert kept.error <= (1 + MAX_GAIN) * norm(values[bond:])
    assert abs(kept.error - kept.bound) <= 1e-9 * norm(values)


# ---------------------------------------------------------------- LAPACK gives up


def gives_up(*_args, **_options):
    raise np.linalg.LinAlgError("SVD did not converge")


def test_another_driver_takes_over(monkeypatch):
    matrix = np.random.default_rng(0).normal(size=(16, 16))
    expected, mpo = from_matrix(matrix, (4, 4), (4, 4), max_bond=3), MPO.from_matrix(matrix, (4, 4), (4, 4))
    spectrum, values = mpo.spectra(), np.linalg.svd(matrix, compute_uv=False)
    monkeypatch.setattr(np.linalg, "svd", gives_up)
    found = from_matrix(matrix, (4, 4), (4, 4), max_bond=3)
    assert abs(found.error - expected.error) <= 1e-12
    assert np.allclose(mpo.spectra()[0], spectrum[0], rtol=1e-12, atol=0)
    assert np.allclose(singular_values(matrix), values, rtol=1e-12, atol=0)


def test_no_driver_that_converges_is_an_error_of_ours(monkeypatch):
    import scipy.linalg

    monkeypatch.setattr(np.linalg, "svd", gives_up)
    monkeypatch.setattr(scipy.linalg, "svd", gives_up)
    with pytest.raises(InputError, match="gesdd and gesvd"):
        from_matrix(np.eye(4), (2, 2), (2, 2))
