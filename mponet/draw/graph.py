"""The nodes and edges of a tensor network, as a diagram shows them.

`of_nodes` reads them from TensorNetwork nodes, which define a layer.  `of_shape` gives the same for
an operator without cores, since a drawing needs neither memory for them nor TensorNetwork; a test
compares the two.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from mponet.errors import GraphError
from mponet.operators.arrays import Array
from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape
from mponet.operators.topology import NetworkShape

#: Largest error of an entry of ``A^T A`` for which a core counts as an isometry; cores of layers
#: are float32.
ISOMETRY = 1e-5


@dataclass(frozen=True, slots=True)
class Node:
    """A tensor.

    Attributes:
        name: name of the node.
        edges: indices of its edges in `Graph.edges`, in the order of its axes.
    """

    name: str
    edges: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """A leg or a bond.

    Attributes:
        name: name of the edge.
        dim: dimension.
        ends: indices of the nodes that it joins: one for a leg, two for a bond.
    """

    name: str
    dim: int
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """A tensor network.

    Attributes:
        nodes: the tensors.
        edges: legs and bonds, in the order in which the nodes' axes meet them.
        arrows: ``(node, edge)`` where the node is an isometry from all its other edges to this one.
        center: the node that all arrows lead to, if there is one.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    arrows: frozenset[tuple[int, int]] = field(default=frozenset())
    center: int | None = None

    @property
    def bonds(self) -> tuple[int, ...]:
        """Indices of the edges that join two nodes."""
        return tuple(k for k, edge in enumerate(self.edges) if len(edge.ends) == 2)

    def size(self, node: int) -> int:
        """Number of entries of a node's tensor."""
        return prod(self.edges[k].dim for k in self.nodes[node].edges)

    def other(self, node: int, edge: int) -> int:
        """The node at the other end of a bond."""
        first, second = self.edges[edge].ends
        return second if node == first else first


def of_shape(shape: MPOShape) -> Graph:
    """The graph of an operator of this shape, as `mponet.operators.nodes.network` builds it."""
    axes: list[list[tuple[str, int]]] = []
    for k, (left, i, j, right) in enumerate(shape.core_shapes, start=1):
        before = [] if k == 1 else [(f"bond{k - 1}", left)]
        after = [] if k == shape.sites else [(f"bond{k}", right)]
        axes.append([*before, (f"in{k}", i), (f"out{k}", j), *after])
    return _graph([f"core{k}" for k in range(1, shape.sites + 1)], axes)


def of_mpo(mpo: MPO) -> Graph:
    """The graph of an operator, with the arrows of its gauge."""
    graph = of_shape(mpo.shape)
    tensors = [
        core.reshape([graph.edges[k].dim for k in node.edges])
        for core, node in zip(mpo.cores, graph.nodes, strict=True)
    ]
    return _oriented(graph, tensors)


def of_nodes(nodes: Sequence[Any]) -> Graph:
    """The graph of TensorNetwork nodes, joined in any way, with the arrows of its gauge.

    Legs whose names begin with ``in`` are drawn downwards, all others but ``batch`` upwards.

    Raises:
        GraphError: there are no nodes, a node has an edge to itself, or an edge leads to a node
            that is not given.
    """
    if not nodes:
        raise GraphError("the graph has no nodes; expected at least one")
    place = {id(node): k for k, node in enumerate(nodes)}
    index: dict[int, int] = {}
    edges: list[Edge] = []
    for node in nodes:
        for edge in node.edges:
            if id(edge) not in index:
                index[id(edge)] = len(edges)
                edges.append(_edge(edge, place))
    axes = [tuple(index[id(edge)] for edge in node.edges) for node in nodes]
    graph = Graph(
        tuple(Node(str(node.name), edges_of) for node, edges_of in zip(nodes, axes, strict=True)), tuple(edges)
    )
    return _oriented(graph, [np.asarray(node.tensor) for node in nodes])


def of_wiring(wiring: NetworkShape) -> Graph:
    """The graph of a network's integers, without arrows."""
    pairs = zip(wiring.edges, wiring.sizes, strict=True)
    return _graph(wiring.names, [tuple(zip(edges, sizes, strict=True)) for edges, sizes in pairs])


