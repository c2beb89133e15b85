"""Times of layers and of the operators that replace them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mponet.compress.timing import median_ratio
from mponet_tensorflow.compression.modules import weight_of
from mponet_tensorflow.ops.arrays import Array, keras, tf


def speed_ratio(module: Any, operator: Any, inputs: Array) -> float:
    """Time of a layer over that of its operator, both compiled, in inference mode.

    Args:
        module: the dense layer.
        operator: what replaces it.
        inputs: for both.
    """
    return median_ratio(_compiled(module, inputs), _compiled(operator, inputs))


def sample_inputs(module: Any, shape: tuple[int, ...] | None, rows: int | None) -> Array | None:
    """Inputs for a layer: of a shape, or so many rows of a matrix; None if neither says enough.

    Args:
        module: the layer.
        shape: of its inputs; None if they were not seen.
        rows: rows of a `keras.layers.Dense`, or row numbers of an embedding; None takes the shape.
    """
    embedding = isinstance(module, keras.layers.Embedding)
    if rows is not None and embedding:
        shape = (rows,)
    elif rows is not None and isinstance(module, keras.layers.Dense):
        shape = (rows, weight_of(module).shape[0])
    if shape is None or 0 in shape:
        return None
    rng = np.random.default_rng(0)
    if embedding:
        return tf.constant(rng.integers(0, module.input_dim, shape))
    return tf.cast(rng.normal(size=shape), module.compute_dtype)


def _compiled(layer: Any, inputs: Array) -> Callable[[], None]:
    forward = tf.function(lambda x: layer(x))

    def run() -> None:
        forward(inputs)
        tf.test.experimental.sync_devices()

    return run
