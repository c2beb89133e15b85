"""`backend`: PyTorch as a `mponet.backend.Backend`."""

from typing import Any

import torch
from torch import nn

from mponet.backend import Parameters
from mponet.contraction.planner import PlanningContext
from mponet.group import ALONE, Group
from mponet.models.init import check
from mponet.models.spec import Model
from mponet.recipe import Recipe
from mponet_torch import train
from mponet_torch.lower import canonical, lower, native_order, slots
from mponet_torch.ops import planning
from mponet_torch.ops.arrays import device_of, devices, dtype_of, from_numpy, to_numpy
from mponet_torch.ops.group import group, share_of
from mponet_torch.ops.state_dict import read_state_dict


class Framework:
    """What `mponet.load("torch")` gives."""

    name = "torch"
    shards = True
    versions = staticmethod(planning.versions)
    devices = staticmethod(devices)
    group = staticmethod(group)
    predict = staticmethod(train.predict)
    gradients = staticmethod(train.gradients)
    read_state_dict = staticmethod(read_state_dict)

    @property
    def planner(self) -> PlanningContext:
        """What plans for the default device are chosen by."""
        return planning.planner()

    def build(
        self, model: Model, parameters: Parameters, *, dtype: str = "float32", device: str | None = None
    ) -> nn.Sequential:
        """The native model with these parameters and running statistics.

        On a GPU, `predict`, `gradients` and `trainer` compute without TF32 and deterministically.
        A model that is called directly follows torch's own flags, which nothing here changes.

        Raises:
            ModelError: the parameters are not those of the model.
            BackendError: there is no such dtype or device.
        """
        native = lower(model).to(device=device_of(device), dtype=dtype_of(dtype))
        self.assign(native, parameters)
        return native

    def parameters(self, native: nn.Module) -> dict[str, Any]:
        """Parameters and running statistics by canonical name, numpy, in the native dtype."""
        return {name: to_numpy(canonical(slot)) for name, slot in slots(native).items()}

    def assign(self, native: nn.Module, parameters: Parameters) -> None:
        """Overwrite the parameters and the running statistics.

        Raises:
            ModelError: they are not those of the model.
        """
        places = slots(native)
        check(native.mponet_model, dict(parameters))  # type: ignore[arg-type]
        with torch.no_grad():
            for name, slot in places.items():
                value = from_numpy(parameters[name], slot.parameter.dtype, slot.parameter.device)
                slot.parameter.copy_(share_of(native_order(slot, value), slot.parameter))

    def trainer(self, native: nn.Module, recipe: Recipe, group: Group = ALONE) -> train.Trainer:
        """A trainer that changes ``native`` in place."""
        return train.Trainer(native, recipe, group)


backend = Framework()
