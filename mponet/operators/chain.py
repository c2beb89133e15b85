"""The arithmetic of chains of cores ``(left, input, output, right)``, their scale carried apart.

A product of many cores leaves the range of float64 long before any core does.  Every function here
divides by powers of two, which changes no digit, and returns their exponent: a chain ``cores,
exponent`` is the operator ``2**exponent * product(cores)``.
"""

from collections.abc import Sequence

import numpy as np

from mponet.operators.arrays import Array, split_scale
from mponet.operators.svd import singular_values

#: Exponents that one core can take without leaving the range of float64 in what is computed next.
SAFE_EXPONENT = 900


def normalized(cores: Sequence[Array]) -> tuple[list[Array], int]:
    """Cores with largest entries in [0.5, 1), and the exponent of the chain."""
    scaled = [split_scale(core) for core in cores]
    return [core for core, _ in scaled], sum(exponent for _, exponent in scaled)


def with_scale(cores: Sequence[Array], exponent: int, site: int) -> list[Array]:
    """The cores times ``2**exponent``.

    On the core of ``site`` (from 0) where it is in range, else on all alike.
    """
    cores = list(cores)
    if abs(exponent) <= SAFE_EXPONENT:
        cores[site] = np.asarray(np.ldexp(cores[site], exponent), np.float64)
        return cores
    return _spread(cores, exponent)


def balanced(cores: Sequence[Array]) -> list[Array]:
    """The cores with their scales made equal.

    So every partial product is between 1 and the scale of the whole.
    """
    return _spread(*normalized(cores))


def to_matrix(cores: Sequence[Array]) -> Array:
    """The full matrix ``W``, shape ``(in_features, out_features)``.

    Infinite entries where float64 does not reach.
    """
    chain = np.ones((1, 1))  # (i1 j1 i2 j2 ..., D)
    with np.errstate(over="ignore"):
        for core in balanced(cores):
            chain = (chain @ core.reshape(core.shape[0], -1)).reshape(-1, core.shape[3])
    sites = len(cores)
    paired = chain.reshape([size for core in cores for size in core.shape[1:3]])
    order = (*range(0, 2 * sites, 2), *range(1, 2 * sites, 2))
    rows = int(np.prod([core.shape[1] for core in cores]))
    return paired.transpose(order).reshape(rows, -1)


def apply(cores: Sequence[Array], inputs: Array) -> Array:
    """``inputs @ W`` for inputs ``(batch, in_features)``, left to right, never transposed."""
    batch = inputs.shape[0]
    state = inputs.reshape(batch, 1, -1)  # (batch J_1 .. J_{k-1}, D_{k-1}, I_k .. I_n)
    for core in balanced(cores):
        left, i, j, right = core.shape
        state = core.reshape(left * i, j * right).T @ state.reshape(state.shape[0], left * i, -1)
        state = state.reshape(state.shape[0] * j, right, -1)
    return state.reshape(batch, -1)


def canonical(cores: Sequence[Array], site: int) -> tuple[list[Array], int]:
    """The same operator with orthogonality centre ``site`` (from 0).

    The largest entry of the centre is in [0.5, 1).

    Cores left of the centre are left isometries, cores right of it right isometries, by QR with a
    non-negative diagonal of R.
    """
    chain, exponent = normalized(cores)
    for k in range(site):
        chain[k], rest = push_right(chain[k], chain[k + 1])
        chain[k + 1], shift = split_scale(rest)
        exponent += shift
    for k in reversed(range(site, len(chain) - 1)):
        rest, chain[k + 1] = push_left(chain[k], chain[k + 1])
        chain[k], shift = split_scale(rest)
        exponent += shift
    return chain, exponent


def reduced(cores: Sequence[Array]) -> list[Array]:
    """The same operator with no bond wider than the cores on one side of it can use.

    QR from both sides.
    """
    chain, exponent = canonical(cores, len(cores) - 1)
    chain, shift = canonical(chain, 0)
    return with_scale(chain, exponent + shift, 0)


def norm(cores: Sequence[Array]) -> tuple[float, int]:
    """Frobenius norm of ``W`` and its exponent; the matrix is never formed."""
    (center, *_), exponent = canonical(cores, 0)
    return float(np.linalg.norm(center)), exponent


def spectra(cores: Sequence[Array]) -> tuple[list[Array], int]:
    """Singular values of ``W`` unfolded at each inner bond, descending, and their exponent.

    One QR and one singular value decomposition of a core per bond.
    """
    (center, *others), exponent = canonical(cores, 0)
    values: list[Array] = []
    for core in others:
        values.append(singular_values(center.reshape(-1, center.shape[3])))
        _, center = push_right(center, core)
    return values, exponent


def difference(first: Sequence[Array], second: Sequence[Array]) -> tuple[list[Array], int]:
    """``first - second`` by direct sum of the bonds."""
    terms = [normalized(first), normalized(second)]
    # The exponent of a chain with a zero core says nothing.
    shift = max((exponent for cores, exponent in terms if all(core.any() for core in cores)), default=0)
    for cores, exponent in terms:
        cores[0] = np.ldexp(cores[0], min(exponent - shift, 0))
    last = len(first) - 1
    pairs = zip(terms[0][0], terms[1][0], strict=True)
    return [_direct_sum(a, b, k == 0, k == last) for k, (a, b) in enumerate(pairs)], shift


def push_right(core: Array, following: Array) -> tuple[Array, Array]:
    """Make ``core`` a left isometry and move the rest of it into the core that follows."""
    left, i, j, right = core.shape
    q, r = np.linalg.qr(core.reshape(left * i * j, right))
    signs = np.where(np.diagonal(r) < 0, -1.0, 1.0)
    q, r = q * signs, r * signs[:, None]
    return q.reshape(left, i, j, -1), np.tensordot(r, following, axes=1)


def push_left(preceding: Array, core: Array) -> tuple[Array, Array]:
    """Make ``core`` a right isometry and move the rest of it into the core before.

    `push_right` of the mirror image.
    """
    isometry, rest = push_right(_mirrored(core), _mirrored(preceding))
    return _mirrored(rest), _mirrored(isometry)


def _spread(cores: Sequence[Array], exponent: int) -> list[Array]:
    """The cores times ``2**exponent``, the same share of it on each."""
    share, more = divmod(exponent, len(cores))
    return [np.asarray(np.ldexp(core, share + (k < more)), np.float64) for k, core in enumerate(cores)]


def _mirrored(core: Array) -> Array:
    """The core with its two bonds exchanged."""
    return core.transpose(3, 1, 2, 0)


def _direct_sum(a: Array, b: Array, first: bool, last: bool) -> Array:
    """Core of ``A - B``.

    Block diagonal in the bonds, one row at the first site (negated), one column at the last.
    """
    b = -b if first else b
    if first and last:
        return a + b
    if first:
        return np.concatenate([a, b], axis=3)
    if last:
        return np.concatenate([a, b], axis=0)
    left, right = a.shape[0], a.shape[3]
    core = np.zeros((left + b.shape[0], *a.shape[1:3], right + b.shape[3]))
    core[:left, :, :, :right] = a
    core[left:, :, :, right:] = b
    return core
