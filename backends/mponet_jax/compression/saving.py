"""Compressed modules in a folder: the plan as JSON, the weights as safetensors.

Loading runs no code of the files.
"""

from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from safetensors.flax import load_file, save_file

from mponet.compress.execution import unfitted_layers
from mponet.compress.plan import CompressionPlan
from mponet.compress.saved import PLAN, matched, reading, save_folder
from mponet_jax.compression.modules import OPERATORS
from mponet_jax.compression.network import NativeNetwork
from mponet_jax.compression.streaming import named_modules
from mponet_jax.nn.parameters import put

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
    operators = [name for name, module in named_modules(model) if isinstance(module, OPERATORS)]
    tensors = {name: variable[...] for name, variable in _variables(model).items()}
    save_folder(Path(folder), plan, operators, type(model).__name__, lambda file: save_file(tensors, file))


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
    NativeNetwork.check(model)
    plan = CompressionPlan.load(Path(folder) / PLAN)
    with reading(Path(folder), type(model).__name__) as weights:
        expected = _variables(restructure(nnx.clone(model), plan))
        shapes = {name: tuple(variable.shape) for name, variable in expected.items()}
        tensors = matched(load_file(str(weights)), shapes)
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
