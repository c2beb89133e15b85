"""The side of a box at which each edge leaves, and the route of each bond."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mponet.draw.graph import Edge, Graph, upward
from mponet.draw.placement import Placement


@dataclass(frozen=True, slots=True)
class Ports:
    """Edges at the four sides of a box, from left to right and from top to bottom."""

    up: tuple[int, ...] = ()
    down: tuple[int, ...] = ()
    left: tuple[int, ...] = ()
    right: tuple[int, ...] = ()

    def sorted(self, key: Callable[[int], float]) -> "Ports":
        """These ports with the edges at the left and at the right sorted by a key."""
        return replace(self, left=tuple(sorted(self.left, key=key)), right=tuple(sorted(self.right, key=key)))


@dataclass(frozen=True, slots=True)
class Routing:
    """The sides and routes of all edges.

    Attributes:
        ports: ports of each node.
        around: bonds that leave to the right, pass below the row and come back from the left.
        same_end: bonds between the same ends of two rows.
        same_column: bonds between nodes of one column.
    """

    ports: tuple[Ports, ...]
    around: tuple[int, ...]
    same_end: tuple[int, ...]
    same_column: tuple[int, ...]


def route_edges(graph: Graph, placement: Placement) -> Routing:
    """The routing of a network whose nodes have their places."""
    ends: list[tuple[int, str, int]] = []  # node, side, edge
    ways: dict[str, list[int]] = {"around": [], "same_end": [], "same_column": [], "": []}
    places = placement.places
    for k, edge in enumerate(graph.edges):
        if len(edge.ends) == 1:
            ends.append((edge.ends[0], "up" if upward(edge) else "down", k))
        elif placement.hub is not None and placement.hub in edge.ends:
            ends.append((graph.other(placement.hub, k), "down", k))
        else:
            way, sides = _bond(edge, placement, places)
            ways[way].append(k)
            ends += [(node, side, k) for node, side in sides]
    at: dict[tuple[int, str], tuple[int, ...]] = {}
    for node, side, k in ends:
        at[node, side] = (*at.get((node, side), ()), k)
    names = ("up", "down", "left", "right")
    ports = tuple(Ports(*(at.get((node, side), ()) for side in names)) for node in range(len(graph.nodes)))
    return Routing(ports, tuple(ways["around"]), tuple(ways["same_end"]), tuple(ways["same_column"]))


def _bond(
    edge: Edge, placement: Placement, places: Mapping[int, tuple[int, int, int]]
) -> tuple[str, tuple[tuple[int, str], tuple[int, str]]]:
    """The route of a bond, and the sides of its two nodes."""
    first, second = sorted(edge.ends, key=places.__getitem__)
    (band1, column1, _), (band2, column2, _) = places[first], places[second]
    if band1 == band2 and column1 == column2:
        return "same_column", ((first, "right"), (second, "right"))
    if band1 == band2 and column2 - column1 == 1:
        return "", ((first, "right"), (second, "left"))
    end = _end(placement, band1, column1)
    if band1 != band2 and end and end == _end(placement, band2, column2):
        return "same_end", ((first, end), (second, end))
    # out of one row and into the next, or out of the end of a ring and into its start
    out, into = (second, first) if band1 == band2 else (first, second)
    return "around", ((out, "right"), (into, "left"))


def _end(placement: Placement, band: int, column: int) -> str:
    """The end of its row that a column is.

    Empty for columns in the middle and for a single column.
    """
    last = len(placement.bands[band]) - 1
    return "" if last == 0 or 0 < column < last else "right" if column else "left"
