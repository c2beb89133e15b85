"""A contraction plan as a picture and as text: merged cores, order of the sweep, cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mponet.contraction.plan import Plan
from mponet.draw.diagram_svg import LINE, Drawing, alt_text, draw, heading, legend, shifted
from mponet.draw.diagram_svg import STYLE as DIAGRAM
from mponet.draw.geometry import PER_ROW, Box, compute_geometry
from mponet.draw.graph import of_shape
from mponet.draw.markup import Markup, element, joined
from mponet.draw.svg import svg
from mponet.draw.theme import Theme
from mponet.models.outline import TIMES, count

STYLE = (
    *DIAGRAM,
    ".mponet .group { fill: $raised; stroke: $accent; stroke-width: 1.5; stroke-dasharray: 6 4 }",
    ".mponet .badge { fill: $accent } .mponet text.onbadge { fill: $surface; font-weight: 700 }",
    ".mponet .bar { fill: $accent } .mponet .rest { fill: $rule }",
)
COLUMNS = (0.0, 44.0, 118.0, 182.0, 560.0, 580.0)  # step, cores, from, product, multiplications (their end), share
BAR = 110.0
WIDTH = COLUMNS[-1] + BAR + 56


@dataclass(frozen=True, slots=True)
class Row:
    """One step of the sweep.

    Attributes:
        step: number of the step, from 1.
        cores: cores of its group: ``3`` or ``3-4``.
        side: side from which the group is taken.
        product: sizes of its product.
        multiplications: multiplications for one row of the batch.
        share: share in the multiplications of all steps.
    """

    step: int
    cores: str
    side: str
    product: str
    multiplications: int
    share: float


def rows(plan: Plan) -> tuple[Row, ...]:
    """The steps of a plan."""
    whole = plan.sweep_multiplications
    return tuple(
        Row(
            number,
            _cores(plan.spans[group]),
            side,
            f"W ({step.rows}{TIMES}{step.inner}) {_inputs(step.prefix, step.inner, step.suffix)}",
            step.multiplications,
            step.multiplications / whole,
        )
        for number, (group, side, step) in enumerate(zip(plan.order, plan.sides, plan.steps, strict=True), start=1)
    )


def notes(plan: Plan) -> list[str]:
    """Cost, merging, transposition and tiles of a plan in words."""
    shape = plan.shape
    sweep, dense = plan.sweep_multiplications, shape.dense_parameters
    merged = [_cores(span) for span in plan.spans if span[1] - span[0] > 1]
    lines = [f"{count(sweep)} products for one row, {sweep / dense:.3g} of the full matrix's {count(dense)}"]
    if merged:
        lines.append(f"merged once per batch: cores {', '.join(merged)}, {count(plan.merge_multiplications)} products")
    if plan.transposed:
        lines.append("the batch is transposed before each step, so that none is a broadcast product")
    tile = f"{plan.tile} rows at a time" if plan.tile else "all rows at once"
    peak = f"; between steps at most {count(plan.peak_size(1))} numbers for one row" if len(plan.steps) > 1 else ""
    saved = ["weights and states are saved for the backward pass"] if plan.saves_states else []
    return [*lines, f"{tile}{peak}", *saved]


def plan_svg(plan: Plan, title: str = "", theme: Theme = "auto") -> Markup:
    """The picture of a plan.

    The operator with its groups framed and numbered, the steps as a table.

    Args:
        plan: the plan.
        title: title of the picture; empty for the plan in words.
        theme: light, dark, or as the screen is.
    """
    drawing = plan_drawing(plan)
    width = drawing.width + 28
    head = heading(title or f"{plan}", [f"{plan.shape}: {plan}"] if title else [f"{plan.shape}"], width)
    body = shifted(head, 14, 10), shifted(drawing, 14, head.height + 14)
    words = f"{title or plan}: {alt_text(of_shape(plan.shape))}"
    width = max(width, head.width + 28)
    return svg(width, head.height + drawing.height + 28, words, *body, style=STYLE, theme=theme)


def plan_drawing(plan: Plan) -> Drawing:
    """The picture of a plan without its title."""
    network, key, table = framed(plan), legend(of_shape(plan.shape)), _table(plan)
    width = max(network.width, WIDTH, key.width)
    words = element("text", FRAMES, x=0, y=key.height + 12, class_="muted")
    top = network.height + 8
    parts = (
        shifted(network, (width - network.width) / 2, 0),
        shifted(table, 0, top),
        shifted(Drawing(key.width, key.height, joined([key.body, words], "\n")), 0, top + table.height + 8),
    )
    return Drawing(width, top + table.height + key.height + LINE + 8, joined(parts, "\n"))


def framed(plan: Plan, per_row: int = PER_ROW) -> Drawing:
    """The diagram of a plan's operator, its groups framed and numbered.

    A row has at most ``per_row`` cores.
    """
    graph = of_shape(plan.shape)
    boxes, network = compute_geometry(graph, per_row).boxes, draw(graph, per_row=per_row)
    parts = [*_frames(plan, boxes), network.body, *_badges(plan, boxes)]
    return Drawing(network.width, network.height, joined(parts, "\n"))


FRAMES = "Frames: cores merged before the sweep; numbers: the order in which the batch meets them."


def plan_text(plan: Plan) -> str:
    """A plan as text, without a final newline; at most 80 columns for common sizes."""
    lines = [
        f"{plan.shape}",
        f"{plan}",
        "",
        f"{'step':>4}  {'cores':<7}{'from':<7}{'product':<34}{'products':>13} share",
    ]
    for row in rows(plan):
        lines.append(
            f"{row.step:>4}  {row.cores:<7}{row.side:<7}{row.product:<34}{count(row.multiplications):>13}"
            f"{100 * row.share:>5.0f}%"
        )
    return "\n".join([*lines, "", *notes(plan)])


def _inputs(prefix: int, inner: int, suffix: int) -> str:
    """The operand of the weight of a step, for one row of the batch."""
    times = f"{prefix} {TIMES} " if prefix > 1 else ""
    return f"@ {times}({inner}{TIMES}{suffix})"


def _cores(span: tuple[int, int]) -> str:
    first, end = span
    return f"{first + 1}" if end - first == 1 else f"{first + 1}-{end}"


def _hulls(plan: Plan, boxes: Sequence[Box]) -> Iterator[tuple[int, float, float, float, float]]:
    """Step and corners of the frame around each group, one per row of the diagram."""
    for number, group in enumerate(plan.order, start=1):
        first, end = plan.spans[group]
        for y in sorted({box.y for box in boxes[first:end]}):
            level = [box for box in boxes[first:end] if box.y == y]
            left = min(box.x - box.width / 2 for box in level) - 6
            right = max(box.x + box.width / 2 for box in level) + 6
            height = max(box.height for box in level) / 2 + 14
            yield number, left, y - height, right, y + height


def _frames(plan: Plan, boxes: Sequence[Box]) -> Iterator[Markup]:
    for _, left, top, right, bottom in _hulls(plan, boxes):
        yield element("rect", x=left, y=top, width=right - left, height=bottom - top, rx=14, class_="group")


def _badges(plan: Plan, boxes: Sequence[Box]) -> Iterator[Markup]:
    for number, left, top, _, _ in _hulls(plan, boxes):
        yield element("circle", cx=left + 6, cy=top + 4, r=11, class_="badge")
        yield element("text", str(number), x=left + 6, y=top + 8.5, class_="onbadge middle")


def _table(plan: Plan) -> Drawing:
    """The steps and the notes of a plan."""
    parts = [
        element("text", word, x=x, y=12, class_=f"muted{' end' if word == 'products' else ''}")
        for word, x in zip(("step", "cores", "from", "product for one row", "products", "share"), COLUMNS, strict=True)
    ]
    for k, row in enumerate(rows(plan), start=1):
        y = 14 + 20.0 * k
        cells = (str(row.step), row.cores, row.side, row.product)
        parts += [element("text", cell, x=x, y=y) for cell, x in zip(cells, COLUMNS, strict=False)]
        parts.append(element("text", count(row.multiplications), x=COLUMNS[4], y=y, class_="end"))
        parts.append(element("rect", x=COLUMNS[5], y=y - 9, width=BAR, height=9, class_="rest"))
        parts.append(element("rect", x=COLUMNS[5], y=y - 9, width=BAR * row.share, height=9, class_="bar"))
        parts.append(element("text", f"{100 * row.share:.0f} %", x=COLUMNS[5] + BAR + 8, y=y, class_="muted"))
    y = 22 + 20.0 * len(plan.steps)
    lines = notes(plan)
    parts += [element("text", note, x=0, y=y + LINE * k, class_="muted") for k, note in enumerate(lines, start=1)]
    return Drawing(max(WIDTH, *(len(note) * 7.2 for note in lines)), y + LINE * len(lines) + 4, joined(parts, "\n"))
