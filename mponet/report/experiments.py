"""Trainings that belong together: a suite, or a run that belongs to none."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mponet.models import build
from mponet.report.sources import Sources
from mponet.report.training import Training, of_runs, of_suites
from mponet.training.run import Result
from mponet.training.suite import Row, Suite
from mponet.training.suite import report as tabulated
from mponet.training.suite.table import row


@dataclass(frozen=True, slots=True)
class Experiment:
    """A suite or a run.

    Attributes:
        label: what charts call it, different from all others: the backend where that is enough.
        name: of its folder within that of the report; empty for that folder itself.
        kind: ``suite`` or ``run``.
        backend: what trained it.
        preset: name of the recipe.
        suite: its settings; None for a run.
        trainings: in order.
        rows: the table, with the paper's figures.
    """

    label: str
    name: str
    kind: str
    backend: str
    preset: str
    suite: Suite | None
    trainings: tuple[Training, ...]
    rows: tuple[Row, ...]


def experiments(sources: Sources) -> tuple[Experiment, ...]:
    """All of a folder, with labels that differ."""
    found = [*_suites(sources), *_runs(sources)]
    for label in (
        lambda one: one.backend,
        lambda one: f"{one.backend}, {one.preset}",
        lambda one: one.name or one.kind,
    ):
        labels = [label(one) for one in found]
        if max(Counter(labels).values(), default=1) == 1:
            break
    return tuple(replace(one, label=text) for one, text in zip(found, labels, strict=True))


def _suites(sources: Sources) -> Iterator[Experiment]:
    for place, suite, trainings in of_suites(sources):
        rows = tabulated(suite, place.path).rows
        yield Experiment("", place.name, "suite", suite.backend, suite.preset, suite, trainings, rows)


def _runs(sources: Sources) -> Iterator[Experiment]:
    for place, trainings in of_runs(sources):
        if trainings:
            first = trainings[0].settings
            model = build(first.model, "mpo", first.bond)
            low_rank = _results(trainings, "low-rank") if any(t.variant == "low-rank" for t in trainings) else None
            one = row(model, first.data, _results(trainings, "dense"), _results(trainings, "mpo"), low_rank)
            backend, preset = trainings[0].backend, first.recipe.name
            yield Experiment("", place.name, "run", backend, preset, None, trainings, (one,))


def _results(trainings: Sequence[Training], variant: str) -> list[Result]:
    return [
        one.result for one in trainings if one.variant == variant and one.result is not None and not one.result.diverged
    ]
