"""Positions in a diagram: nothing overlaps, no avoidable crossing, everything is placed."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import networks
from core.strategies import mpos, random_mpo
from mponet.draw.geometry import compute_geometry
from mponet.draw.graph import of_mpo, of_nodes, of_shape
from mponet.draw.placement import place_nodes
from mponet.draw.spacing import thickness
from mponet.errors import GraphError
from mponet.operators.mpo import MPO
from mponet.operators.nodes import apply, network
from mponet.operators.shape import MPOShape

SHAPE = MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 16)
MPO_4 = random_mpo(SHAPE, np.random.default_rng(5))

NETWORKS = {
    "chain": network(MPO_4),
    "long chain": network(random_mpo(MPOShape.from_factors((2,) * 19, (2,) * 19, 3), np.random.default_rng(0))),
    "single": network(random_mpo(MPOShape.from_factors((3,), (2,), 1), np.random.default_rng(0))),
    "input": apply(MPO_4, np.ones((5, 784))),
    "ring of 3": networks.ring(3),
    "ring of 6": networks.ring(6),
    "ring of 13": networks.ring(13),
    "tree": networks.tree([0, 0, 1, 1, 2, 2]),
    "star": networks.tree([0] * 6),
    "tucker": networks.tucker(),
    "grid": networks.grid(3, 3),
    "two parts": [*networks.ring(4), *networks.tree([0, 0, 0])],
    "parallel": networks.build({"a": [("in1", 4), ("p", 4), ("q", 8)], "b": [("p", 4), ("q", 8), ("out1", 64)]}),
}


def points_of(wire):
    """The wire as a line of short pieces."""
    if not wire.curved:
        return wire.points
    a, b, c, d = (np.array(point) for point in wire.points)
    steps = np.linspace(0, 1, 24)[:, None]
    curve = (1 - steps) ** 3 * a + 3 * (1 - steps) ** 2 * steps * b + 3 * (1 - steps) * steps**2 * c + steps**3 * d
    return [tuple(point) for point in curve]


def meet(first, second):
    """Whether two pieces of line have a point in common."""
    (a, b), (c, d) = first, second

    def side(p, q, r):
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def pieces(wire):
    points = points_of(wire)
    return list(pairwise(points))


def crossings(places):
    return sum(
        any(meet(one, two) for one in pieces(first) for two in pieces(second))
        for first, second in combinations(places.wires, 2)
    )


def overlaps(places):
    return [
        (first, second)
        for first, second in combinations(places.boxes, 2)
        if abs(first.x - second.x) < (first.width + second.width) / 2
        and abs(first.y - second.y) < (first.height + second.height) / 2
    ]


def through_boxes(graph, places):
    """Wires that run through a box that is none of their ends."""
    return [
        (edge.name, graph.nodes[node].name)
        for edge, wire in zip(graph.edges, places.wires, strict=True)
        for node, box in enumerate(places.boxes)
        if node not in edge.ends
        for x, y in points_of(wire)
        if abs(x - box.x) < box.width / 2 and abs(y - box.y) < box.height / 2
    ]


# ---------------------------------------------------------------- the graph


@given(mpos(max_size=256))
def test_the_graph_of_a_shape_is_that_of_the_nodes(mpo):
    nodes = of_nodes(network(mpo))
    assert (nodes.nodes, nodes.edges) == (of_shape(mpo.shape).nodes, of_shape(mpo.shape).edges)
    assert of_mpo(mpo) == nodes


@pytest.mark.parametrize(
    ("mpo", "center"), [(MPO_4.canonical(MPO_4.shape.sites), 3), (MPO_4.canonical(), 0), (MPO_4.canonical(3), 2)]
)
def test_arrows_lead_to_the_centre_of_the_gauge(mpo, center):
    graph = of_mpo(mpo)
    assert graph.center == center
    towards = {(k, k if k < center else k - 1) for k in range(4) if k != center}  # bond k is behind node k
    bonds = {name: k for k, name in enumerate(graph.edges[k].name for k in graph.bonds)}
    assert {(node, bonds[graph.edges[edge].name]) for node, edge in graph.arrows} == towards


def test_arrows_survive_the_precision_of_layers():
    mpo = MPO_4.canonical(2)
    rounded = MPO(mpo.shape, tuple(core.astype(np.float32).astype(np.float64) for core in mpo.cores))
    assert of_mpo(rounded).center == 1


def test_cores_without_a_gauge_have_no_arrows():
    graph = of_mpo(MPO_4)
    assert (graph.arrows, graph.center) == (frozenset(), None)


def test_loops_missing_nodes_and_nothing_at_all_are_refused():
    first, *others = networks.ring(4)
    with pytest.raises(GraphError, match="pass all"):
        of_nodes(others)
    with pytest.raises(GraphError, match="no nodes"):
        of_nodes([])
    import tensornetwork as tn

    node = tn.Node(np.zeros((2, 2)), name="loop", backend="numpy")
    tn.connect(node[0], node[1], name="trace")
    with pytest.raises(GraphError, match="'trace' to itself"):
        of_nodes([node])
    assert first.name == "core1"


# ---------------------------------------------------------------- places


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_crosses_or_overlaps(name):
    graph = of_nodes(NETWORKS[name])
    for per_row in (2, 3, 8):
        places = compute_geometry(graph, per_row)
        assert not overlaps(places)
        assert not through_boxes(graph, places)
        assert crossings(places) == 0
        for box in places.boxes:
            assert box.width / 2 < box.x < places.width - box.width / 2
            assert box.height / 2 < box.y < places.height - box.height / 2
        for wire in places.wires:
            assert all(0 <= x <= places.width and 0 <= y <= places.height for x, y in (*wire.points, wire.label))


@given(st.lists(st.integers(0, 10**6), max_size=12), st.booleans())
def test_a_tree_never_crosses_itself(choices, with_legs):
    parents = [choice % (k + 1) for k, choice in enumerate(choices)]
    graph = of_nodes(networks.tree(parents, with_legs))
    places = compute_geometry(graph)
    assert crossings(places) == 0
    assert not overlaps(places)
    assert not through_boxes(graph, places)


def test_what_cannot_be_drawn_flat_is_drawn_all_the_same():
    places = compute_geometry(of_nodes(networks.complete(6)))
    assert not overlaps(places)
    assert crossings(places) > 0  # or the tests above see none anywhere
    assert len(places.wires) == 15 + 6


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_go_up_and_inputs_down(name):
    graph = of_nodes(NETWORKS[name])
    for edge, wire in zip(graph.edges, compute_geometry(graph).wires, strict=True):
        if len(edge.ends) == 1:
            (_, start), (_, tip) = wire.points
            assert (tip < start) == edge.name.startswith("out")


def test_sites_stand_in_their_order_whatever_the_order_of_the_nodes():
    nodes = network(MPO_4)
    for order in ((3, 1, 0, 2), (2, 0, 3, 1)):
        graph = of_nodes([nodes[k] for k in order])
        (band,) = place_nodes(graph, 8).bands
        assert [graph.nodes[node].name for (node,) in band] == ["core1", "core2", "core3", "core4"]


def test_a_line_is_wider_the_larger_its_dimension():
    widths = [thickness(dim) for dim in (1, 2, 4, 16, 256, 65536)]
    assert widths == sorted(set(widths))
