"""Compressed networks in a report: what is left, what it costs, figures before and after."""

from collections.abc import Sequence
from dataclasses import dataclass

from mponet.compress.report import COLUMNS, Measurement, Report, figure_text
from mponet.draw.compression_report import report_parts
from mponet.draw.markup import Markup, element, joined
from mponet.models.outline import count
from mponet.report.sources import Place, read_compression
from mponet.report.tables import table


@dataclass(frozen=True, slots=True)
class Compression:
    """A compressed network.

    Attributes:
        name: of its folder within that of the report; empty for that folder itself.
        report: what was done; with a plan only, where no report was saved.
    """

    name: str
    report: Report


def compressions(places: Sequence[Place]) -> tuple[Compression, ...]:
    """The compressed networks of some folders."""
    return tuple(Compression(place.name, read_compression(place.path)) for place in places)


def compression_section(found: Sequence[Compression], title: str) -> Markup:
    """A table of all, then each with its figures, samples and plan, folded where there are several.

    Args:
        found: at least one.
        title: what a network in the folder of the report itself is called.
    """
    names = [one.name or title for one in found]
    parts = [] if len(found) == 1 else [_table(found, names)]
    for name, one in zip(names, found, strict=True):
        body = _lowered(joined(report_parts(one.report), "\n"))
        parts.append(body if len(found) == 1 else element("details", element("summary", name), body))
    return joined(parts, "\n")


def _table(found: Sequence[Compression], names: Sequence[str]) -> Markup:
    """A row for every network; a column for each figure that any of them has."""
    figures = list(dict.fromkeys(m.name for one in found for m in one.report.measurements))
    heads = ("network", "layers", "weights", "keep", "network keep", "predicted loss", *figures)
    rows = []
    for name, one in zip(names, found, strict=True):
        plan = one.report.plan
        known = {m.name: m for m in one.report.measurements}
        cells = [" → ".join(_steps(known[figure])) if figure in known else "" for figure in figures]
        loss = "" if plan.loss is None else f"{plan.loss:.3g}"
        replaced = f"{len(plan.replaced)} of {len(plan.matched)}"
        kept = f"{plan.keep:.3f}", f"{plan.network_keep:.3f}"
        rows.append([name, replaced, count(plan.network_weights), *kept, loss, *cells])
    return table(heads, rows, right=range(1, len(heads)))


def _steps(measurement: Measurement) -> list[str]:
    values = (getattr(measurement, name) for name in COLUMNS)
    return [figure_text(value) for value in values if value is not None]


def _lowered(body: Markup) -> Markup:
    """Headings one level lower, for a section that has a heading of its own."""
    return Markup(body.replace("<h2>", "<h3>").replace("</h2>", "</h3>"))
