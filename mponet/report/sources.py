"""What lies in a folder: suites, runs, and the JSON files of cross-checks and benchmarks."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mponet.errors import CheckpointError
from mponet.training.run.folder import CONFIG
from mponet.training.suite.folder import NAME as SUITE

DEPTH = 3  # folders of folders that are looked into


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
        documents: JSON files beside them, and those that were given.
    """

    title: str
    suites: tuple[Place, ...]
    runs: tuple[Place, ...]
    documents: tuple[Document, ...]


def find(folder: Path, given: Sequence[Path] = ()) -> Sources:
    """What a folder holds: it may be that of a suite, that of a run, or have such folders in it.

    Args:
        folder: where to look.
        given: more JSON files.

    Raises:
        CheckpointError: there is neither a suite nor a run, or a file that was given cannot be
            read.
    """
    places = list(_places(folder, "", DEPTH))
    suites = tuple(place for place in places if (place.path / SUITE).is_file())
    runs = tuple(place for place in places if (place.path / CONFIG).is_file() and place not in suites)
    if not suites and not runs:
        what = "holds neither a suite nor a run" if folder.is_dir() else "is no folder"
        raise CheckpointError(
            f"{folder} {what}; expected the folder of one, or one that has such folders in it; make one with: mponet "
            "suite, or mponet run"
        )
    asked = {path.resolve() for path in given}
    beside = [path for place in places for path in sorted(place.path.glob("*.json")) if path.resolve() not in asked]
    found = [_document(path) for path in given] + [one for path in beside if (one := _document_or_none(path))]
    return Sources(folder.resolve().name, suites, runs, tuple(found))


def _places(path: Path, name: str, depth: int) -> Iterator[Place]:
    """A folder, and what is below it unless it is a suite or a run, whose inside is known."""
    yield Place(name, path)
    if depth and path.is_dir() and not any((path / file).is_file() for file in (SUITE, CONFIG)):
        for inner in sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
            yield from _places(inner, f"{name}/{inner.name}" if name else inner.name, depth - 1)


def _document(path: Path) -> Document:
    try:
        return Document(path.name, json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected the JSON of mponet crosscheck or of a "
            "benchmark; write it again"
        ) from error


def _document_or_none(path: Path) -> Document | None:
    """A file that nobody named may be anything."""
    try:
        return _document(path)
    except CheckpointError:
        return None
