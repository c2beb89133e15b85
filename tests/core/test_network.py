"""The node graph: names, contraction, and what can and cannot be read back from it."""

import subprocess
import sys

import numpy as np
import pytest
import tensornetwork as tn
from hypothesis import given
from hypothesis import strategies as st

from core.strategies import EPS, mass, mpos, norm, random_mpo, seeds, walk_rounding
from mponet.errors import GraphError, InputError, ShapeError
from mponet.operators.mpo import to_matrix
from mponet.operators.nodes import apply, contract, from_network, network, reference
from mponet.operators.shape import MPOShape

MPO_3 = random_mpo(MPOShape.from_factors((2, 3, 2), (3, 2, 2), 4), np.random.default_rng(7))


# ---------------------------------------------------------------- names


def test_nodes_axes_and_edges_are_named():
    nodes = network(MPO_3)
    assert [node.name for node in nodes] == ["core1", "core2", "core3"]
    assert [node.axis_names for node in nodes] == [
        ["input", "output", "right"],
        ["left", "input", "output", "right"],
        ["left", "input", "output"],
    ]
    assert [[edge.name for edge in node.edges] for node in nodes] == [
        ["in1", "out1", "bond1"],
        ["bond1", "in2", "out2", "bond2"],
        ["bond2", "in3", "out3"],
    ]
    assert nodes[0]["right"] is nodes[1]["left"]


def test_the_input_node_has_a_batch_and_every_input():
    source, *cores = apply(MPO_3, np.ones((5, 12)))
    assert source.name == "input"
    assert source.axis_names == ["batch", "in1", "in2", "in3"]
    assert [edge.name for edge in source.edges] == ["batch", "in1", "in2", "in3"]
    assert source.shape == (5, 2, 3, 2)
    assert [source[f"in{k}"] is core["input"] for k, core in enumerate(cores, start=1)] == [True] * 3
    assert [edge.name for edge in tn.get_all_dangling({source, *cores})].count("batch") == 1


def test_a_single_site_is_a_single_node():
    (node,) = network(random_mpo(MPOShape.from_factors((3,), (2,), 1), np.random.default_rng(0)))
    assert node.axis_names == ["input", "output"]


def test_tensors_of_the_graph_are_copies():
    nodes = network(MPO_3)
    before = MPO_3.cores[1].copy()
    nodes[1].tensor[...] = 0.0
    assert np.array_equal(MPO_3.cores[1], before)


# ---------------------------------------------------------------- contraction


@given(mpos(max_size=256))
def test_the_contracted_graph_is_the_matrix(mpo):
    full = contract(network(mpo))
    assert full.shape == (*mpo.shape.input_dims, *mpo.shape.output_dims)
    error = norm(full.reshape(mpo.shape.in_features, -1) - to_matrix(mpo))
    assert error <= EPS * walk_rounding(mpo.shape, 2) * mass(mpo)


@given(mpos(max_size=256), st.integers(0, 4), seeds)
def test_the_reference_is_inputs_times_matrix(mpo, batch, seed):
    x = np.random.default_rng(seed).normal(size=(batch, mpo.shape.in_features))
    y = reference(mpo, x)
    assert y.shape == (batch, mpo.shape.out_features)
    assert norm(y - x @ to_matrix(mpo)) <= EPS * (walk_rounding(mpo.shape, 2) + x.shape[1]) * mass(mpo) * norm(x)


def test_forty_rebuilds_give_the_same_bits():
    """`tensornetwork.contractors` order sets by id, so theirs differ; the fixed path must not."""
    mpo = random_mpo(MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 8), np.random.default_rng(3))
    x = np.random.default_rng(4).normal(size=(5, mpo.shape.in_features))
    matrices, outputs, hold = set(), set(), []
    for round_ in range(40):
        hold.append(bytearray(1000 * round_ + 1))  # moves later objects, and with them their ids
        matrices.add(contract(network(mpo)).tobytes())
        outputs.add(reference(mpo, x).tobytes())
    assert (len(matrices), len(outputs)) == (1, 1)


@pytest.mark.parametrize("shape", [(5,), (5, 11), (2, 3, 2), (1, 5, 12)])
def test_inputs_of_another_width_are_refused(shape):
    with pytest.raises(ShapeError, match="batch, 12"):
        apply(MPO_3, np.ones(shape))


@pytest.mark.parametrize("bad", [np.full((1, 12), np.nan), np.ones((1, 12), complex)])
def test_inputs_that_are_no_numbers_are_refused(bad):
    with pytest.raises(InputError, match="inputs"):
        reference(MPO_3, bad)


