"""The tables of a report: ours and the paper's, every training, versions and commands."""

import shlex
from collections import Counter
from collections.abc import Sequence

from mponet.draw.markup import Markup, element, joined
from mponet.models import PAPER_VARIANTS
from mponet.report.experiments import Experiment
from mponet.report.training import Training
from mponet.training.suite import Row
from mponet.training.suite.write import flat, percent, ratio, seeds

STYLE = (
    ".wide { overflow-x: auto; margin: 8px 0 } .wide table { font-size: .93em } .wide td { white-space: nowrap }",
    ".wide :is(td, th):first-child { position: sticky; left: 0; background: $surface }",
    ".wide thead th { vertical-align: bottom } .group { border-left: 1px solid $rule; padding-left: 12px }",
    ".paper { color: $muted } .best { font-weight: 600 }",
    ".message { display: inline-block; white-space: normal; min-width: 300px }",
    "pre { background: $raised; border-radius: 6px; padding: 8px 12px }",
    "pre { white-space: pre-wrap; overflow-wrap: anywhere }",
)
#: Headings in two lines: groups with their columns.
GROUPS = {"dense": ("best", "last", "paper"), "mpo": ("best", "last", "paper")}
LOW_RANK = {"low-rank": ("best", "last", "rho")}
LAST_GROUPS = {"rho": ("ours", "paper"), "": ("whole", "seeds")}
CAPTION = (
    "Test accuracy in %, mean ± sample standard deviation over the trainings. best: the largest of all evaluations on "
    "the test set during a training; last: the one at its end. The paper's figures are the best over all evaluations "
    "on the test set, mean ± deviation of 5 trainings. rho (Eq. 9): weights of the operators over weights of the "
    "layers that they replace; whole: parameters of the MPO network over those of the dense network."
)


def beside_the_paper(experiments: Sequence[Experiment]) -> Markup:
    """A row for every network and experiment, those of one network together."""
    several = len(experiments) > 1
    words = ("network", "data", *(("trained by",) if several else ()))
    compared = any(row.low_rank for experiment in experiments for row in experiment.rows)
    columns = GROUPS | (LOW_RANK if compared else {}) | LAST_GROUPS
    groups = [
        element("th", name, colspan=str(len(names)), class_="group", scope="colgroup")
        for name, names in columns.items()
    ]
    numbers = [
        (name, place == 0 and bool(group)) for group, names in columns.items() for place, name in enumerate(names)
    ]
    heads = [
        *(element("th", name, scope="col") for name in words),
        *(element("th", name, class_=_classes(first=first), scope="col") for name, first in numbers),
    ]
    head = element("thead", element("tr", element("th", colspan=str(len(words))), *groups), element("tr", *heads))
    kinds = [_classes(name if name in ("best", "paper") else "", first=first) for name, first in numbers]
    lines = [
        _line(row, experiment.label if several else None, kinds, compared) for row, experiment in _together(experiments)
    ]
    body = element("tbody", joined(lines, "\n"))
    sources = dict.fromkeys(
        row.published.source for experiment in experiments for row in experiment.rows if row.published
    )
    source = f" Paper: {'; '.join(sources)}." if sources else ""
    return joined([scrolling(element("table", head, body)), element("p", CAPTION + source, class_="muted")], "\n")


def _together(experiments: Sequence[Experiment]) -> list[tuple[Row, Experiment]]:
    """Rows in the order in which their networks first come."""
    pairs = [(row, experiment) for experiment in experiments for row in experiment.rows]
    order = list(dict.fromkeys((row.data, row.model, row.bond) for row, _ in pairs))
    return sorted(pairs, key=lambda pair: order.index((pair[0].data, pair[0].model, pair[0].bond)))


def trainings(experiments: Sequence[Experiment]) -> Markup:
    """A row for every training, with its accuracy or what became of it."""
    heads = ["training", "backend", "state", "best", "last", "loss", "steps", "step", "time", "what happened"]
    rows = [
        _training(experiment, one, len(experiments) > 1) for experiment in experiments for one in experiment.trainings
    ]
    if not any(one.message for experiment in experiments for one in experiment.trainings):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    return table(heads, rows, right=range(3, 9))


