"""Singular value decompositions that end.

A second LAPACK driver, and a partial one where few values are kept.
"""

from math import sqrt
from typing import NamedTuple

import numpy as np

from mponet.errors import InputError
from mponet.operators.arrays import Array

#: Sides below which a full decomposition takes a few tens of milliseconds.
MIN_PARTIAL_SIDE = 384
#: Largest share of the shorter side that the Krylov space may span; beyond it a full decomposition
#: is about as fast.
MAX_KRYLOV_SHARE = 0.25
#: Directions beyond the wanted ones in the first block.
OVERSAMPLING = 8
#: A partial decomposition is accepted if one more step of subspace iteration would lower the
#: squared error by at most this share.
MAX_GAIN = 1e-3
EPS = float(np.finfo(np.float64).eps)


class SVD(NamedTuple):
    """``matrix ~ u @ diag(s) @ vt``, singular values descending.

    Attributes:
        u: orthonormal columns.
        s: singular values.
        vt: orthonormal rows.
        rest: Frobenius norm of what the factors leave out; 0 for a full decomposition.
    """

    u: Array
    s: Array
    vt: Array
    rest: float


def svd(matrix: Array, rank: int | None = None) -> SVD:
    """A singular value decomposition with at least ``rank`` values.

    Where ``rank`` is small beside the matrix, a block Krylov method from a fixed random start finds
    the leading values.  Its error is checked afterwards (see `_gain`); if the check fails, all
    values are computed.

    Args:
        matrix: of finite numbers, scaled so that their squares are in range.
        rank: how many values are wanted; None is all.

    Raises:
        InputError: no driver of LAPACK converges.
    """
    side = min(matrix.shape)
    if rank is not None and side >= MIN_PARTIAL_SIDE:
        found = _partial(matrix, rank, int(MAX_KRYLOV_SHARE * side))
        if found is not None:
            return found
    return SVD(*_full(matrix), 0.0)


def singular_values(matrix: Array) -> Array:
    """All singular values, descending.

    Raises:
        InputError: no driver of LAPACK converges.
    """
    try:
        return np.asarray(np.linalg.svd(matrix, compute_uv=False), np.float64)
    except np.linalg.LinAlgError:
        return _second_driver(matrix)[1]


def _full(matrix: Array) -> tuple[Array, Array, Array]:
    try:
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    except np.linalg.LinAlgError:
        return _second_driver(matrix)
    return u, s, vt


def _second_driver(matrix: Array) -> tuple[Array, Array, Array]:
    """By QR iteration (``gesvd``), slower than divide and conquer, but robust where that fails."""
    from scipy.linalg import svd as scipy_svd

    try:
        u, s, vt = scipy_svd(matrix, full_matrices=False, lapack_driver="gesvd")
    except np.linalg.LinAlgError as error:
        raise InputError(
            f"no decomposition of a {matrix.shape[0]} x {matrix.shape[1]} matrix converges, with neither "
            "of LAPACK's drivers gesdd and gesvd; expected one of them to; check the matrix for entries of extreme size"
        ) from error
    return u, s, vt


def _partial(matrix: Array, rank: int, limit: int) -> SVD | None:
    """The leading values from a block Krylov space.

    None if it grows beyond ``limit`` before they are good enough.

    Block Krylov iteration reaches the best error of a rank up to a factor of 1 + O(1/q^2) after q
    steps, whatever the gaps between the singular values (Musco and Musco, NeurIPS 2015).
    """
    if matrix.shape[0] > matrix.shape[1]:
        found = _partial(matrix.T, rank, limit)
        return found and SVD(found.vt.T, found.s, found.u.T, found.rest)
    block = rank + OVERSAMPLING
    start = np.random.default_rng(0).normal(size=(matrix.shape[1], block))
    basis, images = np.empty((matrix.shape[0], 0)), np.empty((0, matrix.shape[1]))
    directions = matrix @ start
    total = float(np.linalg.norm(matrix))
    rounding = 8 * EPS * sqrt(max(matrix.shape)) * total  # of a product with the matrix
    while basis.shape[1] + block <= limit:
        directions = _orthonormal(directions, basis)
        image = directions.T @ matrix
        basis, images = np.hstack([basis, directions]), np.vstack([images, image])
        small, s, vt = _full(images)
        u = basis @ small[:, :block]
        found = SVD(u, s[:block], vt[:block], _rest(matrix, u, s[:block], vt[:block], total))
        if _gain(matrix, found, rank) <= MAX_GAIN * _squared_error(found, rank) + rounding**2:
            return found
        directions = matrix @ image.T
    return None


def _orthonormal(directions: Array, basis: Array) -> Array:
    """An orthonormal basis of what ``directions`` add to ``basis``.

    Projected twice, since once leaves rounding.
    """
    for _ in range(2):
        directions = directions - basis @ (basis.T @ directions)
        directions = np.linalg.qr(directions)[0]
    return np.asarray(directions, np.float64)


def _rest(matrix: Array, u: Array, s: Array, vt: Array, total: float) -> float:
    """``||matrix - u s vt||``.

    By Pythagoras where that is exact to nine digits, else from the difference.
    """
    squared = total**2 - float(s @ s)
    if squared > 1e-6 * total**2:
        return float(np.sqrt(squared))
    return float(np.linalg.norm(matrix - (u * s) @ vt))


def _gain(matrix: Array, found: SVD, rank: int) -> float:
    """How much one more step of subspace iteration would lower the squared error of ``rank``.

    Exact: ``||A V||^2 - ||S||^2`` of the leading triplets, as the norm of ``A V - U S``, which is
    orthogonal to ``U``.
    """
    rank = min(rank, len(found.s))
    residual = matrix @ found.vt[:rank].T - found.u[:, :rank] * found.s[:rank]
    return float(np.linalg.norm(residual)) ** 2


def _squared_error(found: SVD, rank: int) -> float:
    """The squared error of keeping ``rank`` values."""
    return found.rest**2 + float(found.s[rank:] @ found.s[rank:])
