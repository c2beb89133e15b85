"""Compressed modules in a folder: the plan as JSON, the weights as safetensors.

Loading runs no code of the files.
"""

from collections import defaultdict
from collections.abc import Container
from copy import deepcopy
from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file, save_model
from torch import nn

from mponet.compress.execution import unfitted_layers
from mponet.compress.names import is_besides
from mponet.compress.plan import CompressionPlan
from mponet.compress.saved import PLAN, matched, reading, save_folder
from mponet_torch.compression import huggingface
from mponet_torch.compression.modules import OPERATORS
from mponet_torch.compression.network import NativeNetwork

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
    operators = [name for name, module in model.named_modules() if isinstance(module, OPERATORS)]
    save_folder(Path(folder), plan, operators, type(model).__name__, lambda file: save_model(model, file))


def load_compressed(model: Module, folder: str | Path) -> Module:
    """Turn a dense module into the compressed one of a folder, in place.

    The folder may come from another framework, if its network has modules of the same names
    (`mponet.compress.names`).

    Args:
        model: a module as it was before compression, whatever its numbers, on any device but meta.
        folder: what `save_compressed` wrote.

    Raises:
        CheckpointError: the folder holds no compressed module, or weights of another one.
        CompressionError: the plan is of another network.  The module is unchanged in both cases.

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
    NativeNetwork.check(model)
    plan = CompressionPlan.load(Path(folder) / PLAN)
    # a copy of the structure that shares all numbers
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    trial = restructure(deepcopy(model, shared), plan)
    with reading(Path(folder), type(model).__name__) as weights:
        tensors = load_file(str(weights))
        tensors = matched(tensors, _expected(trial, tensors))
    restructure(model, plan)
    huggingface.describe(model, plan)
    model.load_state_dict(tensors, strict=False)  # each shared tensor is there once
    return model


def restructure(model: Module, plan: CompressionPlan) -> Module:
    """Replace the modules of a dense module by the operators of a plan, all entries zero, in place.

    The result has the parameters of the compressed module, to be overwritten by those of a
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


def _expected(model: nn.Module, present: Container[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of a state dict, each shared tensor once, under the name that a file has."""
    groups: dict[int, list[str]] = defaultdict(list)
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        groups[id(tensor)].append(name)
    names = (next((name for name in group if name in present), group[0]) for group in groups.values())
    wanted = (name for name in names if name in present or not is_besides(name, state))
    return {name: tuple(state[name].shape) for name in wanted}
