"""The integers of any tensor network that is a layer.

Nodes, the edges that join them, dangling legs.

A matrix product operator has `mponet.operators.shape.MPOShape`; a `NetworkShape` is the same for a
ring, a tree, a Tucker form, or whatever else has the legs ``in1 .. inN`` and ``out1 .. outM``.  The
network is the matrix ``W`` of ``inputs @ W``: legs in the order of their numbers, the first the
most significant, as everywhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from math import prod
from operator import index
from typing import Any

import numpy as np

from mponet.display import NotebookRepr
from mponet.errors import GraphError, ShapeError
from mponet.operators.arrays import Array, as_float64
from mponet.operators.axes import arranged, is_ring
from mponet.operators.nodes import LEG, Node, dangling, graph, is_copy


@dataclass(frozen=True)
class NetworkShape(NotebookRepr):
    """How the nodes of a tensor network are joined.

    Attributes:
        names: of the nodes, which are those of a layer's parameters.
        edges: for each node the names of its axes' edges, in order.  A name met twice is a bond,
            one met once is a leg and called ``in1, in2, ...`` or ``out1, out2, ...``.
        sizes: for each node the dimensions of its axes.
        copies: names of the nodes that are copy tensors: 1 where all indices are equal, else 0.
            They have no weights, and layers do not train them.

    Raises:
        GraphError: no legal layer: no node, a node's name that cannot name a parameter or is not
            its own, an edge of a node to itself or of more than two nodes, two dimensions on one
            edge, legs that are missing or called otherwise, a copy node with axes of several sizes.

    Example:
        >>> from mponet import NetworkShape
        >>> edges = (("in1", "rank"), ("rank", "out1"))
        >>> low_rank = NetworkShape(("down", "up"), edges, ((64, 4), (4, 32)))
        >>> print(low_rank)
        down(in1:64 rank:4), up(rank:4 out1:32)
        >>> low_rank.parameters, low_rank.dense_parameters
        (384, 2048)
    """

    names: tuple[str, ...]
    edges: tuple[tuple[str, ...], ...]
    sizes: tuple[tuple[int, ...], ...]
    copies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "copies", tuple(self.copies))
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "edges", tuple(map(tuple, self.edges)))
        object.__setattr__(self, "sizes", tuple(map(_whole, self.sizes)))
        _check_names(self.names)
        if not len(self.names) == len(self.edges) == len(self.sizes):
            raise GraphError(
                f"{len(self.names)} names, {len(self.edges)} tuples of edges and {len(self.sizes)} of sizes are given; "
                "expected one of each for every node"
            )
        for name, edges, sizes in zip(self.names, self.edges, self.sizes, strict=True):
            if len(edges) != len(sizes) or len(set(edges)) != len(edges):
                raise GraphError(
                    f"node {name!r} has the edges {edges} and the sizes {sizes}; expected one size for each edge and "
                    "no edge twice; a loop is to be traced first"
                )
        _check_edges(self)
        for name in self.copies:
            if name not in self.names or len(set(self.sizes[self.names.index(name)])) != 1:
                raise GraphError(f"copy node {name!r} is expected to be a node, all of whose axes have one size")

    @classmethod
    def from_edges(
        cls, nodes: Mapping[str, str | Sequence[str]], dims: Mapping[str, int], copies: Sequence[str] = ()
    ) -> "NetworkShape":
        """From the edges of each node and the dimension of each edge.

        The edges of a node are words, or one string of them.

        Raises:
            GraphError: no legal layer, or an edge without a dimension.

        Example:
            >>> from mponet import NetworkShape
            >>> dims = {"in1": 4, "in2": 4, "out1": 2, "left": 3, "right": 3}
            >>> nodes = {"a": "in1 out1 left right", "b": "left in2 right"}
            >>> ring = NetworkShape.from_edges(nodes, dims)
            >>> ring.in_features, ring.out_features, ring.bonds
            (16, 2, ('left', 'right'))
        """
        edges = tuple(tuple(own.split() if isinstance(own, str) else own) for own in nodes.values())
        missing = sorted({edge for own in edges for edge in own} - set(dims))
        if missing:
            raise GraphError(f"the edges {missing} have no dimension; expected one for each edge")
        return cls(tuple(nodes), edges, tuple(tuple(dims[edge] for edge in own) for own in edges), tuple(copies))

    @cached_property
    def dims(self) -> dict[str, int]:
        """Dimension of each edge, in the order in which the axes meet them."""
        pairs = zip(self.edges, self.sizes, strict=True)
        return {edge: size for edges, sizes in pairs for edge, size in zip(edges, sizes, strict=True)}

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """``("in1", ..., "inN")``."""
        return self._legs("in")

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """``("out1", ..., "outM")``."""
        return self._legs("out")

    @cached_property
    def bonds(self) -> tuple[str, ...]:
        """The edges that join two nodes."""
        return tuple(edge for edge in self.dims if edge not in {*self.inputs, *self.outputs})

    @property
    def input_dims(self) -> tuple[int, ...]:
        """Dimensions of the input legs; their product is the number of inputs."""
        return tuple(self.dims[leg] for leg in self.inputs)

    @property
    def output_dims(self) -> tuple[int, ...]:
        """Dimensions of the output legs; their product is the number of outputs."""
        return tuple(self.dims[leg] for leg in self.outputs)

    @cached_property
    def in_features(self) -> int:
        """Length of an input vector."""
        return prod(self.input_dims)

    @cached_property
    def out_features(self) -> int:
        """Length of an output vector."""
        return prod(self.output_dims)

    @property
    def parameters(self) -> int:
        """Number of entries of all nodes but the copy nodes."""
        nodes = zip(self.names, self.sizes, strict=True)
        return sum(prod(sizes) for name, sizes in nodes if name not in self.copies)

    @property
    def dense_parameters(self) -> int:
        """Number of entries of the full matrix."""
        return self.in_features * self.out_features

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type["NetworkShape"], tuple[Any, ...]]:
        # without the hash: that of a string is another in every process
        return NetworkShape, (self.names, self.edges, self.sizes, self.copies)

    @cached_property
    def _hash(self) -> int:
        # plans are looked up by it at every call
        return hash((self.names, self.edges, self.sizes, self.copies))

    def __str__(self) -> str:
        """``a(in1:2 out1:3 x:4), b(...)``: the nodes and their axes."""
        return ", ".join(
            f"{name}({' '.join(f'{edge}:{size}' for edge, size in zip(edges, sizes, strict=True))})"
            for name, edges, sizes in zip(self.names, self.edges, self.sizes, strict=True)
        )

    def _legs(self, kind: str) -> tuple[str, ...]:
        found = (match for match in map(LEG.fullmatch, self.dims) if match and match[1] == kind)
        return tuple(match[0] for match in sorted(found, key=lambda match: int(match[2])))


def from_nodes(nodes: Sequence[Node]) -> tuple[NetworkShape, tuple[Array, ...]]:
    """The wiring of TensorNetwork nodes and their tensors, float64 copies.

    Nodes without a name become ``node1 ..`` and bonds without one ``bond1 ..``, numbered as they
    are met.

    Raises:
        GraphError: no legal layer.
    """
    legs = dangling(nodes)
    if "batch" in legs:
        raise GraphError("the graph has the dangling edge 'batch'; expected a bare operator; leave the input node out")
    bonds = {id(edge): edge for node in nodes for edge in node.edges if not edge.is_dangling()}
    given = [str(edge.name) for edge in bonds.values()]
    spare = (name for name in (f"bond{k}" for k in count(1)) if name not in given)
    called = {key: str(edge.name) if _is_own(str(edge.name), given) else next(spare) for key, edge in bonds.items()} | {
        id(edge): name for name, edge in legs.items()
    }
    tensors = tuple(np.array(as_float64(np.asarray(node.tensor), f"node {node.name!r}")) for node in nodes)
    edges = tuple(tuple(called[id(edge)] for edge in node.edges) for node in nodes)
    names = tuple(_node_names(nodes))
    copies = tuple(name for name, node in zip(names, nodes, strict=True) if is_copy(node))
    return NetworkShape(names, edges, tuple(tensor.shape for tensor in tensors), copies), tensors


def copy_tensor(sizes: Sequence[int]) -> Array:
    """1 where all indices are equal, else 0.

    Example:
        >>> from mponet.operators.topology import copy_tensor
        >>> copy_tensor((2, 2)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    tensor = np.zeros(sizes)
    tensor[(np.arange(sizes[0]),) * len(sizes)] = 1.0
    return tensor


def from_ring(
    cores: Sequence[Any], axes: str | Sequence[str] = "left input output right"
) -> tuple[NetworkShape, tuple[Array, ...]]:
    """The network of a periodic chain, and its tensors; ``NetworkLinear`` takes both.

    Args:
        cores: one array per site, at least two, of any framework.
        axes: the names of the axes in the order in which the cores have them.

    Raises:
        ShapeError: a core has other axes, or neighbouring bonds differ.
        GraphError: there is one core only.
        InputError: a core holds complex or non-finite numbers.

    Example:
        >>> import numpy as np
        >>> from mponet.operators.topology import from_ring
        >>> shape, tensors = from_ring([np.ones((3, 2, 2, 3))] * 2)
        >>> print(shape)
        core1(bond2:3 in1:2 out1:2 bond1:3), core2(bond1:3 in2:2 out2:2 bond2:3)
    """
    tensors = tuple(arranged(cores, axes))
    sizes = [tensor.shape for tensor in tensors]
    if not is_ring(sizes):
        raise ShapeError(
            f"cores have the shapes {sizes} as (left, input, output, right); expected equal neighbouring bonds, the "
            "last and the first included"
        )
    sites = range(1, len(tensors) + 1)
    edges = tuple((f"bond{k - 1 or len(tensors)}", f"in{k}", f"out{k}", f"bond{k}") for k in sites)
    return NetworkShape(tuple(f"core{k}" for k in sites), edges, tuple(sizes)), tensors


def to_nodes(wiring: NetworkShape, tensors: Sequence[Any]) -> tuple[Node, ...]:
    """TensorNetwork nodes with these tensors, float64 numpy, in the order of the wiring.

    Axes have their edges' names.

    Raises:
        ShapeError: the tensors are not those of the wiring.
    """
    return graph(wiring.names, wiring.edges, check_tensors(wiring, tensors), wiring.copies)


def check_tensors(wiring: NetworkShape, tensors: Sequence[Any]) -> tuple[Array, ...]:
    """The tensors as float64 arrays, one for each node.

    Raises:
        ShapeError: there are more or fewer, or one has another shape.
        GraphError: the tensor of a copy node is none.
    """
    if len(tensors) != len(wiring.names):
        raise ShapeError(f"{len(tensors)} tensors are given; expected {len(wiring.names)}: {', '.join(wiring.names)}")
    found = tuple(as_float64(tensor, name) for name, tensor in zip(wiring.names, tensors, strict=True))
    for name, sizes, tensor in zip(wiring.names, wiring.sizes, found, strict=True):
        if tensor.shape != sizes:
            raise ShapeError(f"node {name!r} has the shape {tensor.shape}; expected {sizes}")
        if name in wiring.copies and not np.array_equal(tensor, copy_tensor(sizes)):
            raise GraphError(f"node {name!r} is a copy node; expected 1 where all indices are equal, else 0")
    return found


def _is_own(name: str, given: Sequence[str]) -> bool:
    """Whether a bond keeps its name: it has one, no other node has it, and it is not a leg's."""
    return not name.startswith("__") and given.count(name) == 1 and LEG.fullmatch(name) is None


def _node_names(nodes: Sequence[Node]) -> Iterator[str]:
    """The nodes' names, and for those without one a number."""
    given = {str(node.name) for node in nodes}
    spare = (name for name in (f"node{k}" for k in count(1)) if name not in given)
    for node in nodes:
        yield next(spare) if str(node.name).startswith("__") else str(node.name)


def _check_names(names: tuple[str, ...]) -> None:
    if not names:
        raise GraphError("the graph has no nodes; expected at least one")
    for name in names:
        if not name.isidentifier() or name.startswith("_") or name == "bias":
            raise GraphError(
                f"a node is called {name!r}; expected a name for a parameter: letters, digits and underscores, a "
                "letter first, and not 'bias'; rename it with node.set_name"
            )
        if names.count(name) > 1:
            raise GraphError(f"{names.count(name)} nodes are called {name!r}; expected names that differ")


def _check_edges(wiring: NetworkShape) -> None:
    """Check that every edge joins two nodes or is a leg, by one dimension.

    Legs must be numbered without a gap.
    """
    ends: dict[str, list[int]] = {}
    for edges, sizes in zip(wiring.edges, wiring.sizes, strict=True):
        for edge, size in zip(edges, sizes, strict=True):
            ends.setdefault(edge, []).append(size)
    for edge, found in ends.items():
        if len(found) > 2 or len(set(found)) > 1:
            raise GraphError(f"edge {edge!r} has ends of the sizes {found}; expected two at most, of one size")
        if (len(found) == 1) != (LEG.fullmatch(edge) is not None):
            raise GraphError(
                f"edge {edge!r} has {len(found)} ends; expected two of a bond and one of a leg, which is called 'in1', "
                "'in2', ... or 'out1', 'out2', ..."
            )
    for kind in ("in", "out"):
        legs = wiring._legs(kind)
        if not legs or legs != tuple(f"{kind}{k}" for k in range(1, len(legs) + 1)):
            raise GraphError(
                f"the {kind} legs are {list(legs)}; expected {kind}1, {kind}2, ... without a gap, one at least"
            )


def _whole(sizes: Sequence[int]) -> tuple[int, ...]:
    try:
        whole = tuple(index(size) for size in sizes)
    except TypeError as error:
        raise GraphError(f"a node has the sizes {sizes!r}; expected whole numbers") from error
    if any(size < 1 for size in whole):
        raise GraphError(f"a node has the sizes {whole}; expected whole numbers of at least 1")
    return whole
