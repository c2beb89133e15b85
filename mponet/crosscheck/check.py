"""The cross-check.

Cases are written, every backend answers in its process, the answers are compared.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.numpy import load_file

from mponet.backend import ADAPTERS, TRAINABLE, Numbers, installed, normalize
from mponet.crosscheck import process
from mponet.crosscheck.bounds import bounds
from mponet.crosscheck.case import CHOICE, RECIPES, Case, Facts, make, save
from mponet.crosscheck.compare import Report, compare
from mponet.crosscheck.margin import REFERENCE
from mponet.errors import BackendError
from mponet.files import read_json
from mponet.models.spec import Model
from mponet.recipe import Recipe

BATCH = 16


def crosscheck(
    model: Model,
    *,
    backends: Sequence[str] | None = None,
    dtype: str = "float64",
    seed: int = 0,
    batch: int = BATCH,
    recipes: Sequence[Recipe] = RECIPES,
    choice: int = CHOICE,
) -> Report:
    """Compare the backends on one network; see `crosschecks`."""
    options: dict[str, Any] = {"backends": backends, "dtype": dtype, "seed": seed, "batch": batch, "choice": choice}
    return crosschecks([model], recipes=[recipes], **options)[0]


def crosschecks(
    models: Sequence[Model],
    *,
    backends: Sequence[str] | None = None,
    dtype: str = "float64",
    seed: int = 0,
    batch: int = BATCH,
    recipes: Sequence[Sequence[Recipe]] | None = None,
    choice: int = CHOICE,
) -> tuple[Report, ...]:
    """Compare forward passes, gradients and training of the backends.

    Forward passes are also compared with the reference.

    One process per backend computes all networks, since starting a framework takes longer than a
    small network.

    Args:
        models: the networks.
        backends: names of backends; None for all that are installed.  The numpy reference is always
            compared as well.
        dtype: ``float64`` or ``float32``.
        seed: seed of parameters and batch.
        batch: number of examples.
        recipes: recipes to train each network with, empty for no training; None for `RECIPES` on
            all networks.
        choice: number of candidate batches in float32 (`mponet.crosscheck.margin`).

    Raises:
        BackendError: a backend is unknown, not installed, or failed.
        InputError: the dtype is unknown, or the seed or the batch is out of range.
    """
    names = participants(backends)
    recipes = [RECIPES] * len(models) if recipes is None else recipes
    cases = [make(m, dtype, seed, batch, r, choice) for m, r in zip(models, recipes, strict=True)]
    with TemporaryDirectory(prefix="mponet-crosscheck-") as temporary:
        folders = [Path(temporary, str(number)) for number in range(len(cases))]
        for case, folder in zip(cases, folders, strict=True):
            folder.mkdir()
            save(case, folder)
        process.run([process.worker(name, folders, dtype) for name in names])
        return tuple(_report(case, folder, names, seed) for case, folder in zip(cases, folders, strict=True))


def participants(backends: Sequence[str] | None) -> tuple[str, ...]:
    """Canonical names without repetition, the reference last.

    Raises:
        BackendError: a backend is unknown or not installed, or there is none to compare with the
            reference.
    """
    if backends is None:
        names = [name for name in TRAINABLE if installed(name)]
    else:
        names = [name for name in dict.fromkeys(map(normalize, backends)) if name != REFERENCE]
    if absent := [name for name in names if not installed(name)]:
        extra = ",".join(ADAPTERS[name].extra for name in absent)
        raise BackendError(
            f"backends to compare are {', '.join(names)}, of which {', '.join(absent)} are not installed; expected "
            f"installed ones; pip install 'mponet[{extra}]'"
        )
    if not names:
        raise BackendError(
            f"there is no framework to compare; expected at least one of {', '.join(TRAINABLE)}; for example: "
            "pip install 'mponet[torch]'"
        )
    return (*names, REFERENCE)


def _report(case: Case, folder: Path, names: Sequence[str], seed: int) -> Report:
    """The report on the answers in a folder."""
    model = case.model
    answers = {name: _read(folder / f"{name}.safetensors") for name in names}
    facts = {name: asdict(read_json(folder / f"{name}.json", Facts)) for name in names}
    comparisons = compare(answers, bounds(case))
    return Report(model.name, model.variant, model.bond, case.dtype, seed, case.batch, facts, comparisons)


def _read(file: Path) -> dict[str, dict[str, Numbers]]:
    """Answers of one backend, by quantity and name."""
    answers: dict[str, dict[str, Numbers]] = {}
    for key, value in load_file(file).items():
        quantity, name = key.split(":", 1)
        answers.setdefault(quantity, {})[name] = value
    return answers
