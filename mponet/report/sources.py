"""What lies in a folder: suites, runs, and the JSON files of cross-checks and benchmarks."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mponet.compress.plan import CompressionPlan
from mponet.compress.report import NAME, Report
from mponet.errors import CheckpointError, MPONetError
from mponet.files import exists, parse_json, read_bytes
from mponet.training.run import RunFolder
from mponet.training.run.folder import CONFIG
from mponet.training.suite import read as read_suite
from mponet.training.suite.folder import NAME as SUITE

#: Plans in the folders of compressed networks: of an adapter, and of the command.
PLANS = ("compression_plan.json", "mponet.json")
DEPTH = 3  # folders of folders that are looked into
MAX_FOLDERS, MAX_DOCUMENTS = 5000, 500  # what is beyond is left out, and said


@dataclass(frozen=True, slots=True)
class Place:
    """A folder.

    Attributes:
        name: within the folder of the report; empty for that folder itself.
        path: where it is.
    """

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON file.

    Attributes:
        name: of the file.
        content: what is in it.
    """

    name: str
    content: Any


@dataclass(frozen=True, slots=True)
class Sources:
    """What a report is made from, everything in the order of names.

    Attributes:
        title: name of the folder.
        suites: folders of suites.
        runs: folders of runs that belong to no suite.
        compressions: folders of compressed networks.
        documents: JSON files in the same folders, and those that were given.
        omitted: a line for everything that is damaged, foreign or out of reach, and why.
    """

    title: str
    suites: tuple[Place, ...]
    runs: tuple[Place, ...]
    compressions: tuple[Place, ...]
    documents: tuple[Document, ...]
    omitted: tuple[str, ...] = ()


def find(folder: Path, given: Sequence[Path] = ()) -> Sources:
    """What a folder holds: it may be that of a suite, of a run or of a compressed network.

    Or it has such folders in it.

    Args:
        folder: where to look.
        given: more JSON files.

    Raises:
        CheckpointError: there is no suite, no run and no compressed network, or a file that was
            given cannot be read.
    """
    search = _Search()
    search.visit(folder, "", DEPTH)
    if not (search.suites or search.runs or search.compressions):
        what = "holds no suite, no run and no compressed network" if os.path.isdir(folder) else "is not a folder"  # noqa: PTH112 - never raises
        why = f" ({search.omitted[0]})" if search.omitted else ""
        raise CheckpointError(
            f"{folder} {what}{why}; expected the folder of one, or one that has such folders in it; make one with: "
            "mponet suite, or mponet run"
        )
    asked = {os.path.realpath(path) for path in given}
    documents = [_document(path) for path in given]
    for path in search.files[:MAX_DOCUMENTS]:
        if os.path.realpath(path) not in asked and (document := _document_or_none(path)):
            documents.append(document)
    if len(search.files) > MAX_DOCUMENTS:
        search.omitted.append(f"{len(search.files) - MAX_DOCUMENTS} JSON files beyond the first {MAX_DOCUMENTS}")
    title = Path(os.path.realpath(folder)).name
    suites, runs, compressions = map(tuple, (search.suites, search.runs, search.compressions))
    return Sources(title, suites, runs, compressions, tuple(documents), tuple(search.omitted))


def read_compression(path: Path) -> Report:
    """The report of the folder of a compressed network, or a report with its plan alone.

    Raises:
        CheckpointError: a file cannot be read.
        CompressionError: it is damaged.
    """
    if exists(path / NAME):
        return Report.load(path)
    return Report(CompressionPlan.load(next(path / name for name in PLANS if exists(path / name))))


class _Search:
    """Walks through folders; whatever cannot be used becomes a line in ``omitted``."""

    def __init__(self) -> None:
        self.suites: list[Place] = []
        self.runs: list[Place] = []
        self.compressions: list[Place] = []
        self.files: list[Path] = []
        self.omitted: list[str] = []
        self._visited = 0

    def visit(self, path: Path, name: str, depth: int) -> None:
        """Look at a folder, and below it unless it is a suite or a run, whose inside is known."""
        self._visited += 1
        if self._visited > MAX_FOLDERS:
            if self._visited == MAX_FOLDERS + 1:
                self.omitted.append(f"folders beyond the first {MAX_FOLDERS}")
            return
        try:
            entries = sorted(path.iterdir(), key=lambda entry: entry.name)
        except OSError as error:
            self.omitted.append(f"{name or path.name}: {error.strerror}")
            return
        names = {entry.name for entry in entries}
        self.files += [entry for entry in entries if entry.suffix == ".json"]
        if not self._is_known(Place(name, path), names) and depth:
            for inner in entries:
                # os.path.isdir: unlike Path.is_dir it raises nothing, whatever is there
                if not inner.name.startswith(".") and os.path.isdir(inner):  # noqa: PTH112
                    self.visit(inner, f"{name}/{inner.name}" if name else inner.name, depth - 1)

    def _is_known(self, place: Place, names: set[str]) -> bool:
        """Whether a folder is that of a suite, of a run or of a compressed network.

        One of another program is left out with a line.
        """
        known: tuple[tuple[str, Callable[[Path], Any], list[Place]], ...] = (
            (SUITE, read_suite, self.suites),
            (CONFIG, RunFolder.existing, self.runs),
            *((plan, read_compression, self.compressions) for plan in PLANS),
        )
        for file, check, places in known:
            if file in names:
                try:
                    check(place.path)
                except MPONetError as error:
                    self.omitted.append(f"{place.name or place.path.name}: {_without_path(error, place)}")
                    continue
                places.append(place)
                return True
        return False


def _without_path(error: Exception, place: Place) -> str:
    """A message for a page, which must not depend on where its folder lies."""
    return str(error).replace(f"{place.path}{os.sep}", "")


def _document(path: Path) -> Document:
    payload = read_bytes(path)
    try:
        return Document(path.name, parse_json(payload, Any))
    except ValueError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); expected the JSON of mponet crosscheck or of a benchmark; write it again"
        ) from error


def _document_or_none(path: Path) -> Document | None:
    """A file that was not asked for may be anything."""
    try:
        return _document(path)
    except CheckpointError:
        return None
