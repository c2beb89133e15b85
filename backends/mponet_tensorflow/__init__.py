"""mponet for TensorFlow and Keras 3: `MPODense`, and the `mponet.backend.Backend` functions."""

from typing import Any

from mponet.backend import Parameters
from mponet.models.init import check
from mponet.models.spec import Model
from mponet.recipe import Recipe
from mponet_tensorflow.lower import canonical, lower, native_order, slots
from mponet_tensorflow.nn.linear import MPODense as MPODense
from mponet_tensorflow.nn.network import NetworkDense as NetworkDense
from mponet_tensorflow.ops.arrays import device_of, dtype_of, from_numpy, keras, tf, to_numpy
from mponet_tensorflow.ops.arrays import devices as devices
from mponet_tensorflow.ops.chain import apply_mpo as apply_mpo
from mponet_tensorflow.ops.graph import apply_network as apply_network
from mponet_tensorflow.ops.planning import PLANNER as PLANNER
from mponet_tensorflow.ops.planning import versions as versions
from mponet_tensorflow.train import Trainer as Trainer
from mponet_tensorflow.train import gradients as gradients
from mponet_tensorflow.train import predict as predict

name = "tensorflow"


def build(model: Model, parameters: Parameters, *, dtype: str = "float32", device: str | None = None) -> keras.Model:
    """The native model with these parameters.

    Raises:
        ModelError: the parameters are not those of the model.
        BackendError: there is no such dtype or device.
    """
    place = device_of(device)
    if place.startswith("gpu"):  # float32 means float32 on every backend; TensorFlow would round products to 10 bits
        tf.config.experimental.enable_tensor_float_32_execution(False)
    with tf.device(place):
        native = lower(model, dtype_of(dtype).name)
        assign(native, parameters)
    return native


def parameters(native: keras.Model) -> dict[str, Any]:
    """Parameters and running statistics by canonical name, numpy, in the native dtype."""
    return {name: to_numpy(canonical(slot)) for name, slot in slots(native).items()}


def assign(native: keras.Model, parameters: Parameters) -> None:
    """Overwrite the parameters and the running statistics.

    Raises:
        ModelError: they are not those of the model.
    """
    places = slots(native)
    check(native.mponet_model, dict(parameters))
    for name, slot in places.items():
        value = from_numpy(parameters[name], slot.parameter.value.dtype)
        slot.parameter.assign(native_order(slot, value))


def trainer(native: keras.Model, recipe: Recipe) -> Trainer:
    """A trainer that changes ``native`` in place."""
    return Trainer(native, recipe)
