"""One checkpoint format for every backend: a safetensors file in the canonical layout.

Tensors are ``parameters/<name>``, running statistics among them, and ``optimizer/<slot>/<name>``
with the slots ``velocity`` and ``average``: dense kernels ``(in, out)``, convolutions ``(height,
width, in, out)``, cores ``(left, input, output, right)``, in the dtype they were trained in.  What
they belong to is in the metadata, as strings. Nothing is unpickled; a file is used only if all of
it makes sense.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from mponet._version import __version__
from mponet.backend import Parameters
from mponet.errors import CheckpointError, MPONetError
from mponet.files import exists, parse_json, write_atomically, writing
from mponet.models import build
from mponet.models.init import check
from mponet.models.shapes import parameter_shapes
from mponet.models.spec import Model
from mponet.recipe import Recipe, state_shapes
from mponet.training.schema import Count, Positive, convert_exactly

FORMAT = "mponet-checkpoint"
FORMAT_VERSION = "1"
NAME = "checkpoint.safetensors"
PARAMETERS, OPTIMIZER = "parameters/", "optimizer/"
FLOATS = {"float64", "float32", "float16", "F64", "F32", "F16"}  # as numpy and as safetensors call them


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
    tensors = _prefixed(PARAMETERS, checkpoint.parameters) | _prefixed(OPTIMIZER, checkpoint.optimizer)
    _check_layout(checkpoint, tensors, str(path))
    _check_numbers(checkpoint, str(path))
    with writing(path):
        write_atomically(path, *_sorted_metadata(to_bytes(tensors, metadata=metadata_of(checkpoint))))


def load(path: Path) -> Checkpoint:
    """The checkpoint in ``path``, from whichever backend.

    Names, shapes and dtypes are judged from the header of the file before any tensor is read.

    Raises:
        CheckpointError: it is absent, no checkpoint of ours, of another format version, truncated,
            of wrong names, shapes or dtypes, or holds numbers that are not finite.
    """
    _check_regular(path)
    try:
        with safe_open(path, framework="numpy") as stream:
            metadata = stream.metadata() or {}
            _check_format(metadata, path)
            belongs = described(metadata, path)
            headers = {name: _Header(stream.get_slice(name)) for name in stream.keys()}  # noqa: SIM118
            _check_layout(belongs, headers, str(path))
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError) as error:  # the last two: a dtype numpy has not
        raise CheckpointError(
            f"{path} cannot be read ({error}); expected a whole safetensors file; copy it again, or take another"
        ) from error
    checkpoint = replace(belongs, parameters=_without(PARAMETERS, tensors), optimizer=_without(OPTIMIZER, tensors))
    _check_numbers(checkpoint, str(path))
    return checkpoint


class _Header:
    """Shape and dtype of a tensor in a file, without its numbers."""

    def __init__(self, part: Any) -> None:
        self.shape = tuple(part.get_shape())
        self.dtype = str(part.get_dtype())  # F32, BF16, I64, ...


def _check_regular(path: Path) -> None:
    if not exists(path) or not S_ISREG(path.stat().st_mode):
        raise CheckpointError(f"{path} is not a file; expected a checkpoint; look for {NAME} in the folder of a run")


def described(metadata: Mapping[str, str], path: Path) -> Checkpoint:
    """The checkpoint that the metadata tells of, without its tensors.

    Raises:
        CheckpointError: a field is missing or unusable.
    """
    try:
        bond: int | None = parse_json(metadata["bond"], Positive | None)  # type: ignore[arg-type]
        seed, step = (parse_json(metadata[name], Count) for name in ("seed", "step"))
        recipe = convert_exactly(parse_json(metadata["recipe"], dict), Recipe)
        model = build(metadata["model"], metadata["variant"], bond)
        return Checkpoint(model, {}, {}, recipe, metadata["data"], seed, step, metadata["mponet"])
    except (KeyError, ValueError) as error:  # errors of ours are ValueErrors, too
        raise CheckpointError(
            f"{path} has unusable metadata ({type(error).__name__}: {error}); expected what mponet {__version__}"
            f" writes; train again, or read it with mponet {metadata.get('mponet', '(unknown)')}"
        ) from error


def _check_format(metadata: Mapping[str, str], path: Path) -> None:
    found = metadata.get("format"), metadata.get("format_version")
    if found[0] != FORMAT:
        raise CheckpointError(
            f"{path} has the format {found[0]!r} in its metadata; expected {FORMAT!r}; it is not an mponet "
            f"checkpoint: take one, such as {NAME} in the folder of a run"
        )
    if found[1] != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {found[1]}; expected {FORMAT_VERSION}; read it with the mponet that wrote it, "
            f"{metadata.get('mponet', '(unknown)')}"
        )


def _check_layout(checkpoint: Checkpoint, tensors: Mapping[str, Any], where: str) -> None:
    """Judge names, shapes and dtypes of the tensors of a file; their numbers are not looked at."""
    if unknown := [name for name in tensors if not name.startswith((PARAMETERS, OPTIMIZER))]:
        raise CheckpointError(
            f"{where} holds the tensors {unknown}; expected names in {PARAMETERS} and {OPTIMIZER}; take another file"
        )
    if not 0 <= checkpoint.step <= checkpoint.recipe.steps:
        raise CheckpointError(
            f"{where} is at step {checkpoint.step}; expected 0 to {checkpoint.recipe.steps}, the length of its recipe; "
            "take another file"
        )
    try:
        check(checkpoint.model, _without(PARAMETERS, tensors))
        _check_optimizer(checkpoint, _without(OPTIMIZER, tensors))
    except MPONetError as error:
        raise CheckpointError(f"{where} does not fit its model: {error}; train again, or take another file") from error
    for name, tensor in tensors.items():
        if str(tensor.dtype) not in FLOATS:
            raise CheckpointError(
                f"{name} of {where} has dtype {tensor.dtype}; expected floating point; take another file"
            )


def _check_optimizer(checkpoint: Checkpoint, tensors: Mapping[str, Any]) -> None:
    recipe = checkpoint.recipe
    expected = state_shapes(parameter_shapes(checkpoint.model), recipe) if checkpoint.step else {}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    if odd := sorted(name for name in {*shapes, *expected} if shapes.get(name) != expected.get(name)):
        raise CheckpointError(
            f"its optimizer state differs in {odd}; expected {len(expected)} tensors for momentum {recipe.momentum} "
            f"and average {recipe.average} at step {checkpoint.step}"
        )


def _check_numbers(checkpoint: Checkpoint, where: str) -> None:
    for name, value in (*checkpoint.parameters.items(), *checkpoint.optimizer.items()):
        if not np.isfinite(value).all():
            bad = int(value.size - np.isfinite(value).sum())
            raise CheckpointError(
                f"{name} of {where} has {bad} values that are not finite; expected none; the training diverged or the "
                "file is damaged: take an earlier one"
            )


def _sorted_metadata(payload: bytes) -> tuple[bytes, memoryview]:
    """A safetensors file with its metadata in the order of names.

    So equal checkpoints are equal files.
    """
    size = int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, memoryview(payload)[8 + size :]


def metadata_of(checkpoint: Checkpoint) -> dict[str, str]:
    """What a file says of a checkpoint, besides its tensors."""
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


def _without(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
