"""A compression plan as a picture and as a page: what is left of each layer, and what that costs.

Layers whose names differ only in their first number share a row: ``layers.3.mlp.up`` and
``layers.4.mlp.up``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mponet.compress.layer_plan import LayerPlan
from mponet.compress.plan import CompressionPlan
from mponet.draw.diagram_svg import LINE, Drawing, broken, heading, shifted
from mponet.draw.diagram_svg import STYLE as DIAGRAM
from mponet.draw.markup import Markup, element, joined
from mponet.draw.page import page
from mponet.draw.spacing import text_width
from mponet.draw.svg import BASE, svg
from mponet.draw.theme import Theme, shade
from mponet.models.outline import TIMES, count

STYLE = (
    *DIAGRAM,
    ".mponet .cell { stroke: $surface; stroke-width: 1 } .mponet .asis { fill: none; stroke: $rule }",
    ".mponet .chain { fill: $input; stroke: $surface; stroke-width: 1 }",
    ".mponet .figure { font-size: 9.5px; text-anchor: middle }",
)
PAGE = (
    *BASE,
    *STYLE,
    ".wide { overflow-x: auto } .wide td { white-space: nowrap }",
    ".lead { font-size: 1.05em; margin: 6px 0 }",
)
ROW, CELL, LEAST = 18.0, 24.0, 9.0  # height of a cell, its width, and its width where there are many
WIDTH = 900.0  # of all cells of a row together
NARROW = 18.0  # cells below this width show no numbers
LONGEST = 44  # characters of a row's name


@dataclass(frozen=True, slots=True)
class Grid:
    """Amounts of layers, in rows of layers that are alike.

    Attributes:
        title: what is shown.
        amount: the amount of a layer, from 0 to 1; None if it is not known.
        top: the amount of the strongest shade; None for the largest.
    """

    title: str
    amount: Callable[[LayerPlan], float | None]
    top: float | None = None


def plan_svg(
    plan: CompressionPlan, title: str = "", theme: Theme = "auto", notes: Sequence[str] | None = None
) -> Markup:
    """The picture of a compression plan.

    Args:
        plan: the plan.
        title: title of the picture; empty for the plan in words.
        theme: light, dark, or as the screen is.
        notes: lines below the title; None for the `facts` of the plan.
    """
    drawing = plan_drawing(plan)
    head = heading(title or headline(plan), facts(plan) if notes is None else notes, max(drawing.width, 640.0))
    width = max(head.width, drawing.width) + 28
    body = shifted(head, 14, 10), shifted(drawing, 14, head.height + 22)
    height = head.height + drawing.height + 36
    return svg(width, height, title or headline(plan), *body, style=STYLE, theme=theme)


def plan_page(plan: CompressionPlan) -> str:
    """The page of a compression plan, ending in a newline."""
    body = (element("h1", headline(plan)), *plan_parts(plan))
    return page(headline(plan), *body, style=PAGE)


def plan_parts(plan: CompressionPlan) -> Iterator[Markup]:
    """The elements of a page about a plan, for a page with `PAGE` as style."""
    drawing = plan_drawing(plan)
    yield element("ul", *(element("li", fact) for fact in facts(plan)))
    yield element("figure", svg(drawing.width, drawing.height, headline(plan), drawing.body, theme="page"))
    yield element("h2", "Every layer")
    yield layer_table(plan)
    if plan.notes:
        yield element("h2", "Notes")
        yield element("ul", *(element("li", note) for note in plan.notes))


def headline(plan: CompressionPlan) -> str:
    """The plan in a few words."""
    return (
        f"Compression plan: {len(plan.replaced)} of {len(plan.matched)} layers, keep {plan.keep:.3g} "
        f"(network {plan.network_keep:.3g})"
    )


def facts(plan: CompressionPlan) -> list[str]:
    """Budget, weights, multiplications and predicted loss of a plan in words."""
    before, after = plan.multiplications
    lines = [
        f"Weights of the network: {count(plan.dense_network_weights)} → {count(plan.network_weights)}.",
        f"Multiplications per example: {count(before)} → {count(after)} ({after / max(before, 1):.2f} of before).",
    ]
    if plan.loss is not None and plan.replaced:
        lines.append(f"Predicted rise of the loss: {plan.loss:.3g}.")
    settings = [f"{name} {plan.config[name]}" for name in ("allocation", "metric") if name in plan.config]
    rows = [f"{count(plan.rows)} rows of calibration data"] if plan.rows else []
    return [*lines, *([f"Chosen with {', '.join([*settings, *rows])}."] if settings or rows else [])]


def plan_drawing(plan: CompressionPlan) -> Drawing:
    """The grids of a plan, one above the other, and how to read them."""
    total = plan.loss or 0.0
    grids = [
        Grid("Share of the weights that is left, in %", lambda layer: layer.keep, 1.0),
        Grid("Predicted relative error of the outputs, in %", lambda layer: layer.output_error),
    ]
    if total > 0.0:
        grids.append(Grid("Share in the predicted rise of the loss, in %", lambda layer: (layer.loss or 0.0) / total))
    layers = plan.matched
    parts, width, y = [], 0.0, 0.0
    for grid in grids:
        drawing = grid_drawing(layers, grid)
        parts.append(shifted(drawing, 0, y))
        width, y = max(width, drawing.width), y + drawing.height + 18
    words = [line for text in _reading(layers) for line in broken(text, max(int(width / 6.4), 60))]
    parts += [element("text", line, x=0, y=y + LINE * k, class_="muted") for k, line in enumerate(words)]
    width = max(width, *(text_width(line) for line in words)) if words else width
    return Drawing(width, y + LINE * len(words), joined(parts, "\n"))


def grid_drawing(layers: Sequence[LayerPlan], grid: Grid) -> Drawing:
    """One grid: a row for layers that are alike, a column for their number."""
    places = {layer.name: place(layer.name) for layer in layers}
    rows = list(dict.fromkeys(row for row, _ in places.values()))
    columns = sorted({column for _, column in places.values()}, key=lambda word: (word != "", int(word or 0)))
    cell = min(max(WIDTH / max(len(columns), 1), LEAST), CELL)
    left = max(text_width(_short(row)) for row in rows) + 10 if rows else 0.0
    known = [amount for layer in layers if (amount := grid.amount(layer)) is not None]
    top = grid.top or max(known, default=0.0)
    parts = [element("text", grid.title, x=0, y=12, class_="strong")]
    step = 1 if cell >= NARROW else 5
    for k, column in enumerate(columns):
        if column and int(column) % step == 0:
            parts.append(element("text", column, x=left + (k + 0.5) * cell, y=29, class_="muted middle"))
    for k, row in enumerate(rows):
        parts.append(element("text", _short(row), x=left - 10, y=34 + ROW * k + 13, class_="muted end"))
    for layer in layers:
        row, column = places[layer.name]
        x, y = left + columns.index(column) * cell, 34 + ROW * rows.index(row)
        parts.append(_cell(layer, grid.amount(layer), top, (x, y, cell)))
    return Drawing(left + cell * len(columns), 34 + ROW * len(rows), joined(parts, "\n"))


def layer_table(plan: CompressionPlan) -> Markup:
    """Every module that holds a weight: its operator and figures, or why it is left as it is."""
    heads = ("layer", "type", "operator", "weights", "keep", "error", "loss", "speed", "measured")
    head = element("tr", *(element("th", name, class_="right" if k > 2 else None) for k, name in enumerate(heads)))
    rows = [
        element("tr", *(element("td", cell, class_="right" if k > 2 else None) for k, cell in enumerate(_cells(layer))))
        for layer in plan
    ]
    table = element("table", element("thead", head), element("tbody", joined(rows, "\n")))
    return element("div", table, class_="wide", tabindex="0")


def operator_text(layer: LayerPlan) -> str:
    """``rank 120``, or factors and bonds; why a layer is left as it is."""
    if layer.layout is None:
        return layer.reason
    if layer.layout.is_low_rank:
        return f"rank {layer.bonds[0]}"
    sites = " · ".join(f"{i}{TIMES}{j}" for i, j in zip(layer.layout.input_dims, layer.layout.output_dims, strict=True))
    return f"{layer.layout.structure} {sites}, D = {', '.join(map(str, layer.bonds))}"


def place(name: str) -> tuple[str, str]:
    """Row and column of a layer: its name with ``*`` for its first number, and the number.

    >>> place("layers.3.mlp.up"), place("classifier")
    (('layers.*.mlp.up', '3'), ('classifier', ''))
    """
    parts = name.split(".")
    for k, part in enumerate(parts):
        if part.isdecimal() and part.isascii():
            return ".".join([*parts[:k], "*", *parts[k + 1 :]]), part
    return name, ""


def _cell(layer: LayerPlan, amount: float | None, top: float, box: tuple[float, float, float]) -> Markup:
    x, y, width = box
    words = f"{layer.name}: {operator_text(layer)}"
    if layer.layout is None or amount is None:
        rect = element("rect", x=x + 1, y=y + 1, width=width - 2, height=ROW - 2, class_="asis")
        return element("g", element("title", words), rect)
    level = shade(min(max(amount / top, 0.0), 1.0)) if top > 0.0 else 0
    parts = [
        element("title", f"{words}, keep {layer.keep:.3f}"),
        element("rect", x=x, y=y, width=width, height=ROW, class_=f"cell shade{level}"),
    ]
    if width >= NARROW:
        parts.append(element("text", f"{100 * amount:.0f}", x=x + width / 2, y=y + 12.5, class_=f"figure on{level}"))
    if not layer.layout.is_low_rank:
        parts.append(element("path", d=f"M{x:.2f} {y:.2f}h6l-6 6z", class_="chain"))
    return element("g", *parts)


def _reading(layers: Sequence[LayerPlan]) -> Iterator[str]:
    if any(layer.layout is None for layer in layers):
        yield "Empty: left dense."
    if any(layer.layout is not None and not layer.layout.is_low_rank for layer in layers):
        yield "With a corner: a chain with factors other than one; without: a product of two matrices."


def _cells(layer: LayerPlan) -> tuple[str, ...]:
    numbers = (layer.output_error, ".3f"), (layer.loss, ".2g"), (layer.speed, ".2f"), (layer.measured, ".2f")
    return (
        layer.name,
        layer.type_name,
        operator_text(layer),
        count(layer.weights),
        f"{layer.keep:.3f}",
        *("" if value is None or not layer.matched else format(value, style) for value, style in numbers),
    )


def _short(row: str) -> str:
    return row if len(row) <= LONGEST else f"…{row[1 - LONGEST :]}"
