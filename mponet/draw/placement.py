"""Places of the tensors of a network.

Chains and rings in rows, all other graphs in columns by distance.

Equal graphs have equal places: between equally good places the node that is listed first decides.
"""

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from mponet.draw.graph import Graph, neighbours, upward
from mponet.operators.nodes import LEG

#: Rounds of sorting columns by their neighbours; trees need none.
ROUNDS = 8
Joined = Sequence[Mapping[int, Sequence[int]]]
Column = list[int]
Band = list[Column]


@dataclass(frozen=True, slots=True)
class Placement:
    """Places of the nodes.

    Attributes:
        bands: rows of columns of nodes, from top to bottom, left to right, top to bottom.
        hub: a node that is joined to all others, drawn as a bar below them; None without one.
    """

    bands: tuple[tuple[tuple[int, ...], ...], ...]
    hub: int | None = None

    @property
    def places(self) -> dict[int, tuple[int, int, int]]:
        """Band, column in the band and row in the column of each node but the hub."""
        return {
            node: (b, c, r)
            for b, band in enumerate(self.bands)
            for c, column in enumerate(band)
            for r, node in enumerate(column)
        }


def place_nodes(graph: Graph, per_row: int) -> Placement:
    """Places for all nodes.

    A chain is in rows of at most ``per_row`` nodes; a ring in one row, or in two, the second from
    right to left.  A node joined to every node of a chain, as the input of an operator is, becomes
    a bar below.  Anything else starts at the node from which its columns have the fewest crossings.

    Args:
        graph: the network.
        per_row: nodes of a chain in a row.
    """
    joined = neighbours(graph)
    hub = _hub(graph, joined, per_row)
    if hub is not None:
        chain = _path(_without(joined, hub), [k for k in range(len(graph.nodes)) if k != hub], graph)
        assert chain is not None
        return Placement((tuple((node,) for node in chain),), hub)
    parts = _components(joined)
    rows = [_path(joined, part, graph) or _ring(joined, part, graph) for part in parts]
    paths = [row for row in rows if row is not None]
    if len(paths) == len(rows) and not any(_is_ring(joined, row) for row in paths):
        rows = [[node for row in sorted(paths, key=lambda row: _key(graph, row[0])) for node in row]]
    bands: list[Band] = []
    for part, row in zip(parts, rows, strict=False):
        if row is None:
            bands.append([list(column) for column in _columns(graph, tuple(part))])
        else:
            bands += _folded(row, per_row) if _is_ring(joined, row) else _wrapped(row, per_row)
    return Placement(tuple(tuple(tuple(column) for column in band) for band in bands))


def crossings(band: Sequence[Sequence[int]], joined: Joined) -> int:
    """Number of pairs of bonds between neighbouring columns that cross."""
    return sum(_crossings(left, right, joined) for left, right in pairwise(band))


