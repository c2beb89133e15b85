"""Convert layer specifications to Keras layers, and find their parameters.

Each layer type has one small function.

The native model is an ordinary functional `keras.Model` of images ``(batch, height, width,
channels)``.  Keras' own layouts are the canonical ones, so nothing is ever transposed;
``data_format`` is said everywhere because a user may have set another default.  Layers without a
name of their own are counted by kind in the order of use: ``relu1``.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.errors import ModelError
from mponet.models import spec as spec
from mponet.models.shapes import LayerInfo, layers, leaves, parameter_shapes, statistic_shapes
from mponet_tensorflow.nn.blocks import BatchNorm, Dropout, PadChannels
from mponet_tensorflow.nn.linear import MPODense
from mponet_tensorflow.ops.arrays import Array, keras, tf

_NAMES = {"gamma": "scale", "beta": "shift", "moving_mean": "mean", "moving_variance": "variance"}


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a canonical parameter or running statistic lives.

    Attributes:
        parameter: the native one.
        axes: its axes in canonical order: ``tf.transpose(native, axes)`` is canonical.
        trainable: whether it is a parameter; running statistics are not.
    """

    parameter: keras.Variable
    axes: tuple[int, ...]
    trainable: bool = True


def lower(model: spec.Model, dtype: str | None = None) -> keras.Model:
    """The model as Keras layers with parameters of Keras' own making; `assign` sets them.

    Args:
        model: the network.
        dtype: of parameters and numbers, since a Keras layer cannot change it later; None for
            Keras' default policy.
    """
    inputs = keras.Input(model.input_shape, dtype=dtype)
    native = keras.Model(inputs, _chain(layers(model), inputs, _Making(dtype)), name=model.name)
    native.mponet_model = model  # how slots() knows what it holds
    return native


def slots(native: keras.Model) -> dict[str, Slot]:
    """Every parameter of a lowered model by its canonical name, then its running statistics.

    Raises:
        ModelError: the model was not made by `lower`.
    """
    model = _model(native)
    found: dict[str, Slot] = {}
    for info in leaves(model):
        if info.parameters:
            found.update(_slots(native.get_layer(info.layer.name)))  # type: ignore[union-attr]
    return {name: found[name] for name in (*parameter_shapes(model), *statistic_shapes(model))}


@contextmanager
def dropping(native: keras.Model, masks: Sequence[NDArray[np.bool_] | Array]) -> Iterator[None]:
    """Inside, the dropouts of a lowered model keep what the masks say, in inference as well.

    Within a compiled function the masks must be arguments of it, so that new ones compile nothing.

    Args:
        native: the result of `lower`.
        masks: booleans ``(batch, *shape)``, one for each dropout in the order of use; none change
            nothing.

    Raises:
        ModelError: there are more or fewer masks than dropouts, or the model was not made by
            `lower`.
    """
    count = sum(isinstance(info.layer, spec.Dropout) for info in leaves(_model(native)))
    if len(masks) not in (0, count):
        raise ModelError(f"{native.name} is given {len(masks)} dropout masks; expected one for each of its {count}")
    dropouts = [native.get_layer(f"dropout{number}") for number in range(1, len(masks) + 1)]
    for dropout, mask in zip(dropouts, masks, strict=True):
        dropout.kept = tf.convert_to_tensor(mask, tf.bool)
    try:
        yield
    finally:
        for dropout in dropouts:
            dropout.kept = None


@contextmanager
def full_precision(native: keras.Model) -> Iterator[None]:
    """Inside, everything is computed on the device of a model, and without TF32 if that is a GPU.

    TensorFlow has only a flag of the whole process for this; it is restored at the end.
    """
    device, flags = _device(native), tf.config.experimental
    before = flags.tensor_float_32_execution_enabled()
    flags.enable_tensor_float_32_execution(before and "gpu" not in device.lower())
    try:
        with tf.device(device):
            yield
    finally:
        flags.enable_tensor_float_32_execution(before)


