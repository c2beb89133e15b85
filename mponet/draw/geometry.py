"""Positions of all parts of a diagram: boxes of tensors, legs, bonds and labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from mponet.draw.graph import Edge, Graph, upward
from mponet.draw.placement import Placement, place_nodes
from mponet.draw.ports import Ports, Routing, route_edges
from mponet.draw.spacing import GAP, HEIGHT, LEG, PORT, Spacing

Point = tuple[float, float]
#: Position of a label: above a leg, below a leg, around a horizontal bond, or in the middle of any
#: other line.
Placing = Literal["above", "below", "around", "within"]

CHANNEL = 46.0  # space for a bond that passes below a row
MARGIN = 14.0
TURN = 76.0  # space for a bond between the same ends of two rows, with its label
AROUND = 18.0  # distance from the boxes of a bond that goes around
SPACE = 18.0  # between two rows
#: Nodes of a chain in one row, for about a thousand pixels.
PER_ROW = 8


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, given by its centre and its size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Wire:
    """An edge.

    Attributes:
        points: points from the first end to the second, or to the free end.
        label: position of the label.
        placing: placing of the label.
        curved: whether the points define a Bézier curve instead of corners.
    """

    points: tuple[Point, ...]
    label: Point
    placing: Placing
    curved: bool = False


@dataclass(frozen=True, slots=True)
class Geometry:
    """A diagram with its upper left corner at (0, 0).

    Attributes:
        width: width of the diagram.
        height: height of the diagram.
        boxes: boxes of the nodes, in their order.
        wires: wires of the edges, in their order.
    """

    width: float
    height: float
    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """A band of columns with its boxes, and the levels at which it and the bonds below it end."""

    boxes: dict[int, Box]
    right: float
    floor: float
    end: float


@dataclass(frozen=True, slots=True)
class _Placed:
    """What the positions of wires depend on."""

    graph: Graph
    places: Placement
    routing: Routing
    spacing: Spacing
    boxes: dict[int, Box]
    floors: tuple[float, ...]


def compute_geometry(graph: Graph, per_row: int = PER_ROW, gap: float = GAP) -> Geometry:
    """Positions for a network.

    Args:
        graph: the network.
        per_row: nodes of a chain in one row.
        gap: smallest distance between neighbours, for the labels of their bonds.
    """
    places = place_nodes(graph, per_row)
    routing = route_edges(graph, places)
    spacing = Spacing(graph, routing, gap)
    left = MARGIN + (AROUND * (len(routing.around) + 1) if routing.around else 0.0) + TURN * bool(routing.same_end)
    rows: list[_Row] = []
    for b in range(len(places.bands)):
        rows.append(_row(spacing, places, b, left, rows[-1].end if rows else MARGIN))
    boxes = {node: box for row in rows for node, box in row.boxes.items()}
    width, height = max(row.right for row in rows), rows[-1].end
    if places.hub is not None:
        boxes[places.hub] = _hub(spacing, places.hub, left, width, height)
        width = left + boxes[places.hub].width
        height = boxes[places.hub].y + HEIGHT / 2 + spacing.under(places.hub) + SPACE
    placed = _Placed(graph, places, _ordered(graph, routing, boxes), spacing, boxes, tuple(row.floor for row in rows))
    return Geometry(
        width + MARGIN + AROUND * bool(routing.around) + TURN * bool(routing.same_end),
        height + MARGIN - SPACE,
        tuple(boxes[k] for k in range(len(graph.nodes))),
        tuple(_wire(placed, k, edge) for k, edge in enumerate(graph.edges)),
    )


# ---------------------------------------------------------------- boxes


def _row(spacing: Spacing, places: Placement, b: int, left: float, top: float) -> _Row:
    """The boxes of one band, from ``left`` and ``top`` on."""
    columns = places.bands[b]
    level = all(len(column) == 1 for column in columns)
    heights = [sum(map(spacing.over, c)) + _stacked(spacing, c) + sum(map(spacing.under, c)) for c in columns]
    over = max(spacing.over(node) for column in columns for node in column)
    tallest = max(spacing.size(node)[1] for column in columns for node in column)
    under = max(spacing.under(node) for column in columns for node in column)
    # all boxes of a row at one level, so that its bonds are straight
    total = over + tallest + under if level else max(heights)
    boxes: dict[int, Box] = {}
    x = left
    for c, column in enumerate(columns):
        width = max(spacing.size(node)[0] for node in column)
        if level:
            boxes[column[0]] = Box(x + width / 2, top + over + tallest / 2, *spacing.size(column[0]))
        else:
            boxes |= _column(spacing, column, x + width / 2, top + (total - heights[c]) / 2)
        x += width + spacing.after_column(columns, c)
    floor = top + total
    leaving = [k for k in spacing.routing.around if places.places[_out_of(spacing.graph, spacing.routing, k)][0] == b]
    return _Row(boxes, x, floor, floor + CHANNEL * len(leaving) + SPACE)


def _stacked(spacing: Spacing, column: Sequence[int]) -> float:
    """Height of the boxes of a column with the spaces between them."""
    return sum(spacing.size(node)[1] for node in column) + SPACE * (len(column) - 1)


def _column(spacing: Spacing, column: Sequence[int], x: float, y: float) -> dict[int, Box]:
    """The boxes of one column, from ``y`` on downwards."""
    boxes = {}
    for node in column:
        width, height = spacing.size(node)
        y += spacing.over(node)
        boxes[node] = Box(x, y + height / 2, width, height)
        y += height + spacing.under(node) + SPACE
    return boxes


def _hub(spacing: Spacing, hub: int, left: float, width: float, height: float) -> Box:
    """The hub, a bar below the chain that it is joined to."""
    length = max(width - left, spacing.size(hub)[0])
    return Box(left + length / 2, height - SPACE + 4 + HEIGHT / 2, length, HEIGHT)


# ---------------------------------------------------------------- lines


def _ordered(graph: Graph, routing: Routing, boxes: dict[int, Box]) -> Routing:
    """The routing with bonds sorted by the height of their other ends.

    So they do not cross.
    """

    def ordered(node: int, ports: Ports) -> Ports:
        return ports.sorted(lambda k: inf if k in routing.around else boxes[graph.other(node, k)].y)

    return replace(routing, ports=tuple(ordered(node, ports) for node, ports in enumerate(routing.ports)))


def _out_of(graph: Graph, routing: Routing, k: int) -> int:
    """The end at which a bond that goes around leaves to the right."""
    first, second = graph.edges[k].ends
    return first if k in routing.ports[first].right else second


def _port(placed: _Placed, node: int, k: int, side: Literal["left", "right"]) -> Point:
    """Where a bond meets a side of a box."""
    box, ports = placed.boxes[node], placed.routing.ports[node]
    edges = ports.left if side == "left" else ports.right
    y = box.y + PORT * (edges.index(k) - (len(edges) - 1) / 2)
    return box.x + (box.width / 2 if side == "right" else -box.width / 2), y


def _wire(placed: _Placed, k: int, edge: Edge) -> Wire:
    if len(edge.ends) == 1:
        return _leg(placed, k, edge.ends[0], up=upward(edge))
    if placed.places.hub is not None and placed.places.hub in edge.ends:
        return _hanging(placed, k, placed.places.hub)
    if k in placed.routing.around:
        return _loop(placed, k)
    if k in placed.routing.same_end:
        return _turn(placed, k)
    if k in placed.routing.same_column:
        return _bulge(placed, k)
    return _onward(placed, k)


def _leg(placed: _Placed, k: int, node: int, *, up: bool) -> Wire:
    box, ports = placed.boxes[node], placed.routing.ports[node]
    legs = ports.up if up else ports.down
    x = box.x + placed.spacing.pitch(legs) * (legs.index(k) - (len(legs) - 1) / 2)
    start = box.y + (-box.height / 2 if up else box.height / 2)
    tip = start + (-LEG if up else LEG)
    return Wire(((x, start), (x, tip)), (x, tip), "above" if up else "below")


def _onward(placed: _Placed, k: int) -> Wire:
    """A bond to the next column."""
    first, second = placed.graph.edges[k].ends
    onward = k in placed.routing.ports[first].right
    start = _port(placed, first, k, "right" if onward else "left")
    end = _port(placed, second, k, "left" if onward else "right")
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    if abs(start[1] - end[1]) < 1:
        return Wire((start, end), middle, "around")
    return Wire((start, (middle[0], start[1]), (middle[0], end[1]), end), middle, "within", curved=True)


def _hanging(placed: _Placed, k: int, hub: int) -> Wire:
    """A bond from a node of the chain down to the hub."""
    node = placed.graph.other(hub, k)
    start = _leg(placed, k, node, up=False).points[0]
    end = (start[0], placed.boxes[hub].y - HEIGHT / 2)
    ends = (start, end) if placed.graph.edges[k].ends[0] == node else (end, start)
    return Wire(ends, (start[0], (start[1] + end[1]) / 2), "within")


def _loop(placed: _Placed, k: int) -> Wire:
    """A bond out to the right, below the row, and back to the left."""
    out = _out_of(placed.graph, placed.routing, k)
    start, end = _port(placed, out, k, "right"), _port(placed, placed.graph.other(out, k), k, "left")
    right, left = start[0] + AROUND, end[0] - AROUND * (1 + placed.routing.around.index(k))
    level = placed.floors[placed.places.places[out][0]] + CHANNEL / 2
    points = (start, (right, start[1]), (right, level), (left, level), (left, end[1]), end)
    forward = placed.graph.edges[k].ends[0] == out
    return Wire(points if forward else points[::-1], ((left + right) / 2, level), "around")


def _turn(placed: _Placed, k: int) -> Wire:
    """A bond from one end of a row to the same end of another."""
    first, second = placed.graph.edges[k].ends
    side: Literal["left", "right"] = "left" if k in placed.routing.ports[first].left else "right"
    start, end = _port(placed, first, k, side), _port(placed, second, k, side)
    x = min(start[0], end[0]) - AROUND if side == "left" else max(start[0], end[0]) + AROUND
    return Wire((start, (x, start[1]), (x, end[1]), end), (x, (start[1] + end[1]) / 2), "within")


def _bulge(placed: _Placed, k: int) -> Wire:
    """A bond between two nodes of a column, around the nodes between them."""
    first, second = placed.graph.edges[k].ends
    same_column = placed.routing.same_column
    start, end = _port(placed, first, k, "right"), _port(placed, second, k, "right")
    out = max(start[0], end[0]) + 46 + 26 * same_column.index(k)
    # alternating around the middle, so that labels do not overlap
    offset = 18 * (same_column.index(k) % 3 - 1) if len(same_column) > 1 else 0
    middle = (max(start[0], end[0]) * 0.25 + out * 0.75, (start[1] + end[1]) / 2 + offset)
    return Wire((start, (out, start[1]), (out, end[1]), end), middle, "within", curved=True)