# ---------------------------------------------------------------- graphs of others


def site_node(tensor, legs, order):
    """A node with its axes in another order than ``legs``; legs called in*/out* stay open."""
    node = tn.Node(tensor.transpose(order), axis_names=[legs[axis] for axis in order], backend="numpy")
    for leg in legs:
        if leg.startswith(("in", "out")):
            node[leg].set_name(leg)
    return node


def graph(mpo, rng, splits=None, wire=True):
    """An equal operator built differently: axes and nodes in any order, bonds split in two.

    ``splits[k]`` are the sizes that inner bond ``k`` is split into; an empty tuple leaves the bond
    out.
    """
    sites = mpo.shape.sites
    splits = splits or [(d,) for d in mpo.shape.bond_dims[1:-1]]
    ends = [(), *splits, ()]
    nodes = []
    for k, core in enumerate(mpo.cores):
        lefts = [f"l{n}" for n in range(len(ends[k]))]
        rights = [f"r{n}" for n in range(len(ends[k + 1]))]
        legs = [*lefts, f"in{k + 1}", f"out{k + 1}", *rights]
        tensor = core.reshape(*ends[k], *core.shape[1:3], *ends[k + 1])
        nodes.append(site_node(tensor, legs, rng.permutation(len(legs))))
    for k in range(sites - 1) if wire else ():
        for n in rng.permutation(len(splits[k])):
            pair = [nodes[k][f"r{n}"], nodes[k + 1][f"l{n}"]]
            tn.connect(*(pair if rng.integers(2) else reversed(pair)))
    return [nodes[k] for k in rng.permutation(sites)]


@given(mpos(max_size=256), seeds)
def test_a_graph_becomes_the_operator_again_number_by_number(mpo, seed):
    for nodes in (network(mpo), graph(mpo, np.random.default_rng(seed))):
        found = from_network(nodes)
        assert found.shape == mpo.shape
        assert all(np.array_equal(a, b) for a, b in zip(found.cores, mpo.cores, strict=True))


@given(st.integers(2, 4), seeds)
def test_parallel_edges_are_one_bond(sites, seed):
    """A bond of 6 as two edges: each node has them in its own order, and both must fuse alike."""
    rng = np.random.default_rng(seed)
    mpo = random_mpo(MPOShape.from_factors((4,) * sites, (3,) * sites, 6), rng)
    splits = [((2, 3), (3, 2), (6,), (1, 6, 1))[rng.integers(4)] for _ in range(sites - 1)]
    found = from_network(graph(mpo, rng, splits))
    assert found.shape == mpo.shape
    error = norm(to_matrix(found) - to_matrix(mpo))
    assert error <= EPS * walk_rounding(mpo.shape, 2) * mass(mpo)


@given(st.integers(2, 4), seeds)
def test_a_missing_bond_is_one_of_dimension_one(sites, seed):
    rng = np.random.default_rng(seed)
    mpo = random_mpo(MPOShape.from_factors((2,) * sites, (3,) * sites, 1), rng)
    splits = [((), (1,))[rng.integers(2)] for _ in range(sites - 1)]
    found = from_network(graph(mpo, rng, splits))
    assert found.shape == mpo.shape
    assert all(np.array_equal(a, b) for a, b in zip(found.cores, mpo.cores, strict=True))


@given(mpos(max_size=256), seeds)
def test_a_graph_contracts_alike_in_any_order_of_nodes_and_axes(mpo, seed):
    found = contract(graph(mpo, np.random.default_rng(seed)))
    assert found.shape == (*mpo.shape.input_dims, *mpo.shape.output_dims)
    # other orders sum over pairs of bonds at once: their lengths multiply, at most all of them
    sums = walk_rounding(mpo.shape, 2) + mpo.shape.sites * np.prod(mpo.shape.bond_dims)
    assert norm(found.reshape(mpo.shape.in_features, -1) - to_matrix(mpo)) <= EPS * sums * mass(mpo)


def test_a_bond_wider_than_useful_is_reduced():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 2, 9)), rng.normal(size=(9, 2, 2))
    nodes = [site_node(first, ["in1", "out1", "r"], (0, 1, 2)), site_node(second, ["l", "in2", "out2"], (0, 1, 2))]
    tn.connect(nodes[0]["r"], nodes[1]["l"])
    found = from_network(nodes)
    assert found.shape.bond_dims == (1, 4, 1)
    expected = np.einsum("ijd,dkl->ikjl", first, second).reshape(4, 4)
    assert norm(to_matrix(found) - expected) <= 100 * 36 * EPS * norm(first) * norm(second)


