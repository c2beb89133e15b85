"""Layer specifications to Keras layers, one small function per type, and where their parameters are.

The native model is an ordinary functional `keras.Model` of images ``(batch, height, width, channels)``.  Keras' own
layouts are the canonical ones, so nothing is ever transposed; ``data_format`` is said everywhere because a user may
have set another default.
"""

from dataclasses import dataclass

import numpy as np

from mponet.errors import ModelError
from mponet.models import layers as spec
from mponet.models.infer import LayerInfo, layers
from mponet_tensorflow.arrays import Array, keras, tf
from mponet_tensorflow.layers import MPODense


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a canonical parameter lives.

    Attributes:
        parameter: the native one.
        axes: its axes in canonical order: ``tf.transpose(native, axes)`` is canonical.
    """

    parameter: keras.Variable
    axes: tuple[int, ...]


def lower(model: spec.Model, dtype: str | None = None) -> keras.Model:
    """The model as Keras layers with parameters of Keras' own making; `assign` sets them.

    Args:
        model: the network.
        dtype: of parameters and numbers, since a Keras layer cannot change it later; None for Keras' default policy.
    """
    inputs = outputs = keras.Input(model.input_shape, dtype=dtype)
    for index, info in enumerate(layers(model)):
        named = getattr(info.layer, "name", f"{info.kind.lower()}{index}")
        outputs = _layer(info, named, dtype)(outputs)
    native = keras.Model(inputs, outputs, name=model.name)
    native.mponet_model = model  # how slots() knows what it holds
    return native


def slots(native: keras.Model) -> dict[str, Slot]:
    """Every parameter of a lowered model by its canonical name.

    Raises:
        ModelError: the model was not made by `lower`.
    """
    model = getattr(native, "mponet_model", None)
    if not isinstance(model, spec.Model):
        raise ModelError(
            f"{type(native).__name__} was not built by mponet; expected the result of mponet_tensorflow.build"
        )
    found: dict[str, Slot] = {}
    for info in layers(model):
        if info.parameters:
            found.update(_slots(native.get_layer(info.layer.name)))  # type: ignore[union-attr]
    return found


def _layer(info: LayerInfo, name: str, dtype: str | None) -> keras.layers.Layer:
    match info.layer:
        case spec.Dense(mpo=None):
            return keras.layers.Dense(info.layer.features, use_bias=info.layer.bias, name=name, dtype=dtype)
        case spec.Dense(mpo=shape) if shape is not None:
            return MPODense(
                shape.output_dims,
                shape.bond_dims[1:-1],
                use_bias=info.layer.bias,
                input_dims=shape.input_dims,
                seed=0,
                name=name,
                dtype=dtype,
            )
        case spec.Conv2D():
            return _conv(info.layer, dtype)
        case spec.ReLU():
            return keras.layers.ReLU(name=name, dtype=dtype)
        case spec.MaxPool(size=size, stride=stride):
            return keras.layers.MaxPooling2D(size, stride, data_format="channels_last", name=name, dtype=dtype)
        case spec.Flatten():
            return keras.layers.Flatten("channels_last", name=name, dtype=dtype)
    raise ModelError(f"layer {info.layer} is unknown to mponet_tensorflow; expected one of {spec.Layer}")


def _conv(layer: spec.Conv2D, dtype: str | None) -> keras.layers.Conv2D:
    return keras.layers.Conv2D(
        layer.features,
        layer.kernel,
        layer.stride,
        padding=layer.padding.lower(),  # the specification pads as TensorFlow does
        data_format="channels_last",
        use_bias=layer.bias,
        name=layer.name,
        dtype=dtype,
    )


def _slots(layer: keras.layers.Layer) -> dict[str, Slot]:
    """Keras' own names of the weights are the canonical ones: ``kernel``, ``core1``, ..., ``bias``."""
    return {f"{layer.name}/{weight.name}": Slot(weight, tuple(range(len(weight.shape)))) for weight in layer.weights}


def canonical(slot: Slot, array: Array | None = None) -> Array:
    """A slot's parameter, or an array laid out like it, in canonical order."""
    return tf.transpose(slot.parameter.value if array is None else array, slot.axes)


def native_order(slot: Slot, array: Array) -> Array:
    """`canonical` backwards."""
    return tf.transpose(array, tuple(int(k) for k in np.argsort(slot.axes)))
