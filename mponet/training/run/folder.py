"""The folder of a run: what it was started with, and what came out so far."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from mponet._version import __version__
from mponet.backend import Backend
from mponet.contraction.machine import cores
from mponet.contraction.planner import mode
from mponet.errors import CheckpointError, RecipeError
from mponet.files import exists, read_json, remove_leftovers, write_json, writing
from mponet.group import ALONE, Group
from mponet.models import VARIANTS
from mponet.training.checkpoint import NAME as CHECKPOINT
from mponet.training.checkpoint import Checkpoint, load
from mponet.training.run.lines import complete_lines
from mponet.training.run.metrics import NAME as METRICS
from mponet.training.run.result import Result, summary
from mponet.training.run.settings import Settings, differences, from_dict
from mponet.training.run.spectra import NAME as SPECTRA
from mponet.training.schema import Name, Positive, Versions

MAX_THREADS = 2**16
CONFIG, RESULT, LOCK = "config.json", "result.json", "run.lock"
FORMAT, FORMAT_VERSION = "mponet-run", 1
REMEDY = "choose another --out, or delete the folder"


@dataclass(frozen=True, slots=True)
class Start:
    """Who trained: one process from its start to its end.

    Attributes:
        backend: name of the framework.
        device: that it computed on.
        versions: of mponet and of the packages underneath.
        plans: how contraction plans were chosen, ``model`` or ``measure``; it may change the last
            bits.
        threads: threads that sums are shared by, from ``OMP_NUM_THREADS`` or the processors that
            the process may use; it may change the last bits, too.  None in files of earlier
            versions.
        processes: that train together.
        sharded: whether each of them keeps a share of the parameters.
    """

    backend: Name
    device: Name
    versions: Versions
    plans: Name = "model"
    threads: Positive | None = None
    processes: Positive = 1
    sharded: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Config:
    """config.json."""

    format: Literal["mponet-run"]
    format_version: Literal[1]
    settings: dict[str, Any]
    starts: Annotated[list[Start], Meta(max_length=100_000)]


@dataclass(frozen=True, slots=True)
class Results:
    """What is used of result.json."""

    variants: dict[Literal["dense", "mpo", "low-rank"], Result]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths and small files of a run.

    Attributes:
        path: the folder.
        settings: of the run in it.
    """

    path: Path
    settings: Settings

    @classmethod
    def open(cls, path: Path, settings: Settings, variants: Sequence[str], *, resume: bool) -> "RunFolder":
        """The folder, made if it is not there; its lock must be held.

        A variant that it does not hold yet may join those that it holds.

        Raises:
            RecipeError: it holds one of ``variants`` and ``resume`` is false, or a run of other
                settings.
            CheckpointError: its config.json is damaged, or it cannot be made.
        """
        present = [variant for variant in VARIANTS if _begun(path / variant)]
        if present:
            _check_same(path, settings)
        if not resume and (again := [variant for variant in variants if variant in present]):
            raise RecipeError(
                f"{path} already holds {' and '.join(again)} of this run; expected a new folder; continue with "
                "--resume, choose another --out, or delete it"
            )
        with writing(path):
            for variant in variants:
                (path / variant).mkdir(parents=True, exist_ok=True)
                remove_leftovers(path / variant)
            if not present:  # of a start that failed before its first step: its settings do not count
                (path / CONFIG).unlink(missing_ok=True)
        return cls(path, settings)

    @classmethod
    def existing(cls, path: Path) -> "RunFolder":
        """The folder of a run that has begun, with the settings that it was started with.

        Raises:
            CheckpointError: its config.json is absent or damaged.
        """
        return cls(path, _settings(path))

    def check(self) -> None:
        """See that the folder, if anything is in it, holds a run of these settings.

        Nothing is written.

        Raises:
            RecipeError: it holds a run of other settings.
            CheckpointError: its config.json is damaged.
        """
        if any(_begun(self.path / variant) for variant in VARIANTS):
            _check_same(self.path, self.settings)

    def checkpoint(self, variant: str) -> Path:
        """Where the checkpoint of a variant is."""
        return self.path / variant / CHECKPOINT

    def metrics(self, variant: str) -> Path:
        """Where the records of a variant are."""
        return self.path / variant / METRICS

    def spectra(self, variant: str) -> Path:
        """Where the spectra of a variant's operators are, if it has any."""
        return self.path / variant / SPECTRA

    def load(self, variant: str) -> Checkpoint | None:
        """The checkpoint of a variant, if there is one.

        Raises:
            CheckpointError: it is damaged.
            RecipeError: it belongs to another run.
        """
        path = self.checkpoint(variant)
        if not exists(path):
            return None
        checkpoint = load(path)
        own = Settings(checkpoint.model.name, self.settings.bond, checkpoint.data, checkpoint.recipe, checkpoint.seed)
        lines = differences(self.settings.as_dict(), own.as_dict())
        if checkpoint.model != self.settings.networks[variant]:
            lines.append(f"network is {self.settings.networks[variant]!r}, was {checkpoint.model!r}")
        if lines:
            raise RecipeError(_other(path, lines))
        return checkpoint

    def note_start(self, backend: Backend, device: str | None, group: Group = ALONE) -> list[str]:
        """Add to config.json who trains from now on.

        What differs from the start before, one line each.
        """
        versions = {"mponet": __version__, "python": platform.python_version(), "numpy": np.__version__}
        where = device or backend.devices()[0]
        start = Start(
            backend.name, where, versions | backend.versions(), mode(), _threads(), group.count, group.sharded
        )
        earlier = starts_of(self.path)
        config = {"format": FORMAT, "format_version": FORMAT_VERSION, "settings": self.settings.as_dict()}
        write_json(self.path / CONFIG, {**config, "starts": [one.as_dict() for one in (*earlier, start)]})
        return differences(start.as_dict(), earlier[-1].as_dict()) if earlier else []

    def note_result(self, variant: str, result: Result, backend: str) -> None:
        """Add the result of a variant to result.json."""
        write_json(self.path / RESULT, summary(self.settings, backend, {**self.results(), variant: result}))

    def results(self) -> dict[str, Result]:
        """The results of the variants that are finished.

        Raises:
            CheckpointError: result.json is damaged.
        """
        path = self.path / RESULT
        if not exists(path):
            return {}
        variants = read_json(path, Results, remedy=REMEDY).variants
        # The folder may have been moved since.
        return {variant: replace(result, checkpoint=self._existing(variant)) for variant, result in variants.items()}

    def _existing(self, variant: str) -> str | None:
        path = self.checkpoint(variant)
        return str(path) if exists(path) else None


