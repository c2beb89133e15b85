"""Compressed modules in a folder: the plan as JSON, the weights as safetensors.

Loading runs no code of the files.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.flax import load_file, save_file

from mponet.compress.names import translated
from mponet.compress.pipeline import unfitted_layers
from mponet.compress.plan import CompressionPlan
from mponet.errors import CheckpointError, CompressionError
from mponet.files import writing
from mponet_jax.compression.modules import OPERATORS
from mponet_jax.compression.network import NativeNetwork
from mponet_jax.compression.streaming import named_modules
from mponet_jax.nn.parameters import put
from mponet_jax.ops.arrays import Array

PLAN, WEIGHTS = "compression_plan.json", "model.safetensors"
Module = TypeVar("Module", bound=nnx.Module)


def save_compressed(model: nnx.Module, plan: CompressionPlan, folder: str | Path) -> None:
    """Write a compressed module to a folder, the plan last.

    Each variable is a tensor under its path, joined by dots; random streams are left out.

    Args:
        model: what `compress` returned, healed or not.
        plan: what was carried out, ``report.plan``.
        folder: is made if it is not there.

    Raises:
        CompressionError: the plan is not that of the module.
        CheckpointError: the folder cannot be written.
    """
    _check(model, plan)
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{WEIGHTS}.{os.getpid()}.part"
        try:
            save_file({name: variable[...] for name, variable in _variables(model).items()}, str(part))
            part.replace(folder / WEIGHTS)
        finally:
            part.unlink(missing_ok=True)
    plan.save(folder / PLAN)


def load_compressed(model: Module, folder: str | Path) -> Module:
    """Turn a dense module into the compressed one of a folder, in place.

    The folder may come from another framework, if its network has modules of the same names
    (`mponet.compress.names`).

    Args:
        model: a module as it was before compression, whatever its numbers.
        folder: what `save_compressed` wrote.

    Raises:
        CheckpointError: the folder holds no compressed module, or weights of another one.
        CompressionError: the plan is of another network.  The module is unchanged in both cases.

    Example:
        >>> import tempfile, jax
        >>> from mponet.compress import CompressConfig
        >>> from mponet_jax.compression import compress
        >>> model = nnx.Sequential(nnx.Linear(64, 96, rngs=nnx.Rngs(0)))
        >>> small, report = compress(model, CompressConfig(error=0.5))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_compressed(small, report.plan, folder)
        ...     other = nnx.Sequential(nnx.Linear(64, 96, rngs=nnx.Rngs(1)))
        ...     again = load_compressed(other, folder)
        >>> inputs = jax.numpy.ones((3, 64))
        >>> bool((again(inputs) == small(inputs)).all())
        True
    """
    folder = Path(folder)
    plan = CompressionPlan.load(folder / PLAN)
    try:
        expected = _variables(restructure(nnx.clone(model), plan))
        shapes = {name: tuple(variable.shape) for name, variable in expected.items()}
        tensors = translated(load_file(str(folder / WEIGHTS)), shapes)
        _check_tensors(shapes, tensors)
    except (OSError, ValueError, SafetensorError) as error:
        if isinstance(error, CompressionError):
            raise
        raise CheckpointError(
            f"{folder / WEIGHTS} does not hold the weights of this compressed {type(model).__name__} ({error}); "
            "expected a folder that save_compressed wrote for the same class and sizes"
        ) from error
    restructure(model, plan)
    for name, variable in _variables(model).items():
        put(variable, tensors[name])
    return model


def restructure(model: Module, plan: CompressionPlan) -> Module:
    """Replace the layers of a dense module by the operators of a plan, all entries zero, in place.

    The result has the variables of the compressed module, to be overwritten by those of a
    checkpoint of any kind.

    Args:
        model: a module as it was before compression.
        plan: what was carried out.

    Raises:
        CompressionError: the plan is of another network.  The module is unchanged then.
    """
    network = NativeNetwork(model)
    for layer in unfitted_layers(network.targets(), plan):
        network.replace(layer)
    return model


def _variables(model: nnx.Module) -> dict[str, Any]:
    """The variables that hold arrays, by their path; those of random streams are left out."""
    found = nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState)))
    arrays = ((path, variable) for path, variable in found if isinstance(variable[...], jax.Array | np.ndarray))
    return {".".join(map(str, path)): variable for path, variable in arrays}


def _check_tensors(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Array]) -> None:
    """Refuse tensors that are not those of the module.

    Raises:
        ValueError: names or shapes differ.
    """
    if missing := sorted(expected.keys() - tensors.keys()):
        raise ValueError(f"{missing[0]} is missing")
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise ValueError(f"{unknown[0]} is not in the model")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} has the shape {tuple(tensors[name].shape)}; expected {shape}")


def _check(model: nnx.Module, plan: CompressionPlan) -> None:
    """Refuse a plan that is not that of the module."""
    own = {name for name, module in named_modules(model) if isinstance(module, OPERATORS)}
    planned = {layer.name for layer in plan.replaced}
    if not planned or not planned <= own:
        raise CompressionError(
            f"the plan replaces {len(planned)} layers, and {len(planned & own)} of them are operators in this "
            f"{type(model).__name__}; expected the model and the plan of the same compression"
        )
