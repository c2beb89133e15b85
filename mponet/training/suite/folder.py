"""The folder of a suite: suite.json, and the lock of the process that works in it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from mponet.errors import CheckpointError, RecipeError
from mponet.files import exists, read_json, write_json_once
from mponet.files.lock import is_locked as is_folder_locked
from mponet.models import PAPER_VARIANTS
from mponet.training.run.settings import differences
from mponet.training.schema import Name, Positive
from mponet.training.suite.settings import MAX_NETWORKS, Suite, plan

NAME, LOCK = "suite.json", "suite.lock"
FORMAT, FORMAT_VERSION = "mponet-suite", 1
REMEDY = "choose another --out, or delete the file"


@dataclass(frozen=True, slots=True)
class SuiteSettings:
    """`Suite` as suite.json holds it."""

    backend: Name
    preset: Name
    models: Annotated[list[Name], Meta(max_length=MAX_NETWORKS)]
    seeds: Positive
    data: Name | None
    epochs: Positive | None
    steps: Positive | None
    images: Annotated[dict[Name, Positive], Meta(max_length=100)]
    variants: list[Name] = field(default_factory=lambda: list(PAPER_VARIANTS))


@dataclass(frozen=True, slots=True)
class SuiteDocument:
    """suite.json."""

    format: Literal["mponet-suite"]
    format_version: Literal[1]
    settings: SuiteSettings


def claim_folder(path: Path, suite: Suite) -> None:
    """Make a folder that of ``suite``, or see that it is.

    Of several processes that do so at once, one makes it, and all see the same.

    Raises:
        RecipeError: it holds another suite.
        CheckpointError: its suite.json is damaged, or it cannot be written.
    """
    if not exists(path / NAME):
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, "settings": suite.as_dict()}
        write_json_once(path / NAME, content)
    if lines := differences(suite.as_dict(), read(path).as_dict()):
        raise RecipeError(
            f"{path} holds a suite of other settings: {'; '.join(lines)}; expected the same; give those it was "
            "started with, or choose another --out"
        )


def read(path: Path) -> Suite:
    """The suite of a folder.

    Raises:
        CheckpointError: there is none, or its suite.json is damaged.
    """
    file = path / NAME
    if not exists(file):
        raise CheckpointError(f"{path} holds no {NAME}; expected the folder of a suite; start one with: mponet suite")
    settings = read_json(file, SuiteDocument, remedy=REMEDY).settings
    try:
        return plan(
            settings.models,
            backend=settings.backend,
            images=settings.images,
            preset=settings.preset,
            seeds=settings.seeds,
            data=settings.data,
            epochs=settings.epochs,
            steps=settings.steps,
            variants=settings.variants,
        )
    except (KeyError, ValueError) as error:  # errors of ours are ValueErrors, too
        raise CheckpointError(f"{file} is damaged ({error}); expected what mponet writes; {REMEDY}") from error


def is_locked(path: Path) -> bool | None:
    """Whether a process works on the suite of a folder.

    None where the system cannot tell.  Nothing is written.
    """
    return is_folder_locked(path, LOCK)
