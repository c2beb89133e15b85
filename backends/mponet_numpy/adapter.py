"""`backend`: the reference that the frameworks are compared with, as a `mponet.backend.Backend`.

Forward only, always in float64, operators through the TensorNetwork graph itself.  It trains
nothing.
"""

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from mponet.backend import TRAINABLE, VARIABLE, Numbers, Parameters
from mponet.contraction.planner import PlanningContext
from mponet.errors import BackendError
from mponet.group import ALONE, Group
from mponet.models.dropout import Masks
from mponet.models.init import check
from mponet.models.spec import Model
from mponet.recipe import Recipe
from mponet_numpy.lower import Network, lower
from mponet_numpy.ops import planning

DTYPES = ("float64", "float32")


class Framework:
    """What `mponet.load("numpy")` gives."""

    name = "numpy"
    shards = False
    versions = staticmethod(planning.versions)

    @property
    def planner(self) -> PlanningContext:
        """What plans are chosen by."""
        return planning.planner()

    def devices(self) -> tuple[str, ...]:
        """Devices that `build` accepts, the default first."""
        return ("cpu",)

    def build(
        self, model: Model, parameters: Parameters, *, dtype: str = "float32", device: str | None = None
    ) -> Network:
        """The network with these parameters.  It computes in float64 whatever ``dtype`` says.

        Raises:
            ModelError: the parameters are not those of the model.
            BackendError: there is no such dtype or device.
        """
        if dtype not in DTYPES:
            raise BackendError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
        if device not in (None, *self.devices()):
            raise BackendError(f"device is {device!r}; expected one of {', '.join(self.devices())}")
        native = lower(model)
        self.assign(native, parameters)
        return native

    def parameters(self, native: Network) -> dict[str, Numbers]:
        """Parameters and running statistics by canonical name, float64."""
        return {name: value.copy() for name, value in native.parameters.items()}

    def assign(self, native: Network, parameters: Parameters) -> None:
        """Overwrite the parameters.

        Raises:
            ModelError: they are not those of the model.
        """
        values = {name: np.array(value, dtype=np.float64) for name, value in parameters.items()}
        check(native.model, values)
        native.parameters = values

    def predict(self, native: Network, images: Numbers, masks: Masks = ()) -> Numbers:
        """Logits ``(batch, classes)`` of images NHWC; with ``masks``, dropout is active."""
        return native(images, masks=masks)

    def gradients(
        self, native: Network, images: Numbers, labels: NDArray[np.int64], masks: Masks = ()
    ) -> tuple[float, dict[str, Numbers]]:
        """Refused: the reference is forward only.

        Raises:
            BackendError: always.
        """
        _refuse()

    def group(self) -> Group:
        """One process."""
        return ALONE

    def trainer(self, native: Network, recipe: Recipe, group: Group = ALONE) -> Any:
        """Refused: the reference is forward only.

        Raises:
            BackendError: always.
        """
        _refuse()


def _refuse() -> NoReturn:
    raise BackendError(f"backend 'numpy' trains nothing; set {VARIABLE} to one of {', '.join(TRAINABLE)}")


backend = Framework()
