"""The page of a compression's report: figures before and after, samples, and the plan."""

from collections.abc import Iterator

from mponet.compress.report import COLUMNS, Measurement, Report, figure_text
from mponet.draw.compression import PAGE as PLAN_PAGE
from mponet.draw.compression import facts, headline, plan_parts, plan_svg
from mponet.draw.markup import Markup, element, joined
from mponet.draw.page import page
from mponet.draw.theme import Theme

PAGE = (
    *PLAN_PAGE,
    ".sample { border-left: 2px solid $rule; margin: 10px 0; padding: 0 0 0 12px }",
    ".sample dt { color: $muted } .sample dd { margin: 0 0 6px; white-space: pre-wrap; overflow-wrap: anywhere }",
)


def report_page(report: Report) -> str:
    """The page of a report, ending in a newline."""
    title = report_headline(report)
    return page(title, element("h1", title), *report_parts(report), style=PAGE)


def report_svg(report: Report, theme: Theme = "auto") -> Markup:
    """The picture of a report: that of its plan, with the figures in its heading."""
    return plan_svg(report.plan, report_headline(report), theme, notes=[*facts(report.plan), *figure_lines(report)])


def report_headline(report: Report) -> str:
    """The report in a few words."""
    return headline(report.plan).replace("Compression plan", "Compressed network")


def report_parts(report: Report) -> Iterator[Markup]:
    """The elements of a page about a report, for a page with `PAGE` as style."""
    if report.measurements:
        yield element("h2", "Before and after")
        yield figures_table(report)
    if report.healing is not None:
        yield element("p", *_lines(str(report.healing)))
    if report.samples:
        yield element("h2", "Samples")
        yield from (_sample(report, k) for k in range(len(report.samples)))
    yield element("h2", "Plan")
    yield from plan_parts(report.plan)
    yield element("p", *_lines("\n".join(_closing(report))), class_="muted")


def figures_table(report: Report) -> Markup:
    """The figures of a report, a row each, with the ratio to the dense network."""
    healed = any(one.healed is not None for one in report.measurements)
    columns = COLUMNS if healed else COLUMNS[:2]
    heads = ["", *columns, *(f"{column} / before" for column in columns[1:])]
    head = element("tr", *(element("th", name, class_="right" if k else None) for k, name in enumerate(heads)))
    rows = [
        element("tr", element("td", _named(one)), *(element("td", cell, class_="right") for cell in _row(one, columns)))
        for one in report.measurements
    ]
    return element("table", element("thead", head), element("tbody", joined(rows, "\n")))


def figure_lines(report: Report) -> list[str]:
    """The figures of a report in words."""
    lines = []
    for one in report.measurements:
        steps = [(name, getattr(one, name)) for name in COLUMNS]
        words = ", ".join(f"{name} {figure_text(value)}" for name, value in steps if value is not None)
        lines.append(f"{_named(one)}: {words}.")
    return lines


def _named(one: Measurement) -> str:
    return f"{one.name}, {one.unit}" if one.unit else one.name


def _row(one: Measurement, columns: tuple[str, ...]) -> Iterator[str]:
    figures = [getattr(one, column) for column in columns]
    yield from ("" if value is None else figure_text(value).replace(",", " ") for value in figures)
    before, *others = figures
    yield from ("" if value is None or not before else f"{value / before:.3g}" for value in others)


def _sample(report: Report, number: int) -> Markup:
    sample = report.samples[number]
    parts = [("given", sample.prompt), *((name, getattr(sample, name)) for name in COLUMNS)]
    entries = [(element("dt", name), element("dd", text)) for name, text in parts if text]
    return element("dl", *(markup for entry in entries for markup in entry), class_="sample")


def _closing(report: Report) -> Iterator[str]:
    if report.output_errors:
        yield f"Fitted output errors differ from predicted ones by at most {report.deviation:.1%}."
    if report.seconds:
        yield f"Time: {', '.join(f'{name} {value:.0f} s' for name, value in report.seconds.items())}."


def _lines(text: str) -> Iterator[Markup]:
    for k, line in enumerate(text.split("\n")):
        if k:
            yield element("br")
        yield joined([line])
