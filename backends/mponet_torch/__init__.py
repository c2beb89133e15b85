"""mponet for PyTorch: `MPOLinear`, `NetworkLinear`, and the `mponet.backend.Backend` functions."""

from typing import Any

import torch

from mponet.backend import Parameters
from mponet.models.init import check
from mponet.models.spec import Model
from mponet.recipe import Recipe
from mponet_torch.lower import canonical, lower, native_order, slots
from mponet_torch.nn.linear import MPOLinear as MPOLinear
from mponet_torch.nn.network import NetworkLinear as NetworkLinear
from mponet_torch.ops.arrays import device_of, dtype_of, from_numpy, to_numpy
from mponet_torch.ops.arrays import devices as devices
from mponet_torch.ops.chain import apply_mpo as apply_mpo
from mponet_torch.ops.graph import apply_network as apply_network
from mponet_torch.ops.planning import PLANNER as PLANNER
from mponet_torch.ops.planning import versions as versions
from mponet_torch.train import Trainer as Trainer
from mponet_torch.train import gradients as gradients
from mponet_torch.train import predict as predict

name = "torch"


def build(
    model: Model, parameters: Parameters, *, dtype: str = "float32", device: str | None = None
) -> torch.nn.Sequential:
    """The native model with these parameters and running statistics.

    Raises:
        ModelError: the parameters are not those of the model.
        BackendError: there is no such dtype or device.
    """
    place = device_of(device)
    if place.type == "cuda":  # cuDNN rounds to TF32, and adds up gradients in any order, unless told not to
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    native = lower(model).to(device=place, dtype=dtype_of(dtype))
    assign(native, parameters)
    return native


def parameters(native: torch.nn.Module) -> dict[str, Any]:
    """Parameters and running statistics by canonical name, numpy, in the native dtype."""
    return {name: to_numpy(canonical(slot)) for name, slot in slots(native).items()}


def assign(native: torch.nn.Module, parameters: Parameters) -> None:
    """Overwrite the parameters and the running statistics.

    Raises:
        ModelError: they are not those of the model.
    """
    places = slots(native)
    check(native.mponet_model, dict(parameters))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, slot in places.items():
            value = from_numpy(parameters[name], slot.parameter.dtype, slot.parameter.device)
            slot.parameter.copy_(native_order(slot, value))


def trainer(native: torch.nn.Module, recipe: Recipe) -> Trainer:
    """A trainer that changes ``native`` in place."""
    return Trainer(native, recipe)
