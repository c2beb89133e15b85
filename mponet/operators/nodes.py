"""MPO <-> TensorNetwork node graph with named axes and edges.

The graph is the definition of the layer.  ``network(mpo)`` has the nodes ``core1 .. coreN`` with
axes among ``left, input, output, right``; its dangling edges are ``in1 .. inN`` and ``out1 ..
outN``, its inner edges ``bond1 .. bond(N-1)``.  The boundary bonds have dimension 1 and are no
edges.  ``apply(mpo, x)`` puts an ``input`` node in front whose free edge is ``batch``.

TensorNetwork 0.4.6 orders sets by ``id`` in its contractors, so their results differ from run to
run; `contract` follows a fixed path instead.  Contracting consumes nodes: build the graph again for
every use.  TensorNetwork is imported on first use, it costs a second.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mponet.errors import GraphError, ShapeError
from mponet.operators.arrays import Array, as_float64
from mponet.operators.mpo import MPO

Node = Any  # tensornetwork.Node; the package has no type information
LEG = re.compile(r"(in|out)([1-9][0-9]*)")
ELSE = "; a layer of any graph is NetworkLinear.from_nodes(nodes), in Keras NetworkDense"


def network(mpo: MPO) -> tuple[Node, ...]:
    """The node graph of an operator, float64 numpy tensors, one node per site."""
    import tensornetwork as tn

    nodes = []
    for k, core in enumerate(mpo.cores, start=1):
        first, last = k == 1, k == mpo.shape.sites
        axes = [*([] if first else ["left"]), "input", "output", *([] if last else ["right"])]
        tensor = core[(0 if first else slice(None), slice(None), slice(None), 0 if last else slice(None))]
        node = tn.Node(np.array(tensor), name=f"core{k}", axis_names=axes, backend="numpy")
        node["input"].set_name(f"in{k}")
        node["output"].set_name(f"out{k}")
        nodes.append(node)
    for k, (node, following) in enumerate(pairwise(nodes), start=1):
        tn.connect(node["right"], following["left"], name=f"bond{k}")
    return tuple(nodes)


def apply(mpo: MPO, inputs: ArrayLike) -> tuple[Node, ...]:
    """The graph of ``inputs @ W``.

    An ``input`` node with the edges ``batch, in1 .. inN``, then the cores.

    Args:
        mpo: the operator.
        inputs: ``(batch, in_features)``.

    Raises:
        ShapeError: the inputs have another width.
    """
    import tensornetwork as tn

    x = as_float64(inputs, "inputs")
    if x.ndim != 2 or x.shape[1] != mpo.shape.in_features:
        raise ShapeError(f"inputs have the shape {x.shape}; expected (batch, {mpo.shape.in_features}) for {mpo.shape}")
    axes = ["batch", *(f"in{k + 1}" for k in range(mpo.shape.sites))]
    source = tn.Node(
        np.array(x.reshape(-1, *mpo.shape.input_dims)),
        name="input",
        axis_names=axes,
        backend="numpy",
    )
    source["batch"].set_name("batch")
    cores = network(mpo)
    for axis, core in zip(axes[1:], cores, strict=True):
        tn.connect(source[axis], core["input"], name=axis)
    return (source, *cores)


def contract(nodes: Sequence[Node]) -> Array:
    """Contract a graph along a fixed path: the nodes in the given order, one after the other.

    Bitwise the same for every rebuild of the same graph.  Consumes the nodes.

    Returns:
        The tensor with the axes ``batch`` (if there is one), ``in1 ..``, ``out1 ..`` in this order.

    Raises:
        GraphError: a dangling edge is none of these.
    """
    import tensornetwork as tn

    edges = dangling(nodes)
    result, *others = nodes
    for node in others:
        result = tn.contract_between(result, node, allow_outer_product=True)
    return np.asarray(result.reorder_edges([edges[name] for name in sorted(edges, key=_leg_order)]).tensor)


def reference(mpo: MPO, inputs: ArrayLike) -> Array:
    """``inputs @ W`` through the node graph, ``(batch, out_features)``.

    What every faster way is compared with.
    """
    return contract(apply(mpo, inputs)).reshape(-1, mpo.shape.out_features)


def from_network(nodes: Sequence[Node]) -> MPO:
    """Read an MPO off a graph: a chain of nodes in any order, named edges as `network` makes them.

    Several edges between two neighbours count as one bond; a missing one as a bond of dimension 1.

    Raises:
        GraphError: the graph is not a chain with one ``in`` and one ``out`` edge on every site.
    """
    edges = dangling(nodes)
    if "batch" in edges:
        raise GraphError("the graph has the dangling edge 'batch'; expected a bare operator; leave the input node out")
    chain = _sites(nodes, edges)
    place = {id(node): k for k, node in enumerate(chain)}
    return MPO.from_cores([_core(node, k, place) for k, node in enumerate(chain)])


def is_copy(node: Node) -> bool:
    """Whether a node is TensorNetwork's ``CopyNode``."""
    import tensornetwork as tn

    return isinstance(node, tn.CopyNode)


