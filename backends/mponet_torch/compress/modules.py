"""Which modules of PyTorch and of Hugging Face hold a matrix, how it is read, and what takes their place.

A kind of module is an entry of `KINDS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from mponet.compress.fitting import FittedLayer
from mponet.compress.target import Target
from mponet.errors import MPONetError
from mponet_torch.nn.dense import adopt, dense_weights
from mponet_torch.nn.linear import MPOLinear
from mponet_torch.nn.network import NetworkLinear
from mponet_torch.ops.arrays import Array, to_numpy

#: Modules that are operators already.
OPERATORS = (MPOLinear, NetworkLinear)


@dataclass(frozen=True, slots=True)
class ModuleKind:
    """How one kind of module is described and replaced.

    Attributes:
        recognise: whether a module is of the kind.
        describe: the target of a module and its name.
        rows: the inputs of the module as rows ``(n, in_features)``, from its input tensor.
        build: the module that takes the place, from the module and the fitted layer.
    """

    recognise: Callable[[nn.Module], bool]
    describe: Callable[[str, nn.Module], Target]
    rows: Callable[[nn.Module, Array], Array]
    build: Callable[[Any, FittedLayer], nn.Module]


def kind_of(module: nn.Module) -> ModuleKind | None:
    """The kind of a module; None if it is of none."""
    return next((kind for kind in KINDS if kind.recognise(module)), None)


def type_name(module: nn.Module) -> str:
    """``torch.nn.Linear`` as users write it."""
    cls = type(module)
    return f"torch.nn.{cls.__name__}" if cls.__module__.startswith("torch.nn.") else cls.__name__


def _describe_linear(name: str, module: Any) -> Target:
    problem = _linear_problem(module)
    conv1d = _is_conv1d(module)  # Hugging Face keeps its weight as (in, out)
    shape = tuple(module.weight.shape) if conv1d else tuple(module.weight.shape)[::-1]
    return Target(
        name=name,
        kind="linear",
        type_name=type_name(module),
        in_features=shape[0],
        out_features=shape[1],
        load=lambda: dense_weights(module).matrix.astype(np.float64),
        load_bias=None if module.bias is None else lambda: to_numpy(module.bias).astype(np.float64),
        itemsize=module.weight.element_size(),
        unsupported=problem,
    )


def _linear_problem(module: nn.Module) -> str:
    """Why a linear module cannot be replaced; empty if it can."""
    if getattr(module, "parametrizations", None):
        return "its weight is parametrised; remove the parametrisation first"
    try:
        dense_weights(module)
    except MPONetError as error:
        return str(error)
    return ""


def _build_linear(module: Any, fitted: FittedLayer) -> nn.Module:
    weight = module.weight
    layer = MPOLinear.from_mpo(fitted.mpo, fitted.bias, device=weight.device, dtype=weight.dtype)
    adopt(layer, layer.cores, module)
    return layer


def _is_conv1d(module: nn.Module) -> bool:
    """Whether it is Hugging Face's ``Conv1D``, a linear layer, told by its name so that nothing is imported."""
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")


def _flat_rows(_: nn.Module, inputs: Array) -> Array:
    return inputs.reshape(-1, inputs.shape[-1])


def _is_linear(module: nn.Module) -> bool:
    built = not isinstance(getattr(module, "weight", None), nn.UninitializedParameter)
    return built and (isinstance(module, nn.Linear) or _is_conv1d(module))


#: The kinds, the first that recognises a module counts.
KINDS: tuple[ModuleKind, ...] = (ModuleKind(_is_linear, _describe_linear, _flat_rows, _build_linear),)
