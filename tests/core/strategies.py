"""What the property tests of the core feed it, and the rounding that they may blame on float64.

Sizes are small, so that hundreds of examples cost seconds, and awkward: factors of 1, single sites,
bonds far above what is useful, matrices without full rank, zero, huge and tiny.
"""

from math import hypot, prod, sqrt

import numpy as np
from hypothesis import strategies as st

from mponet.contraction.graph_plan import GraphPlan
from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape
from mponet.operators.topology import NetworkShape

EPS = float(np.finfo(np.float64).eps)
#: Scales that keep a number in range and take its square out of it.
SCALES = (1.0, 1e-200, 1e200)

seeds = st.integers(0, 2**32 - 1)
bonds = st.sampled_from([1, 2, 3, 5, 8, 1000])


@st.composite
def factors(draw, min_sites=1, max_sites=5, max_size=1024):
    """``(input_dims, output_dims)`` with at most ``max_size`` entries in the full matrix."""
    inputs, outputs, room = [], [], max_size
    for _ in range(draw(st.integers(min_sites, max_sites))):
        i, j = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        i, j = (i, j) if i * j <= room else (1, 1)
        room //= i * j
        inputs.append(i)
        outputs.append(j)
    return tuple(inputs), tuple(outputs)


@st.composite
def bond_requests(draw, sites):
    """One bond for all, or one for each inner bond."""
    return draw(bonds | st.lists(bonds, min_size=sites - 1, max_size=sites - 1))


@st.composite
def shapes(draw, **sizes):
    """An `MPOShape`; keywords as for `factors`."""
    inputs, outputs = draw(factors(**sizes))
    return MPOShape.from_factors(inputs, outputs, draw(bond_requests(len(inputs))))


@st.composite
def mpos(draw, **sizes):
    """An `MPO` with normal cores; keywords as for `factors`."""
    return random_mpo(draw(shapes(**sizes)), np.random.default_rng(draw(seeds)))


@st.composite
def deficient_mpos(draw, **sizes):
    """An `MPO` that may use less than its bonds: repeated bond states, a zero core, or neither."""
    mpo = draw(mpos(**sizes))
    cores = [core.copy() for core in mpo.cores]
    site = draw(st.integers(0, mpo.shape.sites - 1))
    kind = draw(st.sampled_from(["full", "repeated", "zero"]))
    if kind == "repeated":
        cores[site][..., :] = cores[site][..., :1]
    elif kind == "zero":
        cores[site][...] = 0.0
    return MPO(mpo.shape, tuple(cores))


@st.composite
def matrices(draw, **sizes):
    """``(matrix, input_dims, output_dims)``: full rank, low rank or zero, of any scale."""
    inputs, outputs = draw(factors(**sizes))
    rng = np.random.default_rng(draw(seeds))
    rows, columns = prod(inputs), prod(outputs)
    matrix = {
        "full": lambda: rng.normal(size=(rows, columns)),
        "outer product": lambda: np.outer(rng.normal(size=rows), rng.normal(size=columns)),
        "repeated rows": lambda: np.repeat(rng.normal(size=(1, columns)), rows, axis=0),
        "identity": lambda: np.eye(rows, columns),
        "zero": lambda: np.zeros((rows, columns)),
    }[draw(st.sampled_from(["full", "full", "outer product", "repeated rows", "identity", "zero"]))]()
    return matrix * draw(st.sampled_from(SCALES)), inputs, outputs


def random_mpo(shape, rng):
    """Independent standard normal cores."""
    return MPO(shape, tuple(rng.normal(size=size) for size in shape.core_shapes))


def left_canonical(mpo):
    """The operator with its centre on the last site: every bond carries as much as it can."""
    return mpo.canonical(mpo.shape.sites)


def unfoldings(matrix, inputs, outputs):
    """The matrix unfolded at each inner bond: ``(i1 j1 .. ik jk, rest)``."""
    sites = len(inputs)
    paired = matrix.reshape(*inputs, *outputs).transpose([axis for k in range(sites) for axis in (k, sites + k)])
    return [paired.reshape(prod(inputs[:k]) * prod(outputs[:k]), -1) for k in range(1, sites)]


def norm(array):
    """Frobenius norm by another way than the core's: `math.hypot` does not overflow."""
    return hypot(*np.ravel(array))


def mass(mpo):
    """``prod_k ||core_k||_F``: relative change ``d`` of one core changes W by at most ``d * mass``.

    That is what a backward stable step may do, so every bound on a walk along the cores is a
    multiple of it.
    """
    return prod(norm(core) for core in mpo.cores)


def walk_rounding(shape, walks=1):
    """Allowed error, in EPS times `mass`, of ``walks`` along the cores with one QR or SVD each.

    One such step on an ``m x n`` matrix is backward stable with a constant that grows at most like
    ``m + n`` in practice (Higham, Accuracy and Stability, ch. 19: ``c m n`` at worst); 10 covers
    the constants of LAPACK.
    """
    return 10.0 * walks * sum(left * i * j + i * j * right for left, i, j, right in shape.core_shapes)


def sweep_rounding(inputs, outputs):
    """Allowed error, in EPS times the norm, of an exact decomposition with these factors.

    Each cut is an SVD of an unfolding (10 (m + n), as in `walk_rounding`), and drops what is below
    ``8 sum(D)``: at most ``D_k`` values at bond ``k``, so ``8 sum(D) sqrt(sum(D))`` over all bonds.
    """
    sizes = [i * j for i, j in zip(inputs, outputs, strict=True)]
    sides = sum(prod(sizes[:k]) + prod(sizes[k:]) for k in range(len(sizes) + 1))
    bond_dims = MPOShape.from_factors(inputs, outputs, 1).max_bond_dims
    return 10.0 * sides + 8.0 * sum(bond_dims) * sqrt(sum(bond_dims))


@st.composite
def wirings(draw, max_nodes=5, max_size=5_000):
    """A `NetworkShape` of any graph: disconnected, with parallel bonds, with dimensions of 1.

    ``max_size`` bounds the product of all dimensions, which is what a sum over all edges costs.
    """
    count = draw(st.integers(1, max_nodes))
    own = [[] for _ in range(count)]
    dims, room = {}, max_size
    pairs = [(j, k) for j in range(count) for k in range(j + 1, count)]
    joined = draw(st.lists(st.sampled_from(pairs), max_size=6)) if pairs else []
    places = [(f"bond{k}", pair) for k, pair in enumerate(joined)]
    for kind in ("in", "out"):
        legs = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=3))
        places += [(f"{kind}{k}", (node,)) for k, node in enumerate(legs, start=1)]
    for edge, nodes in places:
        dims[edge] = size if (size := draw(st.integers(1, 4))) <= room else 1
        room //= dims[edge]
        for node in nodes:
            own[node].append(edge)
    return NetworkShape.from_edges({f"n{k}": draw(st.permutations(edges)) for k, edges in enumerate(own)}, dims)


@st.composite
def pair_plans(draw, wiring, tiles=(None, 1, 2, 3)):
    """Any `GraphPlan` of a wiring, sensible or not."""
    path = []
    for left in range(len(wiring.names) + 1, 1, -1):
        path.append(tuple(draw(st.lists(st.integers(0, left - 1), min_size=2, max_size=2, unique=True))))
    return GraphPlan(wiring, tuple(path), draw(st.sampled_from(tiles)))
