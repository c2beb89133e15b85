"""Compressed modules in a folder: the plan as JSON, the weights as safetensors.

Loading runs no code of the files.
"""

import os
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from mponet.compress.pipeline import unfitted_layers
from mponet.compress.plan import CompressionPlan
from mponet.errors import CheckpointError, CompressionError
from mponet.files import writing
from mponet_torch.compression import huggingface
from mponet_torch.compression.modules import OPERATORS
from mponet_torch.compression.network import NativeNetwork

PLAN, WEIGHTS = "compression_plan.json", "model.safetensors"
Module = TypeVar("Module", bound=nn.Module)


def save_compressed(model: nn.Module, plan: CompressionPlan, folder: str | Path) -> None:
    """Write a compressed module to a folder, the plan last.

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
            save_model(model, str(part))
            part.replace(folder / WEIGHTS)
        finally:
            part.unlink(missing_ok=True)
    plan.save(folder / PLAN)


def load_compressed(model: Module, folder: str | Path) -> Module:
    """Turn a dense module into the compressed one of a folder, in place.

    Args:
        model: a module as it was before compression, whatever its numbers, on any device but meta.
        folder: what `save_compressed` wrote.

    Raises:
        CheckpointError: the folder holds no compressed module, or weights of another one.
        CompressionError: the plan is of another network.  The module is unchanged then.

    Example:
        >>> import tempfile, torch
        >>> from mponet.compress import CompressConfig
        >>> from mponet_torch.compression import compress
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 96))
        >>> small, report = compress(model, CompressConfig(error=0.5))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_compressed(small, report.plan, folder)
        ...     again = load_compressed(torch.nn.Sequential(torch.nn.Linear(64, 96)), folder)
        >>> inputs = torch.randn(3, 64)
        >>> bool((again(inputs) == small(inputs)).all())
        True
    """
    folder = Path(folder)
    plan = CompressionPlan.load(folder / PLAN)
    network = NativeNetwork(model)
    for layer in unfitted_layers(network.targets(), plan):
        network.replace(layer)
    huggingface.describe(model, plan)
    try:
        load_model(model, str(folder / WEIGHTS), strict=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder / WEIGHTS} does not hold the weights of this compressed {type(model).__name__} ({error}); "
            "expected a folder that save_compressed wrote for the same class and sizes"
        ) from error
    return model


def _check(model: nn.Module, plan: CompressionPlan) -> None:
    """Refuse a plan that is not that of the module."""
    own = {name for name, module in model.named_modules() if isinstance(module, OPERATORS)}
    planned = {layer.name for layer in plan.replaced}
    if not planned or not planned <= own:
        raise CompressionError(
            f"the plan replaces {len(planned)} layers, and {len(planned & own)} of them are operators in this "
            f"{type(model).__name__}; expected the model and the plan of the same compression"
        )