def versions(experiments: Sequence[Experiment]) -> Markup:
    """Each backend with its device and versions, and how many trainings it started.

    A training that is resumed counts again.
    """
    counts = Counter(
        (start.backend, start.device, ", ".join(f"{name} {number}" for name, number in sorted(start.versions.items())))
        for experiment in experiments
        for training in experiment.trainings
        for start in training.starts
    )
    rows = [[*start, str(count)] for start, count in counts.items()]
    return table(("backend", "device", "versions", "starts"), rows, right=(3,))


def command(experiment: Experiment) -> str:
    """The command that trained the experiment, without folders of this machine."""
    options: tuple[tuple[str, str | int | None], ...]
    if experiment.suite is not None:
        suite = experiment.suite
        models = ",".join(map(str, suite.networks))
        words = ["suite", "--backend", suite.backend, "--preset", suite.preset, "--models", models]
        words += ["--seeds", str(suite.seeds)]
        variants = None if suite.variants == PAPER_VARIANTS else ",".join(suite.variants)
        options = (
            ("--variants", variants),
            ("--data", suite.data),
            ("--epochs", suite.epochs),
            ("--steps", suite.steps),
        )
    else:
        settings, trained = experiment.trainings[0].settings, tuple(one.variant for one in experiment.trainings)
        several = "both" if trained == PAPER_VARIANTS else "all"
        words = ["run", settings.model, "--variant", trained[0] if len(trained) == 1 else several]
        words += ["--backend", experiment.backend, "--data", settings.data, "--preset", experiment.preset]
        words += ["--steps", str(settings.recipe.steps), "--seed", str(settings.seed)]
        options = (("--bond", settings.bond),)
    words += [word for name, value in options if value is not None for word in (name, str(value))]
    return shlex.join(["mponet", *words, "--out", experiment.name or "DIR"])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] | range = ()) -> Markup:
    """A table with numbers on the right in the columns ``right``; cells may be markup."""
    aligned = ["right" if place in right else None for place in range(len(heads))]
    head = [element("th", name, class_=side, scope="col") for name, side in zip(heads, aligned, strict=True)]
    lines = [
        element("tr", *(element("td", cell, class_=side) for cell, side in zip(row, aligned, strict=True)))
        for row in rows
    ]
    return scrolling(element("table", element("thead", element("tr", *head)), element("tbody", joined(lines, "\n"))))


def scrolling(inside: Markup) -> Markup:
    """A table that scrolls by itself where the page is narrow."""
    return element("div", inside, class_="wide", tabindex="0")


def _line(row: Row, label: str | None, kinds: Sequence[str], compared: bool) -> Markup:
    """A row; ``compared`` says whether the table has columns for low rank."""
    paper = row.published
    numbers = (
        percent(row.normal.best),
        percent(row.normal.last),
        percent(paper.normal if paper else None),
        percent(row.mpo.best),
        percent(row.mpo.last),
        (paper.note if paper else None) or percent(paper.mpo if paper else None),
        *(_compared(row) if compared else ()),
        ratio(row.rho),
        ratio(paper.rho if paper else None),
        ratio(row.parameter_ratio),
        seeds(row),
    )
    network = row.model if row.bond is None else f"{row.model} D={row.bond}"
    return element(
        "tr",
        *(element("td", word) for word in (network, row.data, *(() if label is None else (label,)))),
        *(element("td", text, class_=kind) for text, kind in zip(numbers, kinds, strict=True)),
    )


def _compared(row: Row) -> tuple[str, ...]:
    best, last = (row.low_rank.best, row.low_rank.last) if row.low_rank else (None, None)
    return percent(best), percent(last), ratio(row.low_rank_rho)


def _classes(kind: str = "", *, first: bool) -> str:
    """Classes of a number's cell; the first of a group has a rule on its left."""
    return " ".join(word for word in ("right", kind, "group" if first else "") if word)


def _training(experiment: Experiment, one: Training, several: bool) -> list[str]:
    result, measured = one.result, one.accuracies
    last = one.records[-1] if one.records else None
    name = f"{experiment.name}/{one.name}" if several and experiment.name else one.name
    return [
        name,
        one.backend,
        one.state,
        f"{max(measured):.2%}" if measured else "",
        f"{measured[-1]:.2%}" if measured else "",
        "" if result is None or result.loss is None else f"{result.loss:.3g}",
        "" if last is None else str(last.step),
        "" if result is None or result.step_ms is None else f"{result.step_ms:.2f} ms",
        "" if last is None else f"{last.seconds:.0f} s",
        element("span", flat(one.message or ""), class_="message"),
    ]
