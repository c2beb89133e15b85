"""A network as an HTML page in one file that folds, unfolds and searches.

Pointer and keyboard both work.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mponet.contraction.plan import Plan
from mponet.draw.contraction import FRAMES, framed, notes, rows
from mponet.draw.contraction import STYLE as CONTRACTION
from mponet.draw.diagram_svg import STYLE as DIAGRAM
from mponet.draw.diagram_svg import Drawing, alt_text, draw, reading, scale
from mponet.draw.facts import Facts, flops, input_and_output, operator_facts, shown_name, sizes, totals
from mponet.draw.graph import Graph, of_shape
from mponet.draw.markup import Markup, element, joined
from mponet.draw.options import DrawOptions
from mponet.draw.overlay import Overlay
from mponet.draw.page import page
from mponet.draw.sheet_svg import REPEATED, fitting
from mponet.draw.svg import BASE, svg
from mponet.models import shapes
from mponet.models.cost import operator_plan
from mponet.models.outline import Line, count, dimensions, outline
from mponet.models.outline import joined as grouped
from mponet.models.spec import Model, Residual

#: Widths of a diagram on a wide and on a narrow screen.
WIDE, NARROW = 700.0, 350.0
STYLE = (
    *BASE,
    *DIAGRAM,
    "dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 10px 0 }",
    "dt { color: $muted } dd { margin: 0; overflow-wrap: anywhere }",
    ".tools { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: 8px; align-items: center;"
    " padding: 8px 0; background: $surface; border-bottom: 1px solid $rule }",
    ".tools input { flex: 1 1 180px; min-width: 0 } #found { min-width: 9em; color: $muted }",
    ".sheet, .sheet ol { list-style: none; margin: 0; padding: 0 0 0 16px; border-left: 2px solid $line }",
    ".sheet { margin: 14px 0 0 6px }",
    ".sheet li { margin: 7px 0; position: relative }",
    ".sheet li::before { content: ''; position: absolute; left: -16px; top: 17px; width: 16px;"
    " border-top: 2px solid $line }",
    ".sheet > li.end::before { display: none }",
    ".layer { border: 1px solid $rule; border-radius: 8px; background: $raised }",
    ".layer.operator { border-color: $accent; background: $surface }",
    ".layer.block { border-style: dashed; border-color: $muted; background: none }",
    ".layer > summary { display: grid; grid-template-columns: 1fr 9.5em 8em 9em; gap: 0 10px; padding: 5px 10px;"
    " cursor: pointer; list-style: none; border-radius: 8px; font-variant-numeric: tabular-nums }",
    ".layer > summary::-webkit-details-marker { display: none }",
    ".layer > summary > .what::before { content: '▸'; display: inline-block; width: 1.1em; color: $muted }",
    ".layer[open] > summary > .what::before { content: '▾' }",
    ".layer > summary > .what { overflow-wrap: anywhere } .layer > summary > .amount { text-align: right;"
    " white-space: nowrap }",
    ".layer > summary:hover { background: $mark }",
    ".layer.hit > summary { background: $mark; box-shadow: inset 3px 0 $accent } .layer.miss > summary { opacity: .4 }",
    ".inside { padding: 2px 12px 10px }",
    ".beside { display: flex; flex-wrap: wrap; gap: 4px 28px; align-items: center } .beside figure { margin: 4px 0 }",
    ".ways { display: grid; grid-template-columns: 20px 1fr }",
    ".ways > .around { border: 2px solid $line; border-right: 0; margin: 0 0 13px }",
    ".meeting { padding-left: 12px } .meeting b { display: inline-block; width: 20px; height: 20px; line-height: 16px;"
    " border: 2px solid $line; border-radius: 10px; text-align: center; font-size: .8em;"
    " margin: 0 6px 0 -3px; background: $surface }",
    ".end { display: grid; grid-template-columns: 1fr 9.5em 8em 9em; gap: 0 10px; padding: 2px 10px }",
    ".end span { text-align: right }",
    ".more > summary { cursor: pointer; color: $muted } .more table { margin: 6px 0; font-size: .93em }",
    ".rows { overflow-x: auto }",
    "#tip { position: fixed; z-index: 2; max-width: min(460px, calc(100vw - 16px)); padding: 6px 10px;"
    " border: 1px solid $muted; border-radius: 6px; background: $surface; color: $ink; pointer-events: none;"
    " overflow-wrap: anywhere; font-size: .93em; box-shadow: 0 2px 8px rgb(0 0 0 / .25) }",
    "@media print { .beside, .layer > summary { break-inside: avoid } }",
    ".narrow { display: none }",
    "@media (max-width: 640px) { .narrow { display: block } .wide { display: none }"
    " .layer > summary, .end { display: flex; flex-wrap: wrap } .layer > summary > .what, .end > :first-child"
    " { flex: 0 0 100% } .layer > summary > .amount { color: $muted; font-size: .93em }"
    " .amount[data-what]::before { content: attr(data-what) ' ' }"
    " .inside { padding: 2px 8px 8px } .sheet, .sheet ol { padding-left: 10px } .sheet li::before { left: -10px;"
    " width: 10px } dl.facts { grid-template-columns: 1fr } dl.facts dd { margin: 0 0 4px } .heads { display: none } }",
)
HELP = (
    ("/", "search; Enter and Shift+Enter go from hit to hit, Escape ends it"),
    ("↓ ↑", "from layer to layer"),
    ("→ ←", "unfold, fold"),
)


def sheet_page(model: Model, options: DrawOptions | None = None) -> str:
    """The page of a whole network, ending in a newline.

    Repeated blocks are folded at first, operators and single blocks unfolded.

    Args:
        model: the network.
        options: options of the drawing.
    """
    options = (options or DrawOptions()).for_model(model)
    lines = grouped(outline(model))
    facts = totals(model, options.batch)
    heads = ("", "output", "parameters", "flops per image")
    body = (
        element("h1", str(model)),
        element("p", f"{model.source}", class_="muted"),
        _list(facts, "totals"),
        _tools(),
        _key(model, lines, options),
        element(
            "ol",
            element("li", *(element("span", head, class_="muted") for head in heads), class_="end heads"),
            element("li", element("b", "image"), element("span", dimensions(model.input_shape)), class_="end"),
            *_layers(lines, options),
            element("li", element("b", "logits"), element("span", lines[-1][-1].output), class_="end"),
            class_="sheet",
        ),
        element("div", id="tip", role="tooltip", hidden=True),
    )
    script = Path(__file__).with_name("sheet.js").read_text(encoding="utf-8")
    return page(str(model), *body, style=STYLE, script=script)


def plan_page(plan: Plan) -> str:
    """The page of a contraction plan, ending in a newline."""
    words = f"{plan}: {alt_text(of_shape(plan.shape))}"
    body = (
        element("h1", str(plan)),
        element("p", str(plan.shape)),
        _figure(lambda per_row: framed(plan, per_row), words),
        element("div", _steps(plan), class_="rows"),
        *(element("p", line, class_="muted") for line in (*reading(of_shape(plan.shape)), FRAMES)),
    )
    return page(str(plan), *body, style=(*STYLE, *CONTRACTION))


def figure(graph: Graph, overlay: Overlay | None, words: str) -> Markup:
    """A diagram in a page with `STYLE`, once for wide and once for narrow screens."""
    return _figure(lambda per_row: draw(graph, overlay, per_row), words)


def key(words: Sequence[str], overlay: Overlay | None) -> Markup:
    """The legend of a diagram: words, and the scale of its shades."""
    parts = [element("p", joined(words, " "), class_="muted")] if words else []
    if overlay is not None:
        drawing = scale(overlay)
        parts.append(svg(drawing.width, drawing.height, overlay.title, drawing.body, theme="page"))
    return joined(parts)


def _figure(drawn: Callable[[int], Drawing], words: str) -> Markup:
    pictures = []
    for width, class_name in ((WIDE, "wide"), (NARROW, "narrow")):
        drawing = fitting(drawn, width)
        picture = svg(drawing.width, drawing.height, words, drawing.body, theme="page")
        pictures.append(element("div", picture, class_=class_name))
    return element("figure", *pictures)


def _tools() -> Markup:
    """The search and the buttons, which are hidden without scripts."""
    keys = [joined([element("kbd", keys), f" {words}"]) for keys, words in HELP]
    tools = element(
        "div",
        element("input", id="search", type="search", placeholder="Search layers, factors, kinds", aria_label="Search"),
        element("span", id="found", role="status"),
        element("button", "Unfold all", id="unfold", type="button"),
        element("button", "Fold all", id="fold", type="button"),
        class_="tools screen",
        hidden=True,
    )
    return joined([tools, element("p", joined(keys, " · "), class_="muted screen", hidden=True)])


def _layers(lines: Sequence[Sequence[Line]], options: DrawOptions) -> Iterator[Markup]:
    for group in lines:
        yield element("li", _layer(group, options))


def _layer(group: Sequence[Line], options: DrawOptions) -> Markup:
    """A row that unfolds to the details of its layer."""
    line = group[0]
    title = ", ".join(part.title for part in group)
    kind = "block" if line.branches else "operator" if line.first.operators else "plain"
    content = {"block": _block, "operator": _operators, "plain": _plain}[kind](line, options)
    size = sum(part.parameters for part in group)
    work = sum(flops(info, options.batch) for part in group for info in part.infos)
    numbers = (group[-1].output, count(size) if size else "", count(work) if work else "")
    amounts = zip(numbers, ("out", "parameters", "flops"), strict=True)
    name = element("b", shown_name(line)) if line.name else Markup("")
    words = element("span", name, f" {title}" if line.name else title, class_="what")
    tip = f"{line.name or title}: {input_and_output(line)}" + "".join(f"; {n} {shape}" for n, shape in _first(line))
    summary = element(
        "summary",
        words,
        *(element("span", text, class_="amount", data_what=what if text else None) for text, what in amounts),
        data_tip=tip,
    )
    return element(
        "details",
        summary,
        element("div", content, class_="inside"),
        class_=f"layer {kind}",
        open=kind == "operator" or (kind == "block" and len(line.infos) == 1),
        data_name=line.name or title,
        data_words=_words(line, title),
    )


def _first(line: Line) -> list[tuple[str, str]]:
    """The first few parameters of a line without lines inside."""
    return [] if line.branches else list(sizes(line))[:8]


def _words(line: Line, title: str) -> str:
    """The text that a search looks at.

    Names, kind, shapes and factors, without those of layers inside.
    """
    notation = [str(operator.shape) for info in line.infos for operator in info.operators]
    names = [] if line.branches else [name for name, _ in sizes(line)]
    return " ".join([line.name, title, input_and_output(line), *notation, *names]).lower()


def _plain(line: Line, options: DrawOptions) -> Markup:
    """Shapes of a layer without operator."""
    parameters = list(sizes(line))
    passed = element("p", input_and_output(line))
    return joined([passed, _table(("parameter", "shape"), parameters)] if parameters else [passed])


def _operators(line: Line, options: DrawOptions) -> Markup:
    """A layer's parameters and operators, each with its diagram, facts and plan."""
    parts = []
    for operator in line.first.operators:
        graph, overlay = options.network(operator)
        facts = _list(operator_facts(operator, options.batch), "facts")
        picture = figure(graph, overlay, f"{line.name}: {alt_text(graph)}")
        plan = operator_plan(operator, options.batch)
        parts += [
            element("div", picture, facts, class_="beside"),
            _more(f"plan for {options.batch} images: {plan}", _steps(plan)),
        ]
    return joined([*parts, _more("parameters", _table(("parameter", "shape"), sizes(line)))])