# ---------------------------------------------------------------- graphs that are not a layer


def legged(k, *bonds):
    """A site with factors of 2 and bonds of these sizes, named b0, b1, ..."""
    legs = [f"in{k}", f"out{k}", *(f"b{n}" for n in range(len(bonds)))]
    return site_node(np.ones((2, 2, *bonds)), legs, range(len(legs)))


def ring():
    nodes = [legged(k, 2, 2) for k in (1, 2, 3)]
    for k in range(3):
        tn.connect(nodes[k]["b1"], nodes[(k + 1) % 3]["b0"])
    return nodes


def skipping():
    """1 - 3 - 2: a chain, but not in the order of its legs."""
    nodes = [legged(1, 2), legged(2, 2), legged(3, 2, 2)]
    tn.connect(nodes[0]["b0"], nodes[2]["b0"])
    tn.connect(nodes[2]["b1"], nodes[1]["b0"])
    return nodes


def star():
    """Three sites around a node without legs: a tree."""
    nodes, hub = [legged(k, 2) for k in (1, 2, 3)], tn.Node(np.ones((2, 2, 2)), backend="numpy")
    for k in range(3):
        tn.connect(nodes[k]["b0"], hub[k])
    return [*nodes, hub]


def two_pairs_on_one():
    """As many pairs of legs as nodes, but one node has two of them and the other none."""
    crowded = site_node(np.ones((2, 2, 2, 2, 2)), ["in1", "out1", "in2", "out2", "b"], range(5))
    bare = tn.Node(np.ones(2), backend="numpy")
    tn.connect(crowded["b"], bare[0])
    return [crowded, bare]


def crossed():
    nodes = [site_node(np.ones((2, 2)), [f"in{k}", f"out{3 - k}"], (0, 1)) for k in (1, 2)]
    return nodes


def renamed(edge, name):
    nodes = list(network(MPO_3))
    next(e for node in nodes for e in node.edges if e.name == edge).set_name(name)
    return nodes


def loop():
    nodes = [legged(1, 2, 2)]
    tn.connect(nodes[0]["b0"], nodes[0]["b1"])
    return nodes


def free_bond():
    return [legged(1, 2)]


BROKEN = {
    "ring": (ring, "ring"),
    "bond past a neighbour": (skipping, "neighbours"),
    "tree": (star, "one pair on every node"),
    "two pairs on one node": (two_pairs_on_one, "each of the 2 nodes"),
    "legs of a site on two nodes": (crossed, "both on one node"),
    "unnamed dangling edge": (free_bond, "set_name"),
    "misnamed leg": (lambda: renamed("in1", "input1"), "set_name"),
    "leg zero": (lambda: renamed("in1", "in0"), "set_name"),
    "leg twice": (lambda: renamed("in1", "in2"), "each once"),
    "leg beyond the sites": (lambda: renamed("out3", "out4"), "out4"),
    "edge to itself": (loop, "itself"),
    "some of the nodes": (lambda: list(network(MPO_3))[:2], "pass all"),
    "no nodes": (list, "no nodes"),
    "batch": (lambda: apply(MPO_3, np.ones((1, 12))), "batch"),
    "free batch on a core": (lambda: renamed("in1", "batch"), "batch"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_graph_that_is_no_chain_of_sites_is_refused(name):
    build, message = BROKEN[name]
    with pytest.raises(GraphError, match=message):
        from_network(build())


@pytest.mark.parametrize(
    "name", ["unnamed dangling edge", "misnamed leg", "leg twice", "edge to itself", "some of the nodes", "no nodes"]
)
def test_contract_refuses_edges_that_it_cannot_name(name):
    with pytest.raises(GraphError):
        contract(BROKEN[name][0]())


def test_numbers_of_a_graph_are_checked():
    node = site_node(np.full((2, 2), np.nan), ["in1", "out1"], (0, 1))
    with pytest.raises(InputError, match="non-finite"):
        from_network([node])


# ---------------------------------------------------------------- cost


def test_tensornetwork_is_imported_on_first_use():
    code = (
        "import sys, mponet.operators.nodes as n; assert 'tensornetwork' not in sys.modules\n"
        "import numpy as np; from mponet.operators.mpo import MPO\n"
        "n.network(MPO.from_cores([np.ones((1, 2, 2, 1))])); assert 'tensornetwork' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"], check=True)