@dataclass(frozen=True, slots=True)
class _Making:
    """What all layers of one model share while it is made.

    Their dtype, and how many of each kind there are.
    """

    dtype: str | None
    counts: Counter[str] = field(default_factory=Counter)

    def options(self, info: LayerInfo) -> dict[str, Any]:
        """Name and dtype of a layer."""
        named = getattr(info.layer, "name", None)
        if named is None:
            kind = info.kind.lower()
            self.counts[kind] += 1
            named = f"{kind}{self.counts[kind]}"
        return {"name": named, "dtype": self.dtype}


def _chain(infos: Sequence[LayerInfo], state: Any, making: _Making) -> Any:
    for info in infos:
        state = _apply(info, state, making)
    return state


def _apply(info: LayerInfo, state: Any, making: _Making) -> Any:
    branches = [_chain(branch, state, making) for branch in info.branches]
    options = making.options(info)
    match info.layer:
        case spec.Residual():
            return keras.layers.Add(**options)(branches)
        case spec.Concat():
            return keras.layers.Concatenate(-1, **options)([state, *branches])
    return _layer(info.layer, options)(state)


def _layer(layer: spec.Layer, options: dict[str, Any]) -> keras.layers.Layer:
    match layer:
        case spec.Dense():
            return _dense(layer, options)
        case spec.Conv2D(mpo=None):
            return _conv(layer, options)
        case spec.BatchNorm(decay=decay, epsilon=epsilon):
            return BatchNorm(momentum=decay, epsilon=epsilon, **options)
        case spec.ReLU():
            return keras.layers.ReLU(**options)
        case spec.MaxPool(size=size, stride=stride):
            return keras.layers.MaxPooling2D(size, stride, data_format="channels_last", **options)
        case spec.AvgPool(size=size, stride=stride):
            return keras.layers.AveragePooling2D(size, stride, data_format="channels_last", **options)
        case spec.Flatten():
            return keras.layers.Flatten("channels_last", **options)
        case spec.Reshape(shape=shape):
            return keras.layers.Reshape(shape, **options)
        case spec.PadChannels(channels=channels):
            return PadChannels(channels, **options)
        case spec.Dropout(rate=rate):
            return Dropout(rate, **options)
    raise ModelError(f"layer {layer} is unknown to mponet_tensorflow; expected one of {spec.Layer}")


def _dense(layer: spec.Dense, options: dict[str, Any]) -> keras.layers.Layer:
    if layer.mpo is None:
        return keras.layers.Dense(layer.features, use_bias=layer.bias, **options)
    return MPODense(
        layer.mpo.output_dims,
        layer.mpo.bond_dims[1:-1],
        use_bias=layer.bias,
        input_dims=layer.mpo.input_dims,
        seed=0,
        **options,
    )


def _conv(layer: spec.Conv2D, options: dict[str, Any]) -> keras.layers.Conv2D:
    return keras.layers.Conv2D(
        layer.features,
        layer.kernel,
        layer.stride,
        padding=layer.padding.lower(),  # the specification pads as TensorFlow does
        data_format="channels_last",
        use_bias=layer.bias,
        **options,
    )


def _model(native: keras.Model) -> spec.Model:
    model = getattr(native, "mponet_model", None)
    if not isinstance(model, spec.Model):
        raise ModelError(
            f"{type(native).__name__} was not built by mponet; expected the result of mponet_tensorflow.backend.build"
        )
    return model


def _slots(layer: keras.layers.Layer) -> dict[str, Slot]:
    """The weights of a layer under their canonical names.

    These are Keras' own names except for those of batch norms.
    """
    return {
        f"{layer.name}/{_NAMES.get(weight.name, weight.name)}": Slot(
            weight, tuple(range(len(weight.shape))), not weight.name.startswith("moving_")
        )
        for weight in layer.weights
    }


def canonical(slot: Slot, array: Array | None = None) -> Array:
    """A slot's parameter, or an array laid out like it, in canonical order."""
    return tf.transpose(slot.parameter.value if array is None else array, slot.axes)


def native_order(slot: Slot, array: Array) -> Array:
    """`canonical` backwards."""
    return tf.transpose(array, tuple(int(k) for k in np.argsort(slot.axes)))


def _device(native: keras.Model) -> str:
    """Where the model's parameters are."""
    return str(native.weights[0].value.device)
