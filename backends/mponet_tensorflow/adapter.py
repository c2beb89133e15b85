"""`backend`: TensorFlow and Keras 3 as a `mponet.backend.Backend`."""

from typing import Any

from mponet.backend import Parameters
from mponet.contraction.planner import PlanningContext
from mponet.group import ALONE, Group
from mponet.models.init import check
from mponet.models.spec import Model
from mponet.recipe import Recipe
from mponet_tensorflow import train
from mponet_tensorflow.lower import canonical, lower, native_order, slots
from mponet_tensorflow.ops import planning
from mponet_tensorflow.ops.arrays import device_of, devices, dtype_of, from_numpy, keras, tf, to_numpy
from mponet_tensorflow.ops.group import group


class Framework:
    """What `mponet.load("tensorflow")` gives."""

    name = "tensorflow"
    shards = False
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
    ) -> keras.Model:
        """The native model with these parameters and running statistics.

        On a GPU, `predict`, `gradients` and `trainer` compute without TF32.  A model that is called
        directly follows TensorFlow's own flag, which nothing here changes.

        Raises:
            ModelError: the parameters are not those of the model.
            BackendError: there is no such dtype or device.
        """
        with tf.device(device_of(device)):
            native = lower(model, dtype_of(dtype).name)
            self.assign(native, parameters)
        return native

    def parameters(self, native: keras.Model) -> dict[str, Any]:
        """Parameters and running statistics by canonical name, numpy, in the native dtype."""
        return {name: to_numpy(canonical(slot)) for name, slot in slots(native).items()}

    def assign(self, native: keras.Model, parameters: Parameters) -> None:
        """Overwrite the parameters and the running statistics.

        Raises:
            ModelError: they are not those of the model.
        """
        places = slots(native)
        check(native.mponet_model, dict(parameters))
        for name, slot in places.items():
            value = from_numpy(parameters[name], slot.parameter.value.dtype)
            slot.parameter.assign(native_order(slot, value))

    def trainer(self, native: keras.Model, recipe: Recipe, group: Group = ALONE) -> train.Trainer:
        """A trainer that changes ``native`` in place."""
        return train.Trainer(native, recipe, group)


backend = Framework()