def _wrapped(row: Sequence[int], per_row: int) -> list[Band]:
    """A row, broken into rows of nearly equal length."""
    count = -(-len(row) // max(per_row, 1))
    ends = [-(-len(row) * k // count) for k in range(count + 1)]
    return [[[node] for node in row[a:b]] for a, b in pairwise(ends)]


def _folded(row: Sequence[int], per_row: int) -> list[Band]:
    """A ring as one row, or as two of which the second runs back."""
    if len(row) <= per_row:
        return _wrapped(row, per_row)
    half = -(-len(row) // 2)
    return [[[node] for node in row[:half]], [[node] for node in row[: half - 1 : -1]]]


def _key(graph: Graph, node: int) -> tuple[int, int]:
    """Sort key: the smallest number of the legs of a site, or the index of the node."""
    numbers = [
        int(match[2])
        for k in graph.nodes[node].edges
        if len(graph.edges[k].ends) == 1 and (match := LEG.fullmatch(graph.edges[k].name))
    ]
    return min(numbers, default=node), node


def _hub(graph: Graph, joined: Joined, per_row: int) -> int | None:
    """The node that is joined once to every node of a chain of at least two that fits a row."""
    count = len(graph.nodes)
    if not 3 <= count <= per_row + 1:
        return None
    for node in range(count):
        single = len(joined[node]) == count - 1 and all(len(bonds) == 1 for bonds in joined[node].values())
        others = [k for k in range(count) if k != node]
        if single and _path(_without(joined, node), others, graph) is not None:
            return node
    return None


def _without(joined: Joined, node: int) -> list[dict[int, Sequence[int]]]:
    return [{other: bonds for other, bonds in others.items() if other != node} for others in joined]


def _components(joined: Joined) -> list[list[int]]:
    """The connected parts, each with its nodes in the order in which they are reached."""
    seen: set[int] = set()
    parts = []
    for start in range(len(joined)):
        if start not in seen:
            part = [node for layer in _layers(joined, start) for node in layer]
            seen.update(part)
            parts.append(part)
    return parts


def _layers(joined: Joined, root: int) -> list[list[int]]:
    """Nodes by their distance from ``root``."""
    seen, layers = {root}, [[root]]
    while layers[-1]:
        reached = []
        for node in layers[-1]:
            for other in joined[node]:
                if other not in seen:
                    seen.add(other)
                    reached.append(other)
        layers.append(reached)
    return layers[:-1]


def _path(joined: Joined, part: Sequence[int], graph: Graph) -> list[int] | None:
    """The nodes of a chain in order, or None if the part is not a chain."""
    ends = [node for node in part if len(joined[node]) <= 1]
    if len(part) == 1:
        return list(part)
    if len(ends) != 2 or any(len(joined[node]) > 2 for node in part):
        return None
    return _walk(joined, min(ends, key=lambda node: _key(graph, node)), None, len(part))


def _ring(joined: Joined, part: Sequence[int], graph: Graph) -> list[int] | None:
    """The nodes of a ring in order, or None if the part is not a ring."""
    if len(part) < 3 or any(len(joined[node]) != 2 for node in part):
        return None
    start = min(part, key=lambda node: _key(graph, node))
    return _walk(joined, start, max(joined[start], key=lambda node: _key(graph, node)), len(part))


def _is_ring(joined: Joined, row: Sequence[int]) -> bool:
    return len(row) > 2 and row[-1] in joined[row[0]]


def _walk(joined: Joined, start: int, before: int | None, count: int) -> list[int] | None:
    """``count`` nodes from ``start`` on, without turning back."""
    walked, node = [start], start
    while len(walked) < count:
        onward = [other for other in joined[node] if other != before]
        if not onward:
            return None
        before, node = node, onward[0]
        walked.append(node)
    return walked


@lru_cache(maxsize=32)  # a page tries several widths, which change nothing here
def _columns(graph: Graph, part: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Columns by distance from the root with the fewest crossings, then the smallest height."""
    joined = neighbours(graph)
    options = (
        _sorted(band, joined) for root in part for band in (_layers(joined, root), _two_sided(graph, joined, root))
    )
    best = min(options, key=lambda band: (crossings(band, joined), max(map(len, band)), _inside(band, joined)))
    return tuple(map(tuple, best))


def _two_sided(graph: Graph, joined: Joined, root: int) -> Band:
    """Columns on both sides of a node.

    Parts that have only inputs to the left, all others to the right.
    """
    inputs_only = (part for part in _components(_without(joined, root)) if root not in part and _takes(graph, part))
    left = {node for part in inputs_only for node in part}
    layers = _layers(joined, root)
    sides = ([[n for n in layer if (n in left) == before] for layer in layers[1:]] for before in (True, False))
    inputs, others = ([column for column in side if column] for side in sides)
    return [*inputs[::-1], [root], *others]


def _takes(graph: Graph, part: Sequence[int]) -> bool:
    """Whether a part of a network has inputs and no outputs."""
    legs = [graph.edges[k] for node in part for k in graph.nodes[node].edges if len(graph.edges[k].ends) == 1]
    return bool(legs) and not any(map(upward, legs))


def _inside(band: Band, joined: Joined) -> int:
    """Number of bonds within columns."""
    return sum(other in column for column in band for node in column for other in joined[node])


def _sorted(band: Band, joined: Joined) -> Band:
    """The columns in an order of few crossings.

    Sorted by the mean place of neighbours, in both directions.
    """
    best, least = band, crossings(band, joined)
    for turn in range(ROUNDS):
        if least == 0:
            break
        band = _swept(band, joined) if turn % 2 == 0 else _swept(band[::-1], joined)[::-1]
        if (count := crossings(band, joined)) < least:
            best, least = band, count
    return best


def _swept(band: Band, joined: Joined) -> Band:
    swept = [band[0]]
    for column in band[1:]:
        places = {node: row for row, node in enumerate(swept[-1])}
        swept.append(sorted(column, key=lambda node: _mean(places, joined[node])))
    return swept


def _mean(places: Mapping[int, int], others: Iterable[int]) -> float:
    rows = [places[node] for node in others if node in places]
    return sum(rows) / len(rows) if rows else 0.0


def _crossings(left: Sequence[int], right: Sequence[int], joined: Joined) -> int:
    place = {node: row for row, node in enumerate(right)}
    lines = sorted((row, place[other]) for row, node in enumerate(left) for other in joined[node] if other in place)
    seen: list[int] = []
    crossed = 0
    for _, end in lines:
        crossed += len(seen) - bisect_right(seen, end)  # lines that start above and end below
        insort(seen, end)
    return crossed