def upward(edge: Edge) -> bool:
    """Whether a leg is drawn upwards: inputs and the batch come from below."""
    return not edge.name.startswith(("in", "batch"))


def neighbours(graph: Graph) -> tuple[dict[int, list[int]], ...]:
    """The neighbours of every node, each with the bonds between the two."""
    joined: tuple[dict[int, list[int]], ...] = tuple({} for _ in graph.nodes)
    for bond in graph.bonds:
        first, second = graph.edges[bond].ends
        joined[first].setdefault(second, []).append(bond)
        joined[second].setdefault(first, []).append(bond)
    return joined


def node_text(graph: Graph, node: int) -> str:
    """A node in one line: ``core2: bond1 16, in2 7, out2 4, bond2 16; 7168 numbers``."""
    axes = ", ".join(f"{graph.edges[k].name} {graph.edges[k].dim}" for k in graph.nodes[node].edges)
    return f"{graph.nodes[node].name}: {axes}; {graph.size(node)} numbers"


def _graph(names: Sequence[str], axes: Sequence[Sequence[tuple[str, int]]]) -> Graph:
    """The graph in which axes of equal names are one edge."""
    index: dict[str, int] = {}
    dims: dict[str, int] = {}
    ends: dict[str, list[int]] = {}
    for node, axes_of in enumerate(axes):
        for name, dim in axes_of:
            index.setdefault(name, len(index))
            dims[name] = dim
            ends.setdefault(name, []).append(node)
    edges = tuple(Edge(name, dims[name], tuple(ends[name])) for name in index)
    nodes = (Node(name, tuple(index[axis] for axis, _ in axes_of)) for name, axes_of in zip(names, axes, strict=True))
    return Graph(tuple(nodes), edges)


def _edge(edge: Any, place: Mapping[int, int]) -> Edge:
    ends = [edge.node1] if edge.is_dangling() else [edge.node1, edge.node2]
    if len({id(node) for node in ends}) != len(ends):
        raise GraphError(f"node {ends[0].name!r} has edge {edge.name!r} to itself; expected no loops; trace it first")
    if any(id(node) not in place for node in ends):
        raise GraphError(f"edge {edge.name!r} leads to a node that was not given; expected all nodes; pass all")
    return Edge(str(edge.name), int(edge.dimension), tuple(sorted(place[id(node)] for node in ends)))


def _oriented(graph: Graph, tensors: Sequence[Array]) -> Graph:
    """The graph with arrows where tensors are isometries."""
    arrows = frozenset(
        (k, edge)
        for k, (node, tensor) in enumerate(zip(graph.nodes, tensors, strict=True))
        for axis, edge in enumerate(node.edges)
        if len(graph.edges[edge].ends) == 2 and _is_isometry(tensor, axis)
    )
    return replace(graph, arrows=arrows, center=_center(graph, arrows))


def _is_isometry(tensor: Array, axis: int) -> bool:
    columns = np.moveaxis(tensor, axis, -1).reshape(-1, tensor.shape[axis])
    norms = np.linalg.norm(columns, axis=0)  # cheaper than the product, and nearly always enough
    if columns.shape[0] < columns.shape[1] or np.abs(norms - 1).max() > ISOMETRY:
        return False
    return bool(np.abs(columns.conj().T @ columns - np.eye(columns.shape[1])).max() <= ISOMETRY)


def _center(graph: Graph, arrows: Iterable[tuple[int, int]]) -> int | None:
    """The node of a tree that all arrows lead to; the first if there are several."""
    known, joined = set(arrows), neighbours(graph)
    if len(graph.nodes) < 2 or len(graph.bonds) != len(graph.nodes) - 1:
        return None
    return next((k for k in range(len(graph.nodes)) if _leads(k, known, joined)), None)


def _leads(center: int, arrows: set[tuple[int, int]], joined: Sequence[Mapping[int, Sequence[int]]]) -> bool:
    """Whether all nodes are reached from ``center`` against the arrows."""
    reached, pending = {center}, [center]
    while pending:
        node = pending.pop()
        for other, (bond, *_) in joined[node].items():
            if other not in reached and (other, bond) in arrows:
                reached.add(other)
                pending.append(other)
    return len(reached) == len(joined)
