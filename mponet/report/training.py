"""The trainings of a report, each with all that its folder says, whether it is finished or not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mponet.errors import MPONetError
from mponet.models import VARIANTS
from mponet.report.sources import Place, Sources
from mponet.training.loop import Record
from mponet.training.run import Result, RunFolder, Settings, metrics, spectra
from mponet.training.run.folder import starts_of
from mponet.training.suite import Suite
from mponet.training.suite import read as read_suite
from mponet.training.suite.state import failure, outcome


@dataclass(frozen=True, slots=True)
class Training:
    """One variant of a network, trained once.

    Attributes:
        name: of the cell of a suite, or of the variant.
        group: name of the suite or run that it is of, within the folder of the report.
        settings: of its run.
        variant: ``dense`` or ``mpo``.
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
    starts: tuple[Mapping[str, Any], ...]

    @property
    def state(self) -> str:
        """``done``, ``diverged``, ``failed``, ``waiting``, or how far it is: ``step 200 of 500``."""
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
        bond = self.settings.bond if self.variant == "mpo" else None
        return self.settings.model if bond is None else f"{self.settings.model} D={bond}"


def of_suites(sources: Sources) -> Iterator[tuple[Place, Suite, tuple[Training, ...]]]:
    """Every suite with its cells.

    Raises:
        CheckpointError: a suite.json is damaged.
    """
    for place in sources.suites:
        suite = read_suite(place.path)
        yield place, suite, tuple(_of_cells(place, suite))


def of_runs(sources: Sources) -> Iterator[tuple[Place, tuple[Training, ...]]]:
    """Every run that belongs to no suite, with its variants.

    Raises:
        CheckpointError: a file of the run is damaged.
    """
    for place in sources.runs:
        home = RunFolder.existing(place.path)
        results = home.results()
        begun = [one for one in VARIANTS if one in results or home.metrics(one).exists()]
        yield place, tuple(_read(home, one, place.name, one, results.get(one), None, "") for one in begun)


def _of_cells(place: Place, suite: Suite) -> Iterator[Training]:
    for cell in suite.trainings():
        home = RunFolder(cell.run_folder(place.path), cell.settings)
        message = failure(cell, place.path)
        try:
            result = outcome(cell, place.path)
            yield _read(home, cell.variant, place.name, str(cell), result, message, suite.backend)
        except MPONetError as error:
            known = (str(cell), place.name, cell.settings, cell.variant, suite.backend)
            yield Training(*known, None, message or str(error), (), (), ())


def _read(
    home: RunFolder, variant: str, group: str, name: str, result: Result | None, message: str | None, backend: str
) -> Training:
    path = home.metrics(variant)
    try:
        records = tuple(metrics.read(path)) if path.exists() else ()
    except FileNotFoundError:  # goes while it is read: its run begins anew
        records = ()
    starts = tuple(starts_of(home.path))
    return Training(
        name,
        group,
        home.settings,
        variant,
        str(starts[-1]["backend"]) if starts else backend,
        result,
        message if result is None else result.message,
        records,
        tuple(spectra.read(home.spectra(variant))),
        starts,
    )
