"""The report: a page in one file, made of what a folder holds.

The same folder gives the same bytes.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from mponet.draw import compression_report
from mponet.draw.markup import Markup, element, joined
from mponet.draw.page import page
from mponet.errors import CheckpointError
from mponet.report import accuracy, agreement, bonds, chart, learning, speed, tables
from mponet.report.compressions import Compression, compression_section, compressions
from mponet.report.experiments import Experiment, experiments
from mponet.report.sources import Document, Sources, find

STYLE = (
    *compression_report.PAGE,
    *chart.STYLE,
    *agreement.STYLE,
    *tables.STYLE,
    "nav { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 10px 0 }",
    ".lead { font-size: 1.05em; margin: 6px 0 }",
)


_log = logging.getLogger("mponet")


def report(folder: Path, given: Sequence[Path] = ()) -> str:
    """The page about a suite, a run, a compressed network, or a folder of such.

    Args:
        folder: where they are.
        given: JSON files of ``mponet crosscheck`` and of benchmarks that lie elsewhere.

    Folders and files that are damaged or of another program are left out; a line on the page, and a
    warning, names each.

    Raises:
        CheckpointError: no training has begun and no network is compressed, or a file that was
            given cannot be used.
        InputError: matplotlib is missing.
    """
    sources = find(folder, given)
    found = experiments(sources)
    checks, omitted = _crosschecks(sources, given)
    begun = {experiment.name for experiment in found}
    omitted += [f"{place.name or sources.title}: has not begun" for place in sources.runs if place.name not in begun]
    for line in omitted:
        _log.warning("left out: %s", line)
    compressed = compressions(sources.compressions)
    if not found and not compressed:
        raise CheckpointError(f"{folder} holds no training that has begun; expected one; start it with: mponet run")
    sections = [one for one in _sections(sources, found, compressed, checks, omitted) if one is not None]
    links = element("nav", *(element("a", title, href=f"#{anchor}") for anchor, title, _ in sections), class_="screen")
    title = f"mponet report: {sources.title}"
    body = (
        element("section", element("h2", heading, id=anchor), Markup("\n"), inside)
        for anchor, heading, inside in sections
    )
    return page(title, element("h1", title), _lead(found, compressed), links, *body, style=STYLE)


def _crosschecks(sources: Sources, given: Sequence[Path]) -> tuple[list[Markup], list[str]]:
    """The maps of all cross-checks, and a line for everything that is left out.

    Raises:
        CheckpointError: a file that was given is of no use.
    """
    checks: list[Markup] = []
    omitted = list(sources.omitted)
    for place, document in enumerate(sources.documents):
        asked = place < len(given)
        if agreement.is_crosscheck(document):
            try:
                checks += agreement.parts([document])
            except CheckpointError as error:
                if asked:
                    raise
                omitted.append(str(error))
        elif asked and not speed.ratios(document):
            raise CheckpointError(
                f"{given[place]} holds neither a cross-check nor a benchmark; expected what mponet crosscheck --json "
                "prints or what mponet bench and benchmarks/plumbing.py write; leave it out"
            )
    return checks, omitted


def _sections(
    sources: Sources,
    found: Sequence[Experiment],
    compressed: Sequence[Compression],
    checks: Sequence[Markup],
    omitted: Sequence[str],
) -> Iterable[tuple[str, str, Markup] | None]:
    """Anchor, heading and content; None where there is nothing to say."""
    if compressed:
        yield "compressed", "Compressed networks", compression_section(compressed, sources.title)
    yield from _of_trainings(sources, found) if found else ()
    yield ("agreement", "Agreement of the backends", joined(checks, "\n")) if checks else None
    yield ("omitted", "Left out", element("ul", *(element("li", line) for line in omitted))) if omitted else None


def _of_trainings(sources: Sources, found: Sequence[Experiment]) -> Iterable[tuple[str, str, Markup] | None]:
    yield "results", "Beside the paper", tables.beside_the_paper(found)
    yield _charts("accuracy", "Accuracy against size", accuracy.charts(found))
    yield _charts("learning", "Learning curves", learning.charts(found))
    yield _bonds(found)
    yield _speed(found, sources.documents)
    yield "trainings", "Every training", tables.trainings(found)
    yield "commands", "Commands and versions", _commands(found)


def _lead(found: Sequence[Experiment], compressed: Sequence[Compression]) -> Markup:
    """What there is, in a line."""
    lines = [_told(found)] if found else []
    if compressed:
        lines.append(f"{len(compressed)} compressed network{'s' if len(compressed) > 1 else ''}.")
    return element("p", " ".join(lines), class_="lead")


def _told(found: Sequence[Experiment]) -> str:
    trainings = [one for experiment in found for one in experiment.trainings]
    states = [
        one.state if one.state in ("done", "diverged", "failed", "waiting") else "unfinished" for one in trainings
    ]
    told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    kinds = [f"{count} {kind}{'s' if count > 1 else ''}" for kind in ("suite", "run") if (count := _count(found, kind))]
    return f"{len(trainings)} trainings in {' and '.join(kinds)}: {told}."


def _count(found: Sequence[Experiment], kind: str) -> int:
    return sum(experiment.kind == kind for experiment in found)


def _charts(anchor: str, heading: str, charts: Iterable[Markup]) -> tuple[str, str, Markup] | None:
    drawn = list(charts)
    return (anchor, heading, element("div", joined(drawn, "\n"), class_="charts")) if drawn else None


def _bonds(found: Sequence[Experiment]) -> tuple[str, str, Markup] | None:
    drawn, silent = list(bonds.charts(found)), bonds.silent(found)
    if not drawn and not silent:
        return None
    parts = [element("div", joined(drawn, "\n"), class_="charts")] if drawn else []
    if silent:
        parts.append(
            element(
                "p",
                f"No spectra were recorded for {', '.join(silent)}: an mponet that did not measure them yet trained "
                "these networks. Train them again to see their bonds.",
                class_="muted",
            )
        )
    return "bonds", "Inside the operators", joined(parts, "\n")


def _speed(found: Sequence[Experiment], documents: Sequence[Document]) -> tuple[str, str, Markup] | None:
    return _charts("speed", "Speed and memory", [*speed.step_chart(found), *speed.ratio_charts(documents)])


def _commands(found: Sequence[Experiment]) -> Markup:
    lines = "\n".join(tables.command(experiment) for experiment in found)
    return joined([element("pre", element("code", lines)), tables.versions(found)], "\n")