def _steps(plan: Plan) -> Markup:
    """The steps of a plan, and notes on it."""
    heads = ("step", "cores", "from", "product for one row", "products", "share")
    cells = [
        (str(r.step), r.cores, r.side, r.product, count(r.multiplications), f"{100 * r.share:.0f} %")
        for r in rows(plan)
    ]
    return joined([_table(heads, cells), *(element("p", note) for note in notes(plan))])


def _block(line: Line, options: DrawOptions) -> Markup:
    """The body, the way around it, and the place where they meet."""
    body, *shortcut = line.branches
    inside = element("ol", *_layers(grouped(body), options))
    ways = element("div", element("div", class_="around"), inside, class_="ways")
    residual = isinstance(line.first.layer, Residual)
    meaning = "sum of both ways" if residual else "both ways, one behind the other in the channels"
    meeting = element("div", element("b", "+" if residual else "‖"), meaning, class_="meeting")
    parts = [ways, meeting]
    if shortcut and shortcut[0]:
        parts += [
            element("p", "On the way around:", class_="muted"),
            element("ol", *_layers(grouped(shortcut[0]), options)),
        ]
    if len(line.infos) > 1:
        each = [(str(k), dimensions(info.output_shape), count(info.size)) for k, info in enumerate(line.infos, start=1)]
        parts.append(_more(f"each of the {len(line.infos)}", _table(("block", "output", "parameters"), each)))
    return joined(parts)


def _more(title: str, content: Markup) -> Markup:
    """Details that are folded at first."""
    return element("details", element("summary", title), element("div", content, class_="rows"), class_="more")


def _table(heads: Sequence[str], cells: Iterable[Sequence[str]]) -> Markup:
    top = element("tr", *(element("th", head) for head in heads))
    return element("table", top, *(element("tr", *(element("td", cell) for cell in row)) for row in cells))


def _list(facts: Facts, class_name: str) -> Markup:
    pairs = (part for name, value in facts for part in (element("dt", name), element("dd", value)))
    return element("dl", *pairs, class_=class_name)


def _key(model: Model, lines: Iterable[Sequence[Line]], options: DrawOptions) -> Markup:
    """The legend of the sheet, with the elements that it contains."""
    operators = shapes.operators(model)
    graph, overlay = options.network(operators[0]) if operators else (None, None)
    lines_of_key = [] if graph is None else reading(graph)
    lines_of_key += [REPEATED] if any(len(line.infos) > 1 for line, *_ in lines) else []
    return key(lines_of_key, overlay)