def graph(
    names: Sequence[str], edges: Sequence[Sequence[str]], tensors: Sequence[Array], copies: Sequence[str] = ()
) -> tuple[Node, ...]:
    """The nodes of any graph, float64 numpy tensors: axes whose edges have one name are joined.

    Args:
        names: of the nodes.
        edges: for each node the names of its axes' edges, which become those of the axes, too.
        tensors: one for each node.
        copies: names of those that become copy nodes.
    """
    import tensornetwork as tn

    nodes = []
    ends: dict[str, Node] = {}
    for name, axes, tensor in zip(names, edges, tensors, strict=True):
        options = {"name": name, "axis_names": list(axes), "backend": "numpy"}
        if name in copies:
            node = tn.CopyNode(tensor.ndim, tensor.shape[0], dtype=np.float64, **options)
        else:
            node = tn.Node(np.array(tensor), **options)
        for axis in axes:
            if axis in ends:
                tn.connect(ends[axis][axis], node[axis], name=axis)
            else:
                node[axis].set_name(axis)
                ends[axis] = node
        nodes.append(node)
    return tuple(nodes)


def dangling(nodes: Sequence[Node]) -> dict[str, Any]:
    """The dangling edges by name.

    Raises:
        GraphError: there are no nodes, one has an edge to itself or to a node that was not given,
            or a dangling edge is not called ``batch``, ``in1, in2, ...`` or ``out1, out2, ...``, or
            shares its name.
    """
    if not nodes:
        raise GraphError("the graph has no nodes; expected at least one")
    found: dict[str, Any] = {}
    for node in nodes:
        for edge in node.edges:
            if edge.is_trace():
                raise GraphError(f"node {node.name!r} has edge {edge.name!r} to itself; expected no loops")
            if not edge.is_dangling():
                if not {id(edge.node1), id(edge.node2)} <= {id(n) for n in nodes}:
                    raise GraphError(
                        f"edge {edge.name!r} of node {node.name!r} leads to a node that was not given; pass all"
                    )
            elif edge.name in found or not (edge.name == "batch" or LEG.fullmatch(edge.name)):
                raise GraphError(
                    f"node {node.name!r} has the dangling edge {edge.name!r}; expected 'in1', 'in2', ... and 'out1', "
                    "'out2', ..., each once; name it with edge.set_name"
                )
            else:
                found[edge.name] = edge
    return found


def _sites(nodes: Sequence[Node], edges: dict[str, Any]) -> list[Node]:
    """The nodes in site order; every site has one input and one output leg."""
    sites = len(nodes)
    expected = {f"{kind}{k + 1}" for kind in ("in", "out") for k in range(sites)}
    if set(edges) != expected:
        odd = sorted(set(edges) ^ expected, key=_leg_order)
        raise GraphError(
            f"the graph has {sites} nodes and the dangling edges {sorted(edges, key=_leg_order)}; expected "
            f"in1..in{sites} and out1..out{sites}, one pair on every node; too many or missing: {odd}{ELSE}"
        )
    chain = []
    for k in range(1, sites + 1):
        node, other = edges[f"in{k}"].node1, edges[f"out{k}"].node1
        if node is not other:
            raise GraphError(
                f"in{k} is on node {node.name!r} and out{k} on {other.name!r}; expected both on one node{ELSE}"
            )
        chain.append(node)
    if len({id(node) for node in chain}) != sites:
        raise GraphError(
            f"the legs are on the nodes {[node.name for node in chain]} only; expected one in and one out edge on each "
            f"of the {sites} nodes{ELSE}"
        )
    return chain


def _core(node: Node, k: int, place: dict[int, int]) -> Array:
    """The tensor of site ``k`` with its axes in the order (left, input, output, right)."""
    groups: dict[str, list[tuple[int, int]]] = {"left": [], "input": [], "output": [], "right": []}
    for axis, edge in enumerate(node.edges):
        if edge.is_dangling():
            groups["input" if edge.name.startswith("in") else "output"].append((0, axis))
            continue
        ends = {place[id(edge.node1)]: edge.axis1, place[id(edge.node2)]: edge.axis2}
        first, second = sorted(ends)
        if second - first != 1:
            raise GraphError(
                f"edge {edge.name!r} joins sites {first + 1} and {second + 1}; expected bonds between neighbours only: "
                f"a ring or a tree is no MPO{ELSE}"
            )
        # both ends must fuse parallel edges in the same order: that of the axes of the left one
        groups["right" if first == k else "left"].append((ends[first], axis))
    order = [[axis for _, axis in sorted(side)] for side in groups.values()]
    tensor = as_float64(np.asarray(node.tensor), f"node {node.name!r}")
    sizes = [prod(tensor.shape[axis] for axis in side) for side in order]
    return tensor.transpose([axis for side in order for axis in side]).reshape(sizes)


def _leg_order(name: str) -> tuple[int, int]:
    match = LEG.fullmatch(name)
    return (0, 0) if match is None else (1 if match[1] == "in" else 2, int(match[2]))
