"""Checkpoints in the names and layouts of one framework, and back: safetensors files, bit for bit.

The metadata of a file says which network it is and how it was trained, so that the file becomes a
checkpoint again.  The optimiser's state is not in it.
"""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from mponet.backend import load, normalize, package_of
from mponet.errors import CheckpointError, InputError, MPONetError
from mponet.files import write_atomically, writing
from mponet.models.init import start
from mponet.training import checkpoint as checkpoints
from mponet.training.checkpoint import Checkpoint
from mponet.training.loop import evaluated

FORMAT = "mponet-native"
CANONICAL = "canonical"


def to_native(path: Path, out: Path, framework: str) -> list[str]:
    """Write a checkpoint as the state dict of a framework.

    PyTorch's ``load_state_dict`` takes the tensors as they are.  Those of nnx have the path of a
    variable as their name, those of Keras the path of a weight.

    Args:
        path: a checkpoint of ours; its moving averages are written where it has them.
        out: a new file.
        framework: ``torch``, ``jax`` or ``tensorflow``.

    Returns:
        The names in the file.

    Raises:
        CheckpointError: the checkpoint is unusable, or ``out`` exists or cannot be written.
    """
    found = checkpoints.load(path)
    values = evaluated(found.parameters, found.optimizer)
    native = load(framework).build(found.model, values, dtype=_dtype(values))
    state: dict[str, NDArray[Any]] = _adapter(framework).native_state(native)
    told = checkpoints.metadata_of(found) | {"format": FORMAT, "framework": normalize(framework)}
    _write(out, to_bytes({name: np.ascontiguousarray(value) for name, value in state.items()}, told))
    return list(state)


def to_canonical(path: Path, out: Path) -> Checkpoint:
    """Write the checkpoint of a file that `to_native` wrote, at step 0 of its recipe.

    Args:
        path: the file; its numbers may have been changed.
        out: a new file.

    Raises:
        CheckpointError: the file is unusable, or ``out`` exists or cannot be written.
    """
    try:
        with safe_open(path, framework="numpy") as stream:
            told = stream.metadata() or {}
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); expected a safetensors file; copy it again") from error
    if told.get("format") != FORMAT or not all(np.isfinite(value).all() for value in state.values()):
        raise CheckpointError(f"{path} is not a state dict that mponet convert wrote, or not finite; expected one")
    framework, belongs = told.get("framework", ""), checkpoints.described(told, path)
    try:
        zeros = start(belongs.model, 0)
        floats = {name: value for name, value in state.items() if value.dtype.kind == "f"}
        native = load(framework).build(belongs.model, zeros, dtype=_dtype(floats))
        _adapter(framework).load_native_state(native, state)
    except MPONetError:
        raise
    except Exception as error:  # what frameworks raise for names and shapes that do not fit
        raise CheckpointError(
            f"{path} does not fit {belongs.model.name} ({str(error)[:300]}); expected its names"
        ) from error
    made = replace(belongs, parameters=load(framework).parameters(native), step=0)
    if out.exists():
        raise CheckpointError(f"{out} exists; expected a new file; choose another")
    checkpoints.save(out, made)
    return made


def _adapter(framework: str) -> Any:
    return import_module(f"{package_of(framework)}.exporting")


def _dtype(values: Any) -> str:
    """The one dtype of some arrays."""
    kinds = sorted({str(value.dtype) for value in values.values()})
    if len(kinds) != 1:
        raise InputError(f"the parameters have the dtypes {', '.join(kinds)}; expected one")
    return kinds[0]


def _write(out: Path, payload: bytes) -> None:
    if out.exists():
        raise CheckpointError(f"{out} exists; expected a new file; choose another")
    with writing(out):
        write_atomically(out, payload)
