"""One checkpoint format for every backend: a safetensors file in the canonical layout.

Tensors are ``parameters/<name>``, running statistics among them, and ``optimizer/<slot>/<name>``
with the slots ``velocity`` and ``average``: dense kernels ``(in, out)``, convolutions ``(height,
width, in, out)``, cores ``(left, input, output, right)``, in the dtype they were trained in.  What
they belong to is in the metadata, as strings. Nothing is unpickled; a file is used only if all of
it makes sense.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from mponet._version import __version__
from mponet.backend import Numbers, Parameters, state_shapes
from mponet.errors import CheckpointError, MPONetError
from mponet.files import write_atomically, writing
from mponet.models import build
from mponet.models.init import check
from mponet.models.shapes import parameter_shapes
from mponet.models.spec import Model
from mponet.recipe import Recipe

FORMAT = "mponet-checkpoint"
FORMAT_VERSION = "1"
NAME = "checkpoint.safetensors"
PARAMETERS, OPTIMIZER = "parameters/", "optimizer/"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model in the middle of its training, or at its end.

    Attributes:
        model: the network.
        parameters: and running statistics, by name, canonical layout.
        optimizer: what `Trainer.state` gives, by ``velocity/<parameter name>`` and
            ``average/<parameter name>``.
        recipe: how it is trained.
        data: name of the data set.
        seed: of the starting values and of the batch order.
        step: optimiser steps done.
        version: of the mponet that wrote it.
    """

    model: Model
    parameters: Parameters = field(repr=False)
    optimizer: Parameters = field(repr=False)
    recipe: Recipe
    data: str
    seed: int
    step: int
    version: str = field(default_factory=lambda: __version__)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``path``, whole or not at all.

    Raises:
        CheckpointError: it could not be loaded again, or the file cannot be written.
    """
    _check(checkpoint, str(path))
    tensors = _prefixed(PARAMETERS, checkpoint.parameters) | _prefixed(OPTIMIZER, checkpoint.optimizer)
    with writing(path):
        write_atomically(path, to_bytes(tensors, metadata=_metadata(checkpoint)))


def load(path: Path) -> Checkpoint:
    """The checkpoint in ``path``, from whichever backend.

    Raises:
        CheckpointError: it is absent, no checkpoint of ours, of another format version, truncated,
            of wrong names, shapes or dtypes, or holds numbers that are not finite.
    """
    metadata, tensors = _read(path)
    _check_format(metadata, path)
    try:
        checkpoint = Checkpoint(
            model=build(metadata["model"], metadata["variant"], json.loads(metadata["bond"])),
            parameters=_without(PARAMETERS, tensors),
            optimizer=_without(OPTIMIZER, tensors),
            recipe=Recipe(**json.loads(metadata["recipe"])),
            data=metadata["data"],
            seed=int(metadata["seed"]),
            step=int(metadata["step"]),
            version=metadata["mponet"],
        )
    except (KeyError, TypeError, ValueError) as error:  # errors of ours are ValueErrors, too
        raise CheckpointError(
            f"{path} has unusable metadata ({type(error).__name__}: {error}); expected what mponet {__version__}"
            f" writes; train again, or read it with mponet {metadata.get('mponet', '(unknown)')}"
        ) from error
    if unknown := [name for name in tensors if not name.startswith((PARAMETERS, OPTIMIZER))]:
        raise CheckpointError(
            f"{path} holds the tensors {unknown}; expected names in {PARAMETERS} and {OPTIMIZER}; take another file"
        )
    _check(checkpoint, str(path))
    return checkpoint


def _read(path: Path) -> tuple[dict[str, str], dict[str, Numbers]]:
    if not path.is_file():
        raise CheckpointError(f"{path} is no file; expected a checkpoint; look for {NAME} in the folder of a run")
    try:
        with safe_open(path, framework="numpy") as stream:
            return stream.metadata() or {}, {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError) as error:  # the last two: a dtype numpy has not
        raise CheckpointError(
            f"{path} cannot be read ({error}); expected a whole safetensors file; copy it again, or take another"
        ) from error


def _check_format(metadata: Mapping[str, str], path: Path) -> None:
    found = metadata.get("format"), metadata.get("format_version")
    if found[0] != FORMAT:
        raise CheckpointError(
            f"{path} has the format {found[0]!r} in its metadata; expected {FORMAT!r}; it is no checkpoint of mponet: "
            f"take one, such as {NAME} in the folder of a run"
        )
    if found[1] != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {found[1]}; expected {FORMAT_VERSION}; read it with the mponet that wrote it, "
            f"{metadata.get('mponet', '(unknown)')}"
        )


def _check(checkpoint: Checkpoint, where: str) -> None:
    try:
        check(checkpoint.model, {name: np.asarray(value) for name, value in checkpoint.parameters.items()})
        _check_optimizer(checkpoint)
    except MPONetError as error:
        raise CheckpointError(f"{where} does not fit its model: {error}; train again, or take another file") from error
    if not 0 <= checkpoint.step <= checkpoint.recipe.steps:
        raise CheckpointError(
            f"{where} is at step {checkpoint.step}; expected 0 to {checkpoint.recipe.steps}, the length of its recipe; "
            "take another file"
        )
    for name, value in {**checkpoint.parameters, **checkpoint.optimizer}.items():
        _check_numbers(name, value, where)


def _check_optimizer(checkpoint: Checkpoint) -> None:
    recipe = checkpoint.recipe
    wanted = state_shapes(parameter_shapes(checkpoint.model), recipe) if checkpoint.step else {}
    found = {name: value.shape for name, value in checkpoint.optimizer.items()}
    if odd := sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)):
        raise CheckpointError(
            f"its optimizer state differs in {odd}; expected {len(wanted)} tensors for momentum {recipe.momentum} and "
            f"average {recipe.average} at step {checkpoint.step}"
        )


def _check_numbers(name: str, value: Numbers, where: str) -> None:
    if value.dtype.kind != "f":
        raise CheckpointError(f"{name} of {where} has dtype {value.dtype}; expected floating point; take another file")
    if not np.isfinite(value).all():
        bad = int(value.size - np.isfinite(value).sum())
        raise CheckpointError(
            f"{name} of {where} has {bad} values that are not finite; expected none; the training diverged or the file "
            "is damaged: take an earlier one"
        )


def _metadata(checkpoint: Checkpoint) -> dict[str, str]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": checkpoint.model.name,
        "variant": checkpoint.model.variant,
        "bond": json.dumps(checkpoint.model.bond),
        "recipe": json.dumps(checkpoint.recipe.as_dict()),
        "data": checkpoint.data,
        "seed": str(checkpoint.seed),
        "step": str(checkpoint.step),
        "mponet": checkpoint.version,
    }


def _prefixed(prefix: str, tensors: Parameters) -> dict[str, Any]:
    return {prefix + name: np.ascontiguousarray(value) for name, value in tensors.items()}


def _without(prefix: str, tensors: Mapping[str, Numbers]) -> dict[str, Numbers]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
