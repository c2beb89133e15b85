"""Healing in the middle: a safetensors file with the student, the optimiser and the loss curve."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mponet.compress.healing.adapter import State
from mponet.compress.healing.report import HealRecord
from mponet.compress.healing.retruncate import Truncation
from mponet.compress.stream.header import code_of
from mponet.compress.stream.writing import Piece, write_safetensors
from mponet.errors import CheckpointError
from mponet.files import exists, parse_json

NAME, LOCK = "healing.safetensors", "healing.lock"
FORMAT = "mponet-healing-1"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far healing is.

    Attributes:
        config: the fields of its `HealConfig`.
        step: optimiser steps done.
        seconds: how long they took.
        before: loss before the first one.
        finished: whether there are no more.
        records: the loss curve so far.
        truncations: those that happened.
    """

    config: dict[str, Any]
    step: int
    seconds: float
    before: float
    finished: bool
    records: list[HealRecord]
    truncations: list[Truncation]


def save(folder: Path, progress: Progress, state: State) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.
    """
    pieces = [Piece(name, code_of(array.dtype, name), tuple(array.shape), array) for name, array in state.items()]
    details = json.dumps(asdict(progress), allow_nan=False)
    write_safetensors(folder / NAME, pieces, {"format": FORMAT, "progress": details})


def load(folder: Path, config: dict[str, Any]) -> tuple[Progress, State] | None:
    """The checkpoint of a folder; None if there is none.

    Args:
        folder: where `save` wrote.
        config: the fields of the `HealConfig` that is to go on.

    Raises:
        CheckpointError: the file is not a checkpoint of healing, damaged, or of another config.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / NAME
    if not exists(path):
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path} is not a checkpoint of healing; expected {FORMAT}; choose another folder"
                )
            progress = parse_json(metadata["progress"], Progress)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} cannot be read ({error}); expected a checkpoint of healing; remove it"
        ) from error
    if odd := sorted(name for name in config if progress.config.get(name) != config[name]):
        raise CheckpointError(
            f"{path} was healed with another {', '.join(odd)} ({progress.config.get(odd[0])!r}, now {config[odd[0]]!r})"
            "; expected the same config; choose another folder, or remove the file"
        )
    return progress, state
