"""Shapes of general networks: refusals, and agreement of nodes and `NetworkShape`."""

import copy
import pickle
import subprocess
import sys
from math import prod

import numpy as np
import pytest
import tensornetwork as tn
from hypothesis import given, settings

import graphs
from core import networks
from core.strategies import wirings
from mponet.draw import render
from mponet.draw.graph import of_nodes as graph_of
from mponet.draw.graph import of_wiring
from mponet.errors import GraphError, ShapeError
from mponet.operators import nodes as network
from mponet.operators.initialize import exact_variance
from mponet.operators.shape import MPOShape
from mponet.operators.topology import NetworkShape, check_tensors, from_nodes, to_nodes

RING = graphs.WIRINGS["ring"]


# ---------------------------------------------------------------- integers


@given(wirings())
def test_counts_are_those_of_the_axes(wiring):
    assert wiring.in_features == prod(wiring.input_dims) == prod(wiring.dims[leg] for leg in wiring.inputs)
    assert wiring.parameters == sum(prod(sizes) for sizes in wiring.sizes)
    assert wiring.dense_parameters == wiring.in_features * wiring.out_features
    assert set(wiring.dims) == {*wiring.inputs, *wiring.outputs, *wiring.bonds}
    assert all(sum(bond in edges for edges in wiring.edges) == 2 for bond in wiring.bonds)
    assert all(sum(leg in edges for edges in wiring.edges) == 1 for leg in (*wiring.inputs, *wiring.outputs))


def test_legs_are_counted_by_their_numbers_not_their_letters():
    names = [f"in{k}" for k in range(12, 0, -1)]
    wiring = NetworkShape.from_edges({"a": [*names, "out1"]}, dict.fromkeys([*names, "out1"], 1))
    assert wiring.inputs == tuple(reversed(names))


def test_it_says_what_it_is():
    assert str(RING) == (
        "a(left:2 in1:2 out1:3 middle:3), b(middle:3 in2:3 out2:1 right:2), c(right:2 in3:2 out3:2 left:2)"
    )


def test_equal_wirings_are_one_key_also_in_another_process():
    lists = NetworkShape(list(RING.names), [list(edges) for edges in RING.edges], [list(sizes) for sizes in RING.sizes])
    assert lists == RING
    assert len({lists, RING, copy.deepcopy(RING)}) == 1
    code = (
        f"import sys, pickle; sys.path[:0] = {sys.path!r}\nfrom mponet.operators.topology import NetworkShape\n"
        "found = pickle.loads(sys.stdin.buffer.read())\n"
        "assert hash(found) == hash(NetworkShape(found.names, found.edges, found.sizes))"
    )
    hash(RING)  # kept, and of strings: another one in every process
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(RING), check=True, timeout=60)


@pytest.mark.parametrize(
    ("nodes", "dims", "message"),
    [
        ({}, {}, "no nodes"),
        ({"2a": "in1 out1"}, {}, "a node is called '2a'; expected a name for a parameter"),
        ({"_a": "in1 out1"}, {}, "a node is called '_a'"),
        ({"bias": "in1 out1"}, {}, "and not 'bias'"),
        ({"a": "in1 out1 x"}, {}, "edge 'x' has 1 ends; expected two of a bond"),
        ({"a": "in1 out1 x", "b": "x", "c": "x"}, {}, r"edge 'x' has ends of the sizes \[2, 2, 2\]"),
        ({"a": "in1 out1 x x"}, {}, "no edge twice"),
        ({"a": "in1 out1", "b": "in1"}, {}, "edge 'in1' has 2 ends"),
        ({"a": "in1"}, {}, r"the out legs are \[\]; expected out1"),
        ({"a": "out1"}, {}, r"the in legs are \[\]"),
        ({"a": "in1 in3 out1"}, {}, r"the in legs are \['in1', 'in3'\]; expected in1, in2, ... without a gap"),
        ({"a": "in1 out0"}, {}, "edge 'out0' has 1 ends"),
        ({"a": "in1 batch out1"}, {}, "edge 'batch' has 1 ends"),
        ({"a": "in1 out1"}, {"in1": 0}, r"sizes \(0, 2\); expected whole numbers of at least 1"),
        ({"a": "in1 out1"}, {"in1": 2.5}, "expected whole numbers"),
    ],
)
def test_what_is_no_layer_is_refused(nodes, dims, message):
    edges = {edge for own in nodes.values() for edge in own.split()}
    with pytest.raises(GraphError, match=message):
        NetworkShape.from_edges(nodes, dict.fromkeys(edges, 2) | dims)


