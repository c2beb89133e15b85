"""A network as SVG, from the image to the logits, each operator with its diagram."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mponet.draw.diagram_svg import LINE, Drawing, broken, draw, heading, legend, shifted
from mponet.draw.diagram_svg import STYLE as DIAGRAM
from mponet.draw.facts import Facts, flops, input_and_output, operator_facts, shown_name, totals
from mponet.draw.geometry import PER_ROW
from mponet.draw.markup import Markup, element, joined
from mponet.draw.options import DrawOptions
from mponet.draw.svg import svg
from mponet.draw.theme import Theme
from mponet.models import shapes
from mponet.models.outline import TIMES, Line, count, dimensions, outline
from mponet.models.outline import joined as grouped
from mponet.models.spec import Model, Residual

STYLE = (
    *DIAGRAM,
    ".mponet .card { fill: $raised; stroke: $rule }",
    ".mponet .operator { stroke: $accent; stroke-width: 1.5; fill: $surface }",
    ".mponet .block { fill: none; stroke: $muted; stroke-dasharray: 5 4 }",
    ".mponet .wire { stroke: $line; stroke-width: 2; fill: none }",
    ".mponet .tip { fill: $line } .mponet .joint { fill: $surface; stroke: $line; stroke-width: 2 }",
)
WIDTH = 1000.0
INDENT = 34.0
ROW = 28.0
GAP = 12.0  # of the wire between two cards
SIDE = 300.0  # width of the facts next to a diagram
#: Ends of the columns of numbers, from the right.
COLUMNS = (250.0, 130.0, 14.0)
REPEATED = f"{TIMES}N: blocks that are alike, drawn once; their numbers are those of all of them."


@dataclass(frozen=True, slots=True)
class _Pen:
    """Position and options of a part of the sheet.

    Attributes:
        left: left edge of its cards.
        wire: distance of the wire from that edge.
        options: options of the drawing.
        right: right edge of its cards.
    """

    left: float
    wire: float
    options: DrawOptions
    right: float = WIDTH - 14


def sheet_svg(model: Model, options: DrawOptions | None = None, theme: Theme = "auto") -> Markup:
    """The picture of a whole network.

    Blocks that are alike are drawn once and counted; their numbers are those of all.

    Args:
        model: the network.
        options: how its operators are drawn.
        theme: light, dark, or as the screen is.
    """
    pen = _Pen(14 + INDENT, INDENT / 2, (options or DrawOptions()).for_model(model))
    lines = grouped(outline(model))
    facts = totals(model, pen.options.batch)
    head = heading(str(model), [f"{name}: {value}" for name, value in facts], WIDTH - 28)
    columns = _columns(("output", "parameters", "flops per image"), pen, head.height + 24, "muted end")
    top = head.height + 34
    image = _end("image", dimensions(model.input_shape), pen, top)
    body, bottom = _chain(lines, pen, top + image.height)
    logits = _end("logits", lines[-1][-1].output, pen, bottom + GAP)
    key = _key(model, lines, pen.options)
    parts = (
        shifted(head, 14, 10),
        columns,
        _wire(pen, top + ROW, bottom + GAP - 6),
        _tip(pen, bottom + GAP),
        image.body,
        body,
        logits.body,
        shifted(key, 14, bottom + GAP + ROW + 14),
    )
    height = bottom + GAP + ROW + 14 + key.height + 14
    return svg(WIDTH, height, f"{model}: {facts[0][1]} parameters", *parts, style=STYLE, theme=theme)


def fitting(drawn: Callable[[int], Drawing], width: float) -> Drawing:
    """The diagram with as many nodes per row as fit the width, at least one.

    Args:
        drawn: returns the diagram for a number of nodes per row.
        width: largest width in pixels.
    """
    drawings = (drawn(per_row) for per_row in range(PER_ROW, 0, -1))
    return next((drawing for drawing in drawings if drawing.width <= width), drawn(1))


def _chain(lines: Sequence[Sequence[Line]], pen: _Pen, top: float) -> tuple[Markup, float]:
    """Layers from top to bottom, a piece of wire above each, and the level at which they end."""
    parts = []
    for group in lines:
        drawing = _layer(group, pen, top + GAP)
        level = top + GAP + ROW / 2
        parts += [_lines((pen.left - pen.wire, level), (pen.left, level)), drawing.body]
        top += GAP + drawing.height
    return joined(parts, "\n"), top


def _layer(group: Sequence[Line], pen: _Pen, top: float) -> Drawing:
    line = group[0]
    if line.branches:
        return _block(line, pen, top)
    if line.first.operators:
        return _operators(group, pen, top)
    card = element("rect", x=pen.left, y=top, width=pen.right - pen.left, height=ROW, rx=7, class_="card")
    return Drawing(WIDTH, ROW, joined([card, _texts(group, pen, top)], "\n"))


def _operators(group: Sequence[Line], pen: _Pen, top: float) -> Drawing:
    """A card with the diagrams of a layer's operators, the facts about each at its right."""
    parts = [_texts(group, pen, top)]
    height = ROW
    for operator in group[0].first.operators:
        network = pen.options.network(operator)
        diagram = fitting(partial(draw, *network), pen.right - pen.left - SIDE - 20)
        facts = _facts(operator_facts(operator, pen.options.batch))
        share = max(diagram.height, facts.height + 8) + 10
        parts.append(shifted(diagram, pen.left + 6, top + height + (share - 10 - diagram.height) / 2))
        parts.append(shifted(facts, pen.right - SIDE, top + height + (share - facts.height) / 2 - 4))
        height += share
    card = element("rect", x=pen.left, y=top, width=pen.right - pen.left, height=height, rx=7, class_="card operator")
    return Drawing(WIDTH, height, joined([card, *parts], "\n"))


