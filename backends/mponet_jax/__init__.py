"""mponet for JAX: `MPOLinear`, and the `mponet.backend.Backend` functions."""

from typing import Any

import jax
import numpy as np
from flax import nnx

from mponet.backend import Parameters
from mponet.models.init import check
from mponet.models.spec import Model
from mponet.recipe import Recipe
from mponet_jax.lower import canonical, lower, native_order, slots
from mponet_jax.nn.blocks import Sequential
from mponet_jax.nn.linear import MPOLinear as MPOLinear
from mponet_jax.nn.linear import put
from mponet_jax.nn.network import NetworkLinear as NetworkLinear
from mponet_jax.ops.arrays import device_of, dtype_of, to_numpy
from mponet_jax.ops.arrays import devices as devices
from mponet_jax.ops.chain import apply_mpo as apply_mpo
from mponet_jax.ops.graph import apply_network as apply_network
from mponet_jax.ops.planning import PLANNER as PLANNER
from mponet_jax.ops.planning import versions as versions
from mponet_jax.train import Trainer as Trainer
from mponet_jax.train import gradients as gradients
from mponet_jax.train import predict as predict

name = "jax"


def build(model: Model, parameters: Parameters, *, dtype: str = "float32", device: str | None = None) -> Sequential:
    """The native model with these parameters.

    Raises:
        ModelError: the parameters are not those of the model.
        BackendError: there is no such dtype or device.
    """
    # without a device, arrays stay uncommitted: JAX may move them to whatever they meet
    place = None if device is None else device_of(device)
    native = lower(model, dtype_of(dtype))
    _assign(native, parameters, place)
    return native


def parameters(native: nnx.Module) -> dict[str, Any]:
    """Parameters and running statistics by canonical name, numpy, in the native dtype."""
    return {name: to_numpy(canonical(slot)) for name, slot in slots(native).items()}


def assign(native: nnx.Module, parameters: Parameters) -> None:
    """Overwrite the parameters and running statistics.

    Raises:
        ModelError: they are not those of the model.
    """
    _assign(native, parameters, None)


def trainer(native: nnx.Module, recipe: Recipe) -> Trainer:
    """A trainer that changes ``native`` in place."""
    return Trainer(native, recipe)


def _assign(native: nnx.Module, parameters: Parameters, place: jax.Device | None) -> None:
    places = slots(native)
    check(native.mponet_model, dict(parameters))  # type: ignore[attr-defined, arg-type]
    for name, slot in places.items():
        put(slot.parameter, native_order(slot, np.asarray(parameters[name])), place)