def test_sizes_and_names_that_do_not_fit_are_refused():
    with pytest.raises(GraphError, match="2 nodes are called 'a'"):
        NetworkShape(("a", "a"), (("in1",), ("out1",)), ((2,), (2,)))
    with pytest.raises(GraphError, match="1 names, 2 tuples of edges and 1 of sizes"):
        NetworkShape(("a",), (("in1",), ("out1",)), ((2,),))
    with pytest.raises(GraphError, match=r"ends of the sizes \[2, 3\]"):
        NetworkShape(("a", "b"), (("in1", "x"), ("x", "out1")), ((2, 2), (3, 2)))
    with pytest.raises(GraphError, match=r"the edges \['in1', 'out1'\] have no dimension"):
        NetworkShape.from_edges({"a": "in1 out1"}, {})


# ---------------------------------------------------------------- graphs of nodes


@settings(max_examples=50)
@given(wirings())
def test_nodes_and_back(wiring):
    tensors = graphs.tensors_of(wiring)
    again, values = from_nodes(to_nodes(wiring, tensors))
    assert again == wiring
    assert all(np.array_equal(a, b) for a, b in zip(values, tensors, strict=True))


@settings(max_examples=50)
@given(wirings())
def test_the_graph_contracts_to_the_matrix(wiring):
    tensors = graphs.tensors_of(wiring)
    found = network.contract(to_nodes(wiring, tensors)).reshape(wiring.in_features, wiring.out_features)
    room = graphs.matrix(wiring, graphs.magnitudes(tensors))
    assert np.all(np.abs(found - graphs.matrix(wiring, tensors)) <= graphs.allowed(wiring, 1, room))


def test_an_operator_is_a_wiring_too():
    mpo = exact_variance(MPOShape.from_factors((2, 3, 2), (3, 1, 2), 3), np.random.default_rng(0))
    wiring, tensors = from_nodes(network.network(mpo))
    assert wiring.names == ("core1", "core2", "core3")
    assert wiring.bonds == ("bond1", "bond2")
    assert wiring.parameters == mpo.shape.parameters
    assert all(a.size == b.size for a, b in zip(tensors, mpo.cores, strict=True))


@settings(max_examples=20)
@given(wirings())
def test_it_is_drawn_as_its_nodes_are(wiring):
    nodes = to_nodes(wiring, graphs.tensors_of(wiring))
    drawn, expected = of_wiring(wiring), graph_of(nodes)
    assert {edge.name for edge in drawn.edges} == {edge.name for edge in expected.edges}
    assert [node.name for node in drawn.nodes] == [node.name for node in expected.nodes]
    assert wiring._repr_svg_() == render(wiring).rstrip()


def test_nodes_are_copied():
    nodes = to_nodes(RING, graphs.tensors_of(RING))
    _, tensors = from_nodes(nodes)
    tensors[0][...] = 7
    assert not (nodes[0].tensor == 7).any()


def test_what_has_no_name_gets_one_that_nobody_has():
    a = tn.Node(np.ones((2, 3, 3)), backend="numpy")
    b = tn.Node(np.ones((3, 3, 2)), name="node1", backend="numpy")
    tn.connect(a[1], b[0], name="bond1")
    tn.connect(a[2], b[1])
    a[0].set_name("in1")
    b[2].set_name("out1")
    wiring, _ = from_nodes([a, b])
    assert wiring.names == ("node2", "node1")
    assert wiring.edges == (("in1", "bond1", "bond2"), ("bond1", "bond2", "out1"))


def test_bonds_that_share_a_name_or_have_that_of_a_leg_are_renamed():
    ring = networks.ring(3)
    for edge in {edge for node in ring for edge in node.edges if not edge.is_dangling()}:
        edge.set_name("in1")
    wiring, _ = from_nodes(ring)
    assert set(wiring.bonds) == {"bond1", "bond2", "bond3"}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([], "no nodes"),
        (networks.ring(3)[:2], "another node|that was not given|not among"),
        (networks.build({"a": [("in1", 2), ("x", 3)]}), "dangling edge 'x'"),
        (networks.build({"a": [("batch", 2), ("in1", 2), ("out1", 3)]}), "leave the input node out"),
        (networks.build({"a": [("in1", 2), ("in2", 3)]}), "the out legs are"),
        (networks.build({"a b": [("in1", 2), ("out1", 3)]}), "rename it with node.set_name"),
    ],
)
def test_graphs_that_are_no_layer_are_refused(nodes, message):
    with pytest.raises(GraphError, match=message):
        from_nodes(nodes)


def test_a_graph_that_is_no_chain_is_told_of_the_layer_for_any_graph():
    for nodes in (networks.ring(3), networks.tucker()):
        with pytest.raises(GraphError, match=r"NetworkLinear\.from_nodes\(nodes\), in Keras NetworkDense"):
            network.from_network(nodes)


def test_tensors_of_another_network_are_refused():
    tensors = graphs.tensors_of(RING)
    with pytest.raises(ShapeError, match="expected 3: a, b, c"):
        check_tensors(RING, tensors[1:])
    with pytest.raises(ShapeError, match="node 'a' has the shape"):
        to_nodes(RING, (tensors[1], *tensors[1:]))
