"""What a layer is called with: everything that `keras.layers.Dense` takes, or one clear error."""

from math import prod
from typing import Any

from mponet.errors import InputError
from mponet.layers.checks import check_real, check_width
from mponet_tensorflow.nn.frozen import padded
from mponet_tensorflow.ops.arrays import Array, tf
from mponet_tensorflow.ops.contraction import apply


def linear(layer: Any, inputs: Array, training: bool | None = None) -> Array:
    """``activation(inputs @ W + b)`` of a layer, ``(..., inputs)`` to ``(..., units)``.

    Raises:
        ShapeError: the last dimension is not the number of inputs.
        InputError: the inputs are complex, sparse or ragged.
    """
    inputs = real(inputs, layer.compute_dtype)
    rows, bias = as_rows(inputs, layer.in_features, layer.shape), layer.bias
    if layer.frozen is not None:
        return layer.activation(as_leading(layer.frozen.product(rows, bias, layer.padding), inputs))
    rows, bias = padded(rows, bias, layer.padding)
    outputs = apply(layer.plans(rows.shape[0]), rows, layer.tensors, bias, training=training)
    outputs = outputs[:, : layer.units] if layer.padding[1] else outputs
    return layer.activation(as_leading(outputs, inputs))


def real(inputs: Any, dtype: str) -> Array:
    """Inputs in the dtype that a layer computes in.

    Raises:
        InputError: they are complex, or sparse or ragged.
    """
    return tf.cast(dense_real(inputs), dtype)  # Keras itself casts floating-point numbers only


def dense_real(inputs: Any) -> Array:
    """Inputs as a tensor.

    Raises:
        InputError: they are complex, or sparse or ragged.
    """
    if isinstance(inputs, tf.SparseTensor | tf.RaggedTensor):
        raise InputError(f"inputs are a {type(inputs).__name__}; expected a dense tensor; use tf.sparse.to_dense")
    inputs = tf.convert_to_tensor(inputs)
    check_real(inputs.dtype.name, "inputs")
    return inputs


def as_rows(inputs: Array, features: int, shape: object) -> Array:
    """``(..., features)`` as ``(batch, features)``; the shape is for the error.

    Raises:
        ShapeError: the last dimension is known and another.
    """
    known = inputs.shape
    if not known.rank or known[-1] is not None:
        check_width(features, shape, tuple(known))
    leading = known[:-1]
    if known[-1] is None:  # while tracing; checked when it runs, before a reshape can swallow a wrong width
        inputs = tf.ensure_shape(inputs, [*leading, features])
    if known.rank == 2:
        return inputs
    return tf.reshape(inputs, (prod(leading) if leading.is_fully_defined() else -1, features))


def as_leading(outputs: Array, inputs: Array) -> Array:
    """``(batch, units)`` with the leading dimensions of the inputs."""
    if inputs.shape.rank == 2:
        return outputs
    width, leading = outputs.shape[-1], inputs.shape[:-1]
    if leading.is_fully_defined():
        return tf.reshape(outputs, (*leading, width))
    shaped = tf.reshape(outputs, tf.concat([tf.shape(inputs)[:-1], [width]], 0))
    shaped.set_shape([*leading, width])  # no operation, unlike ensure_shape, which LiteRT lacks
    return shaped