def _block(line: Line, pen: _Pen, top: float) -> Drawing:
    """A frame around the layers of a block, with a second wire that goes around them."""
    inner = replace(pen, left=pen.left + 2 * INDENT, wire=INDENT / 2 + 6, right=pen.right - 10)
    body, *shortcut = line.branches
    inside, bottom = _chain(grouped(body), inner, top + ROW)
    wire_x, way_x = inner.left - inner.wire, pen.left + INDENT / 2 - 6
    around: list[Markup] = []
    low = bottom + GAP
    for row in grouped(shortcut[0]) if shortcut else []:
        drawing = _layer(row, inner, low)
        around += [drawing.body, element("rect", x=way_x - 6, y=low + ROW / 2 - 6, width=12, height=12, class_="tip")]
        low += drawing.height + GAP
    joint_y = low + 8
    sign = "+" if isinstance(line.first.layer, Residual) else "‖"
    way = _lines((wire_x, top + ROW), (way_x, top + ROW), (way_x, joint_y), (wire_x - 9, joint_y))
    words = "+: sum of both ways" if sign == "+" else "‖: both ways, one behind the other in the channels"
    words += "; ■: layers on the way around" if around else ""
    parts = (
        element("rect", x=pen.left, y=top, width=pen.right - pen.left, height=joint_y - top + 18, rx=9, class_="block"),
        _texts([line], pen, top),
        _lines((wire_x, top + ROW - 4), (wire_x, joint_y)),
        way,
        inside,
        *around,
        element("circle", cx=wire_x, cy=joint_y, r=9, class_="joint"),
        element("text", sign, x=wire_x, y=joint_y + 4.5, class_="strong middle"),
        element("text", words, x=wire_x + 16, y=joint_y + 4, class_="muted"),
    )
    return Drawing(WIDTH, joint_y - top + 18, joined(parts, "\n"))


def _texts(group: Sequence[Line], pen: _Pen, top: float) -> Markup:
    """Name, title and numbers of a row."""
    line = group[0]
    title = ", ".join(part.title for part in group)
    name = f"{shown_name(line)}  " if line.name else ""
    parts = [element("tspan", name, class_="strong"), element("tspan", title)]
    size = sum(part.parameters for part in group)
    work = sum(flops(info, pen.options.batch) for part in group for info in part.infos)
    numbers = (group[-1].output, count(size) if size else "", count(work) if work else "")
    what = f"{line.name or line.title}: {input_and_output(line)}"
    texts = element("text", element("title", what), *parts, x=pen.left + 12, y=top + 18.5)
    return joined([texts, _columns(numbers, pen, top + 18.5, "end")], "\n")


def _columns(texts: Iterable[str], pen: _Pen, y: float, class_name: str) -> Markup:
    cells = zip(texts, COLUMNS, strict=True)
    return joined(
        [element("text", text, x=WIDTH - 24 - off, y=y, class_=class_name) for text, off in cells if text], "\n"
    )


def _facts(facts: Facts) -> Drawing:
    """Facts from top to bottom, wrapped to the width of the side."""
    parts, y = [], 12.0
    for name, value in facts:
        parts.append(element("text", name, x=0, y=y, class_="muted"))
        for text in broken(value, 40):
            y += LINE
            parts.append(element("text", text, x=0, y=y))
        y += LINE + 4
    return Drawing(SIDE, y - LINE, joined(parts, "\n"))


def _end(name: str, shape: str, pen: _Pen, top: float) -> Drawing:
    """The first or the last row: the image or the logits."""
    text = element("text", name, x=pen.left - 6, y=top + 18.5, class_="strong")
    return Drawing(WIDTH, ROW, joined([text, _columns((shape, "", ""), pen, top + 18.5, "end")], "\n"))


def _lines(*points: tuple[float, float]) -> Markup:
    path = " L".join(f"{x:g} {y:g}" for x, y in points)
    return element("path", d=f"M{path}", class_="wire")


def _wire(pen: _Pen, top: float, bottom: float) -> Markup:
    """The wire that all cards are joined to."""
    x = pen.left - pen.wire
    return _lines((x, top), (x, bottom))


def _tip(pen: _Pen, y: float) -> Markup:
    x = pen.left - pen.wire
    return element("path", d=f"M{x - 6:g} {y - 8:g} L{x + 6:g} {y - 8:g} L{x:g} {y + 3:g} Z", class_="tip")


def _key(model: Model, lines: Iterable[Sequence[Line]], options: DrawOptions) -> Drawing:
    """The legend of the sheet, with the elements that it contains."""
    operators = shapes.operators(model)
    key = legend(*options.network(operators[0])) if operators else Drawing(0, 0, Markup(""))
    if all(len(line.infos) == 1 for line, *_ in lines):
        return key
    words = element("text", REPEATED, x=0, y=key.height + 12, class_="muted")
    return Drawing(key.width, key.height + LINE, joined([key.body, words], "\n"))
