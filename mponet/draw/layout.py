"""Positions of everything in a diagram: boxes for tensors, outputs up, inputs down, bonds between, a label for each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import log2
from typing import Literal

from mponet.draw.arrange import Arrangement, arrange
from mponet.draw.graph import Edge, Graph

Point = tuple[float, float]
#: Where a label stands: above a leg, below one, around a level bond, or in the middle of any other line.
Placing = Literal["above", "below", "around", "within"]

BOX, HEIGHT = 66.0, 44.0  # smallest box
LEG, LABEL = 26.0, 32.0  # length of a leg, room for its two lines of text
PORT = 38.0  # between two bonds on one side of a box
GAP, WIDE = 58.0, 100.0  # smallest room between columns: of one node each, or more
CHANNEL = 46.0  # room for a bond that goes around below a row
MARGIN = 14.0
TURN = 76.0  # room for a bond that turns from one row into the next, with its label
AROUND = 18.0  # how far out a bond goes that goes around
SPACE = 18.0  # between two rows
#: Nodes of a chain in one row, for about a thousand pixels.
PER_ROW = 8


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle by its middle and its size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Wire:
    """An edge.

    Attributes:
        points: from the first end to the second, or to the free end.
        label: where its label stands.
        placing: how the label stands there.
        curved: whether the points are those of a Bézier curve instead of corners.
    """

    points: tuple[Point, ...]
    label: Point
    placing: Placing
    curved: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """A diagram with its upper left corner at (0, 0).

    Attributes:
        width: of all.
        height: of all.
        boxes: of the nodes, in their order.
        wires: of the edges, in their order.
    """

    width: float
    height: float
    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]


def thickness(dim: int) -> float:
    """Width of the line of an edge, in pixels: grows with the logarithm of its dimension."""
    return min(1.25 + 0.85 * log2(dim), 16.0)


def text_width(text: str, size: float = 13.0) -> float:
    """A cautious guess of the width of a text, in pixels."""
    return 0.64 * size * len(text)


def shown(name: str) -> str:
    """A name as it is drawn: the default names of TensorNetwork not at all, long ones shortened."""
    if name.startswith("__"):
        return ""
    return name if len(name) <= 24 else f"{name[:23]}…"


def upward(edge: Edge) -> bool:
    """Whether a leg is drawn upwards: inputs and the batch come from below."""
    return not edge.name.startswith(("in", "batch"))


def layout(graph: Graph, per_row: int = PER_ROW, gap: float = GAP) -> Layout:
    """Positions for a network.

    Args:
        graph: the network.
        per_row: nodes of a chain in one row.
        gap: least room between neighbours, for what is written at their bonds.
    """
    return _Builder(graph, arrange(graph, per_row), gap).build()


@dataclass(slots=True)
class _Ports:
    """The edges on the sides of a box, in order."""

    up: list[int] = field(default_factory=list)
    down: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)


class _Builder:
    """Works a layout out, step by step: sides, sizes, positions, lines."""

    def __init__(self, graph: Graph, places: Arrangement, gap: float) -> None:
        self.gap = gap
        self.graph, self.places, self.place = graph, places, places.places
        self.bar = places.bar
        self.around: list[int] = []  # bonds that go around, in order
        self.turning: list[int] = []  # bonds between the same ends of two rows
        self.bulging: list[int] = []  # bonds within a column
        self.ports = [_Ports() for _ in graph.nodes]
        self.boxes: dict[int, Box] = {}

    def build(self) -> Layout:
        for k, edge in enumerate(self.graph.edges):
            self._attach(k, edge)
        left = MARGIN + AROUND * (len(self.around) + 1) if self.around else MARGIN
        left += TURN * bool(self.turning)
        height, width = MARGIN, 0.0
        self.floors: list[float] = []
        for b, band in enumerate(self.places.bands):
            ends_at, height = self._band(b, band, left, height)
            width = max(width, ends_at)
        if self.bar is not None:
            width, height = self._bar(left, width, height)
        self._sort_ports()
        wires = tuple(self._wire(k, edge) for k, edge in enumerate(self.graph.edges))
        boxes = tuple(self.boxes[k] for k in range(len(self.graph.nodes)))
        width += MARGIN + AROUND * bool(self.around) + TURN * bool(self.turning)
        return Layout(width, height + MARGIN - SPACE, boxes, wires)

    # ------------------------------------------------------------ sides

    def _attach(self, k: int, edge: Edge) -> None:
        if len(edge.ends) == 1:
            ports = self.ports[edge.ends[0]]
            (ports.up if upward(edge) else ports.down).append(k)
        elif self.bar in edge.ends:
            self.ports[self.graph.other(self.bar or 0, k)].down.append(k)
        else:
            first, second = sorted(edge.ends, key=self.place.__getitem__)
            (band1, column1, _), (band2, column2, _) = self.place[first], self.place[second]
            if band1 == band2 and column1 == column2:
                self.bulging.append(k)
                self.ports[first].right.append(k)
                self.ports[second].right.append(k)
            elif band1 == band2 and column2 - column1 == 1:
                self.ports[first].right.append(k)
                self.ports[second].left.append(k)
            elif band1 != band2 and self._ends(band1, column1) == self._ends(band2, column2) != "":
                self.turning.append(k)
                for node in (first, second):
                    ports = self.ports[node]
                    (ports.left if column1 == 0 else ports.right).append(k)
            else:
                # out of one row and into the next, or out of the end of a ring and into its start
                self.around.append(k)
                self.ports[second if band1 == band2 else first].right.append(k)
                self.ports[first if band1 == band2 else second].left.append(k)

    def _ends(self, band: int, column: int) -> str:
        """Which end of its row a column is at; that of a single one is neither."""
        last = len(self.places.bands[band]) - 1
        return "" if last == 0 or 0 < column < last else "right" if column else "left"

    def _sort_ports(self) -> None:
        """Bonds of one side in the order of what they lead to, so that they do not cross."""
        for node, ports in enumerate(self.ports):
            for side in (ports.left, ports.right):
                side.sort(key=lambda k: self._height_of(node, k))

    def _height_of(self, node: int, k: int) -> float:
        if k in self.around:
            return float("inf")
        return self.boxes[self.graph.other(node, k)].y

    # ------------------------------------------------------------ sizes

    def _pitch(self, legs: Iterable[int]) -> float:
        """Room from one leg to the next."""
        names = [text for k in legs for text in (shown(self.graph.edges[k].name), str(self.graph.edges[k].dim))]
        return max((text_width(text, 12) + 10 for text in names), default=0.0)

    def _size(self, node: int) -> tuple[float, float]:
        ports = self.ports[node]
        label = text_width(shown(self.graph.nodes[node].name)) + 18
        legs = max(len(side) * self._pitch(side) for side in (ports.up, ports.down))
        return max(BOX, label, legs), max(HEIGHT, PORT * max(len(ports.left), len(ports.right)))

    def _over(self, node: int) -> float:
        return LEG + LABEL if self.ports[node].up else 0.0

    def _under(self, node: int) -> float:
        return LEG + LABEL if self.ports[node].down else 0.0

    def _gap(self, columns: Sequence[Sequence[int]], c: int) -> float:
        """Room behind a column: for the labels of what goes on to the next one, and of bonds within the column."""
        single = len(columns[c]) == 1 and (c + 1 == len(columns) or len(columns[c + 1]) == 1)
        inside = [k for k in self.bulging if self.graph.edges[k].ends[0] in columns[c]]
        following = set(columns[c + 1]) if c + 1 < len(columns) else set()
        onward = [
            k
            for node in columns[c]
            for k in self.ports[node].right
            if self.graph.other(node, k) in following and k not in self.around
        ]
        widths = [self._label_width(k, joined=not single) + (22 if single else 44) for k in onward]
        room = max((self.gap if single else WIDE) if following else 0.0, *widths, 0.0)
        return room + (30 + 24 * len(inside) + max(map(self._label_width, inside)) if inside else 0.0)

    def _label_width(self, k: int, joined: bool = True) -> float:
        edge = self.graph.edges[k]
        name, dim = shown(edge.name), str(edge.dim)
        return text_width(f"{name} {dim}", 12) if joined else max(text_width(name, 11.5), text_width(dim, 13))

    # ------------------------------------------------------------ positions

    def _band(self, b: int, columns: Sequence[Sequence[int]], left: float, top: float) -> tuple[float, float]:
        """Put the boxes of one row of columns; where it ends to the right and below."""
        sizes = {node: self._size(node) for column in columns for node in column}
        heights = [
            sum(self._over(n) + sizes[n][1] + self._under(n) for n in column) + SPACE * (len(column) - 1)
            for column in columns
        ]
        if max(map(len, columns)) == 1:
            # one level for all boxes, so that bonds are straight
            over = max(self._over(node) for node in sizes)
            tallest = max(height for _, height in sizes.values())
            total = over + tallest + max(self._under(node) for node in sizes)
        else:
            total = max(heights)
        x = left
        for c, column in enumerate(columns):
            width = max(sizes[node][0] for node in column)
            if max(map(len, columns)) == 1:
                self.boxes[column[0]] = Box(x + width / 2, top + over + tallest / 2, *sizes[column[0]])
            else:
                y = top + (total - heights[c]) / 2
                for node in column:
                    y += self._over(node)
                    self.boxes[node] = Box(x + width / 2, y + sizes[node][1] / 2, *sizes[node])
                    y += sizes[node][1] + self._under(node) + SPACE
            x += width + self._gap(columns, c)
        self.floors.append(top + total)
        leaving = [k for k in self.around if max(self.place[n][0] for n in self._out_of(k)) == b]
        return x, top + total + CHANNEL * len(leaving) + SPACE

    def _out_of(self, k: int) -> tuple[int, ...]:
        """The end of a bond that goes around at which it leaves to the right."""
        return tuple(node for node in self.graph.edges[k].ends if k in self.ports[node].right)

    def _bar(self, left: float, width: float, height: float) -> tuple[float, float]:
        """Put the bar below the chain that hangs on it."""
        assert self.bar is not None
        top = height - SPACE + 4
        own = max(width - left, self._size(self.bar)[0])
        self.boxes[self.bar] = Box(left + own / 2, top + HEIGHT / 2, own, HEIGHT)
        return left + own, top + HEIGHT + self._under(self.bar) + SPACE

    # ------------------------------------------------------------ lines

    def _side(self, node: int, k: int, side: Literal["left", "right"]) -> Point:
        box, ports = self.boxes[node], self.ports[node]
        edges = ports.left if side == "left" else ports.right
        y = box.y + PORT * (edges.index(k) - (len(edges) - 1) / 2)
        return box.x + (box.width / 2 if side == "right" else -box.width / 2), y

    def _wire(self, k: int, edge: Edge) -> Wire:
        if len(edge.ends) == 1:
            return self._leg(k, edge.ends[0], upward(edge))
        if self.bar in edge.ends:
            return self._hanging(k, edge)
        if k in self.around:
            return self._loop(k, edge)
        first, second = edge.ends
        if k in self.turning:
            return self._turn(k, first, second)
        if k in self.bulging:
            return self._bulge(k, first, second)
        onward = k in self.ports[first].right
        start = self._side(first, k, "right" if onward else "left")
        end = self._side(second, k, "left" if onward else "right")
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        if abs(start[1] - end[1]) < 1:
            return Wire((start, end), middle, "around")
        return Wire((start, (middle[0], start[1]), (middle[0], end[1]), end), middle, "within", curved=True)

    def _leg(self, k: int, node: int, up: bool) -> Wire:
        box, ports = self.boxes[node], self.ports[node]
        legs = ports.up if up else ports.down
        x = box.x + self._pitch(legs) * (legs.index(k) - (len(legs) - 1) / 2)
        start = box.y + (-box.height / 2 if up else box.height / 2)
        tip = start + (-LEG if up else LEG)
        return Wire(((x, start), (x, tip)), (x, tip), "above" if up else "below")

    def _hanging(self, k: int, edge: Edge) -> Wire:
        """From a node of the chain down to the bar."""
        assert self.bar is not None
        node = self.graph.other(self.bar, k)
        start = self._leg(k, node, up=False).points[0]
        end = (start[0], self.boxes[self.bar].y - HEIGHT / 2)
        ends = (start, end) if edge.ends[0] == node else (end, start)
        return Wire(ends, (start[0], (start[1] + end[1]) / 2), "within")

    def _loop(self, k: int, edge: Edge) -> Wire:
        """Out to the right, below the row, and back to the left."""
        out = self._out_of(k)[0]
        into = self.graph.other(out, k)
        start, end = self._side(out, k, "right"), self._side(into, k, "left")
        turn = self.around.index(k)
        right, left = start[0] + AROUND, end[0] - AROUND * (1 + turn)
        level = self.floors[self.place[out][0]] + CHANNEL / 2
        points = (start, (right, start[1]), (right, level), (left, level), (left, end[1]), end)
        return Wire(points if edge.ends[0] == out else points[::-1], ((left + right) / 2, level), "around")

    def _turn(self, k: int, first: int, second: int) -> Wire:
        """From one end of a row to the same end of another."""
        side: Literal["left", "right"] = "left" if k in self.ports[first].left else "right"
        start, end = self._side(first, k, side), self._side(second, k, side)
        x = min(start[0], end[0]) - AROUND if side == "left" else max(start[0], end[0]) + AROUND
        return Wire((start, (x, start[1]), (x, end[1]), end), (x, (start[1] + end[1]) / 2), "within")

    def _bulge(self, k: int, first: int, second: int) -> Wire:
        """Between two nodes of a column, around what is between them."""
        start, end = self._side(first, k, "right"), self._side(second, k, "right")
        out = max(start[0], end[0]) + 46 + 26 * self.bulging.index(k)
        # beside the middle in turns, so that labels do not meet
        beside = 18 * (self.bulging.index(k) % 3 - 1) if len(self.bulging) > 1 else 0
        middle = (max(start[0], end[0]) * 0.25 + out * 0.75, (start[1] + end[1]) / 2 + beside)
        return Wire((start, (out, start[1]), (out, end[1]), end), middle, "within", curved=True)
