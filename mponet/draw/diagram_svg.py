"""The diagram of one tensor network as SVG.

Boxes, legs and bonds, each with its name and dimension.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import hypot

from mponet.draw.geometry import PER_ROW, Box, Geometry, Point, Wire, compute_geometry
from mponet.draw.graph import Edge, Graph, node_text, upward
from mponet.draw.markup import Markup, element, joined, number
from mponet.draw.overlay import Overlay
from mponet.draw.spacing import GAP, shown, text_width, thickness
from mponet.draw.svg import svg
from mponet.draw.theme import SHADES, Theme, shade

#: Rules of a diagram, also for pages that hold several.
STYLE = (
    ".mponet .edge { fill: none; stroke: $line }",
    ".mponet .output { stroke: $output } .mponet .input { stroke: $input }",
    ".mponet .trivial { stroke-dasharray: 3 3 }",
    ".mponet .node rect { fill: $node; stroke: $line; stroke-width: 1.5 }",
    ".mponet .center rect { stroke: $accent; stroke-width: 3.5 }",
    ".mponet .arrow { fill: $accent; stroke: $surface; stroke-width: 1 }",
    ".mponet text.output { fill: $output; stroke: none } .mponet text.input { fill: $input; stroke: none }",
    ".mponet .title { font-size: 15px; font-weight: 600 }",
    *(f".mponet .edge.shade{k} {{ stroke: $shade{k} }}" for k in range(len(SHADES))),
    *(f".mponet rect.shade{k}, .mponet .node rect.shade{k} {{ fill: $shade{k} }}" for k in range(len(SHADES))),
    *(f".mponet text.on{k} {{ fill: $on{k} }}" for k in range(len(SHADES))),
)
LINE = 17.0  # height of a line of text
ARROW = 6.0


@dataclass(frozen=True, slots=True)
class Drawing:
    """Elements and their size from (0, 0) on.

    Attributes:
        width: in pixels.
        height: in pixels.
        body: the elements.
    """

    width: float
    height: float
    body: Markup


def diagram(
    graph: Graph,
    title: str,
    *,
    overlay: Overlay | None = None,
    notes: Sequence[str] = (),
    theme: Theme = "auto",
    per_row: int = PER_ROW,
) -> Markup:
    """A picture of a network: title, diagram and legend.

    Args:
        graph: the network.
        title: title above the diagram.
        overlay: amounts that colour the diagram.
        notes: lines below the title.
        theme: light, dark, or as the screen is.
        per_row: nodes of a chain in one row.
    """
    drawing, keys = draw(graph, overlay, per_row), legend(graph, overlay)
    width = max(drawing.width, keys.width + 28)
    head = heading(title, notes, width)
    width = max(width, head.width + 28)
    top = head.height + 14
    body = (
        shifted(head, 14, 10),
        shifted(drawing, (width - drawing.width) / 2, top),
        shifted(keys, 14, top + drawing.height + 6),
    )
    height = top + drawing.height + keys.height + 16
    return svg(width, height, f"{title}: {alt_text(graph)}", *body, style=STYLE, theme=theme)


def draw(graph: Graph, overlay: Overlay | None = None, per_row: int = PER_ROW) -> Drawing:
    """The diagram without title and legend.

    Args:
        graph: the network.
        overlay: amounts that colour the diagram.
        per_row: nodes of a chain in one row.
    """
    amounts = overlay.edges.values() if overlay else ()
    gap = max([GAP, *(text_width(overlay.text(amount), 11) + 8 for amount in amounts if overlay)])
    places = compute_geometry(graph, per_row, gap)
    parts = [
        *(_edge(edge, wire, overlay) for edge, wire in zip(graph.edges, places.wires, strict=True)),
        *_arrows(graph, places),
        *(_node(graph, k, box, overlay) for k, box in enumerate(places.boxes)),
        *(_label(edge, wire, overlay) for edge, wire in zip(graph.edges, places.wires, strict=True)),
    ]
    return Drawing(places.width, places.height, joined(parts, "\n"))


def heading(title: str, notes: Sequence[str], width: float) -> Drawing:
    """A title, wrapped to the width, and smaller lines below it.

    Args:
        title: title, broken after commas and blanks where it is too long.
        notes: lines, which are not broken.
        width: largest width of the title in pixels.
    """
    lines = [(line, "title", 9.6) for line in broken(title, int(width / 9.6))]
    lines += [(note, "muted", 7.2) for note in notes]
    parts = [element("text", line, x=0, y=14 + LINE * k, class_=name) for k, (line, name, _) in enumerate(lines)]
    return Drawing(max(len(line) * size for line, _, size in lines), 6 + LINE * len(lines), joined(parts, "\n"))


def broken(text: str, columns: int) -> list[str]:
    """Lines of at most ``columns`` characters, broken after commas and blanks if possible."""
    lines = [""]
    for piece in re.findall(rf"[^ ,]{{,{columns}}}[ ,]?", text):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > columns:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def shifted(drawing: Drawing, x: float, y: float) -> Markup:
    """A drawing with its corner at (x, y)."""
    return element("g", Markup("\n"), drawing.body, transform=f"translate({number(x)} {number(y)})")


def legend(graph: Graph, overlay: Overlay | None = None) -> Drawing:
    """The legend of a diagram, with the elements that it contains."""
    lines = reading(graph)
    parts = [element("text", line, x=0, y=12 + LINE * k, class_="muted") for k, line in enumerate(lines)]
    height, width = LINE * len(lines), max(len(line) for line in lines) * 6.6
    if overlay is not None:
        shades = scale(overlay)
        parts.append(shifted(shades, 0, height + 4))
        height, width = height + shades.height + 4, max(width, shades.width)
    return Drawing(width, height, joined(parts, "\n"))


def reading(graph: Graph) -> list[str]:
    """How to read a diagram, in words."""
    lines = ["Outputs up, inputs down; the wider a line, the larger its dimension (log₂), dashed: 1."]
    if graph.arrows:
        lines.append(f"Arrows: isometries{_centered(graph)}.")
    return lines


def scale(overlay: Overlay) -> Drawing:
    """The shades of an overlay, from none to the largest amount of this drawing."""
    squares = [element("rect", x=22 * k, y=1, width=22, height=11, class_=f"shade{k}") for k in range(len(SHADES))]
    text = f"{overlay.title}: 0 to {overlay.text(overlay.largest)}"
    words = element("text", text, x=22 * len(SHADES) + 8, y=11, class_="muted")
    return Drawing(22 * len(SHADES) + 8 + 7.2 * len(text), LINE, joined([*squares, words], "\n"))


def alt_text(graph: Graph) -> str:
    """The network in words, for screen readers."""
    nodes = ", ".join(node.name for node in graph.nodes)
    edges = ", ".join(f"{edge.name} {edge.dim}" for edge in graph.edges)
    return f"{nodes}; {edges}"


def _centered(graph: Graph) -> str:
    return "" if graph.center is None else f" towards the centre {graph.nodes[graph.center].name}"


def _kind(edge: Edge) -> str:
    if len(edge.ends) == 2:
        return "bond"
    return "output" if upward(edge) else "input"


def _edge(edge: Edge, wire: Wire, overlay: Overlay | None) -> Markup:
    amount = overlay.edges.get(edge.name) if overlay else None
    colour = "" if overlay is None or amount is None else f" shade{shade(overlay.share(amount))}"
    trivial = " trivial" if edge.dim == 1 else ""
    what = f"{edge.name}: dimension {edge.dim}"
    if overlay is not None and amount is not None:
        what += f", {overlay.title} {overlay.text(amount)}"
    path, width = _path(wire), thickness(edge.dim)
    line = element(
        "path", element("title", what), d=path, class_=f"edge {_kind(edge)}{colour}{trivial}", stroke_width=width
    )
    # light shades have an outline, to stand out from the background
    return joined([element("path", d=path, class_="edge", stroke_width=width + 3), line]) if colour else line


def _path(wire: Wire) -> str:
    (first, *others) = (f"{number(x)} {number(y)}" for x, y in wire.points)
    if wire.curved:
        return f"M{first} C{' '.join(others)}"
    if len(wire.points) == 2:
        return f"M{first} L{others[0]}"
    return _rounded(wire.points)


def _rounded(points: Sequence[Point], radius: float = 8.0) -> str:
    """A line with round corners."""
    parts = [f"M{number(points[0][0])} {number(points[0][1])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        start, end = _towards(corner, before, radius), _towards(corner, after, radius)
        parts.append(f"L{number(start[0])} {number(start[1])}")
        parts.append(f"Q{number(corner[0])} {number(corner[1])} {number(end[0])} {number(end[1])}")
    return " ".join([*parts, f"L{number(points[-1][0])} {number(points[-1][1])}"])


def _towards(start: Point, end: Point, distance: float) -> Point:
    """The point at ``distance`` from ``start``, at most half of the way to ``end``."""
    length = hypot(end[0] - start[0], end[1] - start[1])
    share = min(distance / length, 0.5) if length else 0.0
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _arrows(graph: Graph, places: Geometry) -> Iterator[Markup]:
    """A triangle on the bond of every isometry, next to its box and pointing away from it."""
    for node, k in sorted(graph.arrows):
        points = places.wires[k].points
        start, onward = points[:2] if graph.edges[k].ends[0] == node else points[:-3:-1]
        base, tip = _towards(start, onward, 6), _towards(start, onward, 6 + 2 * ARROW)
        reach = ARROW + thickness(graph.edges[k].dim) / 2
        length = hypot(tip[0] - base[0], tip[1] - base[1]) or 1.0
        across = (-(tip[1] - base[1]) / length * reach, (tip[0] - base[0]) / length * reach)
        corners = (base[0] + across[0], base[1] + across[1]), tip, (base[0] - across[0], base[1] - across[1])
        yield element("polygon", points=" ".join(f"{number(x)},{number(y)}" for x, y in corners), class_="arrow")


def _node(graph: Graph, node: int, box: Box, overlay: Overlay | None) -> Markup:
    amount = overlay.nodes.get(node) if overlay else None
    level = None if overlay is None or amount is None else shade(overlay.share(amount))
    on = "" if level is None else f" on{level}"
    rectangle = element(
        "rect",
        x=box.x - box.width / 2,
        y=box.y - box.height / 2,
        width=box.width,
        height=box.height,
        rx=9,
        class_=None if level is None else f"shade{level}",
    )
    name = shown(graph.nodes[node].name)
    parts = [element("title", node_text(graph, node)), rectangle]
    shift = 4.5
    if overlay is not None and amount is not None:
        parts.append(element("text", overlay.text(amount), x=box.x, y=box.y + 14, class_=f"middle{on}", font_size=11))
        shift = -2.0
    parts.append(element("text", name, x=box.x, y=box.y + shift, class_=f"strong middle{on}"))
    return element("g", *parts, class_="node center" if graph.center == node else "node")


def _label(edge: Edge, wire: Wire, overlay: Overlay | None) -> Markup:
    """Name and dimension of an edge, and its amount."""
    x, y = wire.label
    name, dim, kind = shown(edge.name), str(edge.dim), _kind(edge)
    half = thickness(edge.dim) / 2
    amount = overlay.edges.get(edge.name) if overlay else None
    extra = [] if overlay is None or amount is None else [overlay.text(amount)]
    colour = "" if kind == "bond" else f" {kind}"
    if wire.placing == "within":
        parts = [element("tspan", name, class_="muted"), f" {dim}"] if name else [dim]
        parts += [f" ({text})" for text in extra]
        width = text_width(" ".join([name, dim, *extra]), 12)
        ground = element("rect", x=x - width / 2, y=y - 9, width=width, height=18, rx=5, class_="ground")
        return joined([ground, element("text", *parts, x=x, y=y + 4.5, class_="strong middle")])
    if wire.placing == "above":
        rows = ((dim, -5.0, f"strong middle{colour}"), (name, -19.0, "muted middle"))
    elif wire.placing == "below":
        rows = ((dim, 14.0, f"strong middle{colour}"), (name, 27.0, "muted middle"))
    else:
        rows = ((dim, -half - 5, "strong middle"), (name, half + 14, "muted middle"))
    texts = [element("text", text, x=x, y=y + down, class_=class_name) for text, down, class_name in rows if text]
    texts += [element("text", text, x=x, y=y + half + 28, class_="strong middle", font_size=11) for text in extra]
    return joined(texts, "\n")
