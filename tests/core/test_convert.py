"""Cores from elsewhere.

Any order of axes, no boundary axes, rings, other libraries, and wrong guesses.
"""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.strategies import EPS, mass, mpos, norm, walk_rounding
from mponet import MPO
from mponet.errors import InputError, ShapeError
from mponet.operators.axes import AXES
from mponet.operators.convert import CONVENTIONS, from_library, to_library
from mponet.operators.topology import from_ring, to_nodes

#: The dense matrix of each library, by the sum over bonds that its documentation states, in
#: einsum's letters: a, b the bonds, i the rows of the library's matrix, j its columns.
FORMULAS = {
    "quimb": ("bij", "aij", "abij"),
    "t3f": ("aijb", "aijb", "aijb"),
    "tensorkrowch": ("ibj", "aij", "aibj"),
    "tensorly": ("aijb", "aijb", "aijb"),
    "tensorly-torch": ("aijb", "aijb", "aijb"),
    "tensornetwork": ("abij", "abij", "abij"),
    "torchtt": ("aijb", "aijb", "aijb"),
}


def dense(library, cores):
    """The matrix of a library from its cores, core by core."""
    first, last, middle = FORMULAS[library]
    chain = np.ones((1, 1, 1))  # (rows, columns, bond)
    for k, core in enumerate(cores):
        letters = first if k == 0 else last if k == len(cores) - 1 else middle
        sizes = dict(zip(letters, core.shape, strict=True))
        core = core.transpose([letters.index(x) for x in "aijb" if x in letters]).reshape(
            [sizes.get(x, 1) for x in "aijb"]
        )
        chain = np.einsum("xya,aijb->xiyjb", chain, core).reshape(
            chain.shape[0] * core.shape[1], chain.shape[1] * core.shape[2], -1
        )
    return chain[..., 0]


@pytest.mark.parametrize("library", CONVENTIONS)
@given(mpo=mpos(min_sites=2, max_size=256))
def test_a_library_gets_the_matrix_and_gives_it_back(library, mpo):
    matrix, allowed = mpo.to_matrix(), EPS * walk_rounding(mpo.shape, 2) * mass(mpo)
    theirs = to_library(library, mpo)
    found = dense(library, theirs)
    assert norm((found.T if CONVENTIONS[library].matrix == "W.T" else found) - matrix) <= allowed
    again = from_library(library, theirs, matrix=matrix)
    assert again.shape == mpo.shape
    assert all(np.array_equal(a, b) for a, b in zip(again.cores, mpo.cores, strict=True))


def test_an_object_is_read_by_its_attribute():
    class Theirs:
        factors = MPO.from_matrix(np.arange(12.0).reshape(4, 3), (2, 2), (3, 1)).cores

    assert np.allclose(from_library("tensorly", Theirs()).to_matrix(), np.arange(12.0).reshape(4, 3))


def test_a_library_that_is_not_known_is_refused():
    with pytest.raises(InputError, match="expected one of quimb, t3f"):
        from_library("quimbs", [])


# ---------------------------------------------------------------- axes


@pytest.mark.parametrize("order", list(permutations(AXES)), ids=" ".join)
@given(mpo=mpos(max_size=256), dropped=st.booleans())
def test_any_order_of_axes_is_taken(order, mpo, dropped):
    cores = [core.transpose([AXES.index(name) for name in order]) for core in mpo.cores]
    if dropped and len(cores) > 1:
        cores[0] = cores[0].squeeze(order.index("left"))
        cores[-1] = cores[-1].squeeze(order.index("right"))
    for axes in (order, " ".join(order)):
        found = MPO.from_cores(cores, axes, matrix=mpo.to_matrix())
        assert all(np.array_equal(a, b) for a, b in zip(found.cores, mpo.cores, strict=True))


def test_a_single_core_may_be_a_matrix():
    matrix = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(MPO.from_cores([matrix]).to_matrix(), matrix)
    assert np.array_equal(MPO.from_cores([matrix], "left output input right").to_matrix(), matrix.T)


@pytest.mark.parametrize(
    "axes", ["left input output", "left in out right", "", "left left input right", ("input",) * 4]
)
def test_axes_that_are_none_are_refused(axes):
    with pytest.raises(ShapeError, match="expected the names 'left', 'input', 'output' and 'right'"):
        MPO.from_cores([np.ones((1, 2, 2, 1))], axes)


# ---------------------------------------------------------------- wrong guesses


def test_a_wrong_order_is_answered_with_those_that_fit():
    cores = [core.transpose(0, 3, 2, 1) for core in MPO.from_matrix(np.eye(12), (3, 4), (3, 4)).cores]
    cores = [np.repeat(cores[0], 5, axis=1), np.repeat(cores[1], 5, axis=0)]
    with pytest.raises(ShapeError, match="axes='left right input output'"):
        MPO.from_cores(cores)


def test_no_order_that_fits_is_said():
    with pytest.raises(ShapeError, match="no order of axes fits"):
        MPO.from_cores([np.ones((2, 3, 4, 5)), np.ones((6, 7, 8, 9))])


def test_a_given_matrix_tells_input_from_output():
    matrix = np.random.default_rng(0).normal(size=(16, 16))
    transposed = MPO.from_matrix(matrix.T, (4, 4), (4, 4)).cores
    with pytest.raises(ShapeError, match="transposed one; exchange 'input' and 'output'"):
        MPO.from_cores(transposed, matrix=matrix)
    assert np.allclose(MPO.from_cores(transposed, "left output input right", matrix=matrix).to_matrix(), matrix)
    with pytest.raises(ShapeError, match="check the order of axes and of sites"):
        MPO.from_cores(transposed[::-1], "right input output left", matrix=matrix)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_half_precision_is_the_same_matrix(scale):
    matrix = np.random.default_rng(0).normal(size=(16, 16))
    mpo = MPO.from_matrix(matrix * scale, (4, 4), (4, 4))
    assert MPO.from_cores(mpo.cores, matrix=matrix.astype(np.float16).astype(float) * scale)


# ---------------------------------------------------------------- rings


@pytest.mark.parametrize("order", list(permutations(AXES))[::5], ids=" ".join)
def test_a_ring_is_the_trace_of_its_cores(order):
    rng = np.random.default_rng(2)
    shapes = [(3, 2, 2, 4), (4, 1, 3, 2), (2, 2, 1, 3)]
    cores = [rng.normal(size=shape) for shape in shapes]
    expected = np.einsum("aijb,bklc,cmna->ikmjln", *cores).reshape(4, 6)
    given_cores = [core.transpose([AXES.index(name) for name in order]) for core in cores]
    shape, tensors = from_ring(given_cores, order)
    nodes = to_nodes(shape, tensors)
    edges = {edge.name: edge for node in nodes for edge in node.edges if edge.is_dangling()}
    result, *others = nodes
    for node in others:
        result = result @ node
    found = result.reorder_edges([edges[name] for name in ("in1", "in2", "in3", "out1", "out2", "out3")]).tensor
    assert np.allclose(found.reshape(4, 6), expected, atol=1e-12)


def test_a_ring_is_no_chain_and_a_chain_of_other_bonds_no_ring():
    with pytest.raises(ShapeError, match=r"a ring; expected 1 at both ends; mponet\.operators\.topology\.from_ring"):
        MPO.from_cores([np.ones((3, 4, 4, 3))] * 3)
    with pytest.raises(ShapeError, match="the last and the first included"):
        from_ring([np.ones((3, 4, 4, 2)), np.ones((2, 4, 4, 4))])
