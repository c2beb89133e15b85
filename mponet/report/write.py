"""The report: a page in one file, made of what a folder holds; the same folder gives the same bytes."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mponet.draw.markup import Markup, element, joined
from mponet.draw.page import page
from mponet.errors import CheckpointError
from mponet.report import accuracy, agreement, bonds, chart, learning, speed, tables
from mponet.report.experiments import Experiment, experiments
from mponet.report.sources import Document, Sources, find

STYLE = (
    *chart.STYLE,
    *agreement.STYLE,
    *tables.STYLE,
    "nav { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 10px 0 }",
    ".lead { font-size: 1.05em; margin: 6px 0 }",
)


def report(folder: Path, given: Sequence[Path] = ()) -> str:
    """The page about a suite, a run, or a folder of such.

    Args:
        folder: where they are.
        given: JSON files of ``mponet crosscheck`` and of benchmarks that lie elsewhere.

    Raises:
        CheckpointError: there is neither a suite nor a run, or a file is damaged or of no use.
        InputError: matplotlib is missing.
    """
    sources = find(folder, given)
    for document, path in zip(sources.documents, given, strict=False):
        if not agreement.is_crosscheck(document) and not speed.ratios(document):
            raise CheckpointError(
                f"{path} holds neither a cross-check nor a benchmark; expected what mponet crosscheck --json prints or "
                "what mponet bench and benchmarks/plumbing.py write; leave it out"
            )
    found = experiments(sources)
    sections = [one for one in _sections(sources, found) if one is not None]
    links = element("nav", *(element("a", title, href=f"#{anchor}") for anchor, title, _ in sections), class_="screen")
    title = f"mponet report: {sources.title}"
    body = (
        element("section", element("h2", heading, id=anchor), Markup("\n"), inside)
        for anchor, heading, inside in sections
    )
    return page(title, element("h1", title), _lead(found), links, *body, style=STYLE)


def _sections(sources: Sources, found: Sequence[Experiment]) -> Iterable[tuple[str, str, Markup] | None]:
    """Anchor, heading and content; None where there is nothing to say."""
    checks = [one for one in sources.documents if agreement.is_crosscheck(one)]
    yield "results", "Beside the paper", tables.beside_the_paper(found)
    yield _charts("accuracy", "Accuracy against size", accuracy.charts(found))
    yield _charts("learning", "Learning curves", learning.charts(found))
    yield _bonds(found)
    yield _speed(found, sources.documents)
    yield ("agreement", "Agreement of the backends", joined(agreement.parts(checks), "\n")) if checks else None
    yield "trainings", "Every training", tables.trainings(found)
    yield "commands", "Commands and versions", _commands(found)


def _lead(found: Sequence[Experiment]) -> Markup:
    """What there is, in a line."""
    trainings = [one for experiment in found for one in experiment.trainings]
    states = [
        one.state if one.state in ("done", "diverged", "failed", "waiting") else "unfinished" for one in trainings
    ]
    told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    kinds = [f"{count} {kind}{'s' if count > 1 else ''}" for kind in ("suite", "run") if (count := _count(found, kind))]
    return element("p", f"{len(trainings)} trainings in {' and '.join(kinds)}: {told}.", class_="lead")


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
