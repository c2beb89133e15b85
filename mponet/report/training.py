"""The trainings of a report, each with all that its folder says, whether it is finished or not."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mponet.errors import MPONetError
from mponet.files import exists
from mponet.models import VARIANTS
from mponet.report.sources import Place, Sources
from mponet.training.loop import Record
from mponet.training.run import Result, RunFolder, Settings, metrics, spectra
from mponet.training.run.folder import Start, starts_of
from mponet.training.suite import Suite
from mponet.training.suite import read as read_suite
from mponet.training.suite.state import failure, outcome


@dataclass(frozen=True, slots=True)
class Training:
    """One variant of a network, trained once.

    Attributes:
        name: of the training of a suite, or of the variant.
        group: name of the suite or run that it is of, within the folder of the report.
        settings: of its run.
        variant: one of `mponet.models.VARIANTS`.
        backend: what trained it last; a suite knows it before anything has begun.
        result: what came out; None if it is not finished.
        message: why it diverged or failed.
        records: the course so far.
        spectra: of its operators; empty for a dense network, and where an older mponet trained.
        starts: who trained it: backend, device and versions.
    """

    name: str
    group: str
    settings: Settings
    variant: str
    backend: str
    result: Result | None
    message: str | None
    records: tuple[Record, ...]
    spectra: tuple[spectra.Spectra, ...]
    starts: tuple[Start, ...]

    @property
    def state(self) -> str:
        """``done``, ``diverged``, ``failed``, ``waiting``, or progress: ``step 200 of 500``."""
        if self.result is not None:
            return "diverged" if self.result.diverged else "done"
        if self.message is not None:
            return "failed"
        if not self.records:
            return "waiting"
        return f"step {self.records[-1].step} of {self.settings.recipe.steps}"

    @property
    def accuracies(self) -> list[float]:
        """All that were measured, in order; none of a training that diverged."""
        if self.result is not None and self.result.diverged:
            return []
        return [record.accuracy for record in self.records if record.accuracy is not None]

    @property
    def network(self) -> str:
        """``fc2 D=4``; the dense network belongs to all bonds and has none."""
        bond = None if self.variant == "dense" else self.settings.bond
        return self.settings.model if bond is None else f"{self.settings.model} D={bond}"


def of_suites(sources: Sources) -> Iterator[tuple[Place, Suite, tuple[Training, ...]]]:
    """Every suite with its trainings."""
    for place in sources.suites:
        suite = read_suite(place.path)
        yield place, suite, tuple(_of_suite(place, suite))


def of_runs(sources: Sources) -> Iterator[tuple[Place, tuple[Training, ...]]]:
    """Every run that belongs to no suite, with the variants that have begun."""
    for place in sources.runs:
        run_folder = RunFolder.existing(place.path)
        results, problem = _results(run_folder)
        trainings = []
        for variant in VARIANTS:
            known = (run_folder, variant, place.name, variant)
            if problem or variant in results or exists(run_folder.metrics(variant)):
                trainings.append(_training(*known, results.get(variant), problem, ""))
        yield place, tuple(trainings)


def _results(run_folder: RunFolder) -> tuple[dict[str, Result], str | None]:
    """The results of a run, or why they cannot be read."""
    try:
        return run_folder.results(), None
    except MPONetError as error:
        return {}, str(error)


def _of_suite(place: Place, suite: Suite) -> Iterator[Training]:
    for training in suite.trainings():
        run_folder = RunFolder(training.run_folder(place.path), training.settings)
        message = failure(training, place.path)
        result = None if message else outcome(training, place.path)
        yield _training(run_folder, training.variant, place.name, str(training), result, message, suite.backend)


def _training(
    run_folder: RunFolder, variant: str, group: str, name: str, result: Result | None, message: str | None, backend: str
) -> Training:
    """A training with all that can be read of it; what is damaged is its message."""
    records: tuple[Record, ...] = ()
    measured: tuple[spectra.Spectra, ...] = ()
    starts: tuple[Start, ...] = ()
    try:
        starts = tuple(starts_of(run_folder.path))
        records = tuple(metrics.read_if_begun(run_folder.metrics(variant)))
        measured = tuple(spectra.read(run_folder.spectra(variant)))
    except MPONetError as error:
        message, result = message or str(error), None
    return Training(
        name,
        group,
        run_folder.settings,
        variant,
        starts[-1].backend if starts else backend,
        result,
        _relative(message, run_folder.path) if result is None else result.message,
        records,
        measured,
        starts,
    )


def _relative(message: str | None, path: Path) -> str | None:
    """A message for a page, which must not depend on where its folder lies."""
    return None if message is None else message.replace(f"{path}{os.sep}", "")