def starts_of(path: Path) -> list[Start]:
    """Who trained in a folder, one entry per process; empty where it has not begun.

    Raises:
        CheckpointError: its config.json is damaged.
    """
    return read_json(path / CONFIG, Config, remedy=REMEDY).starts if exists(path / CONFIG) else []


def _threads() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isascii() and asked.isdigit() and 0 < int(asked) < MAX_THREADS else cores()


def _begun(path: Path) -> bool:
    return exists(path / CHECKPOINT) or bool(complete_lines(path / METRICS))


def _settings(path: Path) -> Settings:
    config = read_json(path / CONFIG, Config, remedy=REMEDY)
    try:
        return from_dict(config.settings)
    except ValueError as error:
        raise CheckpointError(f"{path / CONFIG} is damaged: {error}; {REMEDY}") from error


def _check_same(path: Path, settings: Settings) -> None:
    own = settings.as_dict()
    if read_json(path / CONFIG, Config, remedy=REMEDY).settings == own:
        return  # without building the networks of the settings in the file
    if lines := differences(own, _settings(path).as_dict()):
        raise RecipeError(_other(path, lines))


def _other(path: Path, lines: Sequence[str]) -> str:
    return (
        f"{path} holds a run of other settings: {'; '.join(lines)}; expected the same; give those it was started with, "
        "or choose another --out"
    )
