"""`backend`: JAX as a `mponet.backend.Backend`."""

from typing import Any

import jax
import numpy as np
from flax import nnx

from mponet.backend import Parameters
from mponet.contraction.planner import PlanningContext
from mponet.group import ALONE, Group
from mponet.models.init import check
from mponet.models.spec import Model
from mponet.recipe import Recipe
from mponet_jax import train
from mponet_jax.lower import canonical, lower, native_order, slots
from mponet_jax.nn.blocks import Sequential
from mponet_jax.nn.parameters import put
from mponet_jax.ops import planning
from mponet_jax.ops.arrays import device_of, devices, dtype_of, to_numpy
from mponet_jax.ops.group import group


class Framework:
    """What `mponet.load("jax")` gives."""

    name = "jax"
    shards = True
    versions = staticmethod(planning.versions)
    devices = staticmethod(devices)
    group = staticmethod(group)
    predict = staticmethod(train.predict)
    gradients = staticmethod(train.gradients)

    @property
    def planner(self) -> PlanningContext:
        """What plans for the default device are chosen by."""
        return planning.planner()

    def build(
        self, model: Model, parameters: Parameters, *, dtype: str = "float32", device: str | None = None
    ) -> Sequential:
        """The native model with these parameters and running statistics.

        Raises:
            ModelError: the parameters are not those of the model.
            BackendError: there is no such dtype or device.
        """
        # without a device, arrays stay uncommitted: JAX may move them to whatever they meet
        place = None if device is None else device_of(device)
        native = lower(model, dtype_of(dtype))
        _assign(native, parameters, place)
        return native

    def parameters(self, native: nnx.Module) -> dict[str, Any]:
        """Parameters and running statistics by canonical name, numpy, in the native dtype."""
        return {name: to_numpy(canonical(slot)) for name, slot in slots(native).items()}

    def assign(self, native: nnx.Module, parameters: Parameters) -> None:
        """Overwrite the parameters and the running statistics.

        Raises:
            ModelError: they are not those of the model.
        """
        _assign(native, parameters, None)

    def trainer(self, native: nnx.Module, recipe: Recipe, group: Group = ALONE) -> train.Trainer:
        """A trainer that changes ``native`` in place."""
        return train.Trainer(native, recipe, group)


def _assign(native: nnx.Module, parameters: Parameters, place: jax.Device | None) -> None:
    places = slots(native)
    check(native.mponet_model, dict(parameters))  # type: ignore[attr-defined, arg-type]
    for name, slot in places.items():
        put(slot.parameter, native_order(slot, np.asarray(parameters[name])), place)


backend = Framework()
