"""The folder of a run: what it was started with, and what came out so far."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mponet._version import __version__
from mponet.backend import Backend
from mponet.errors import CheckpointError, RecipeError
from mponet.files import write_json, writing
from mponet.models import VARIANTS
from mponet.training.checkpoint import NAME as CHECKPOINT
from mponet.training.checkpoint import Checkpoint, load
from mponet.training.run.metrics import NAME as METRICS
from mponet.training.run.result import Result, summary
from mponet.training.run.settings import Settings, differences, from_dict
from mponet.training.run.spectra import NAME as SPECTRA

CONFIG, RESULT = "config.json", "result.json"
FORMAT, FORMAT_VERSION = "mponet-run", 1


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
        """The folder, made if it is not there.

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
                f"{path} already holds {' and '.join(again)} of such a run; expected a new folder; go on with --resume,"
                " choose another --out, or delete it"
            )
        with writing(path):
            for variant in variants:
                (path / variant).mkdir(parents=True, exist_ok=True)
            if not present:  # of a start that failed before its first step, with settings that bind nobody
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
        """See that the folder, if anything is in it, holds a run of these settings; nothing is written.

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
        if not path.exists():
            return None
        found = load(path)
        own = Settings(found.model.name, self.settings.bond, found.data, found.recipe, found.seed)
        lines = differences(self.settings.as_dict(), own.as_dict())
        if found.model != self.settings.networks[variant]:
            lines.append(f"network is {self.settings.networks[variant]!r}, was {found.model!r}")
        if lines:
            raise RecipeError(_other(path, lines))
        return found

    def note_start(self, backend: Backend, device: str | None) -> None:
        """Add to config.json who trains from now on."""
        path = self.path / CONFIG
        earlier = _read(path, FORMAT)["starts"] if path.exists() else []
        versions = {"mponet": __version__, "python": platform.python_version(), "numpy": np.__version__}
        begin = {
            "backend": backend.name,
            "device": device or backend.devices()[0],
            "versions": versions | backend.versions(),
        }
        config = {"format": FORMAT, "format_version": FORMAT_VERSION, "settings": self.settings.as_dict()}
        write_json(path, {**config, "starts": [*earlier, begin]})

    def note_result(self, variant: str, result: Result, backend: str) -> None:
        """Add the result of a variant to result.json."""
        write_json(self.path / RESULT, summary(self.settings, backend, {**self.results(), variant: result}))

    def results(self) -> dict[str, Result]:
        """The results of the variants that are finished.

        Raises:
            CheckpointError: result.json is damaged.
        """
        path = self.path / RESULT
        if not path.exists():
            return {}
        try:
            found = {variant: Result(**values) for variant, values in _read(path)["variants"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(_damaged(path, error)) from error
        # The folder may have been moved since.
        return {variant: replace(one, checkpoint=self._existing(variant)) for variant, one in found.items()}

    def _existing(self, variant: str) -> str | None:
        path = self.checkpoint(variant)
        return str(path) if path.exists() else None


def starts_of(path: Path) -> list[dict[str, Any]]:
    """Who trained in a folder: backend, device and versions of every start; nobody where it has not begun.

    Raises:
        CheckpointError: its config.json is damaged.
    """
    if not (path / CONFIG).exists():
        return []
    try:
        return [dict(start) for start in _read(path / CONFIG, FORMAT)["starts"]]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(_damaged(path / CONFIG, error)) from error


def _begun(path: Path) -> bool:
    return (path / CHECKPOINT).exists() or ((path / METRICS).exists() and (path / METRICS).stat().st_size > 0)


def _settings(path: Path) -> Settings:
    try:
        return from_dict(_read(path / CONFIG, FORMAT)["settings"])
    except (KeyError, TypeError, ValueError) as error:  # errors of ours are ValueErrors, too
        raise CheckpointError(_damaged(path / CONFIG, error)) from error


def _check_same(path: Path, settings: Settings) -> None:
    found = _settings(path)
    if lines := differences(settings.as_dict(), found.as_dict()):
        raise RecipeError(_other(path, lines))


def _other(path: Path, lines: Sequence[str]) -> str:
    return (
        f"{path} holds a run of other settings: {'; '.join(lines)}; expected the same; give those it was started with, "
        "or choose another --out"
    )


def _read(path: Path, form: str | None = None) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        if form is not None and (values["format"], values["format_version"]) != (form, FORMAT_VERSION):
            raise ValueError(f"format is {values['format']!r} {values['format_version']!r}")
        return values
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path} cannot be used ({type(error).__name__}: {error}); expected what mponet writes; choose another --out, "
        "or delete the folder"
    )
