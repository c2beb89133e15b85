"""Keras layers for layer specifications that Keras has no exact or no fast layer for."""

from collections.abc import Sequence
from typing import Any

from mponet.errors import ModelError
from mponet_tensorflow.ops.arrays import Array, keras, tf


@keras.saving.register_keras_serializable(package="mponet")
class BatchNorm(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, two to three times as fast where a fused kernel fits.

    Keras makes the norm of many small operations, each of which reads the feature maps once more.
    TensorFlow's kernel knows float32 feature maps ``(batch, height, width, channels)`` only, and
    its variance is divided by one value less than there are; Keras' is not, and so is the running
    variance here.
    """

    def call(self, inputs: Array, training: bool | None = None, mask: Array | None = None) -> Array:
        """The norm of the batch in training, of the running statistics otherwise."""
        if training and self.trainable and mask is None and self._fusible(inputs):
            return self._fused(inputs)
        return super().call(inputs, training=training, mask=mask)

    def _fusible(self, inputs: Array) -> bool:
        float32 = inputs.dtype == self.compute_dtype == self.variable_dtype == "float32"
        plain = self.scale and self.center and not self.renorm and not self.synchronized
        return float32 and plain and inputs.shape.rank == 4 and self.axis in (-1, 3)

    def _fused(self, inputs: Array) -> Array:
        outputs, mean, corrected, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], corrected.dtype)
        for running, batch in ((self.moving_mean, mean), (self.moving_variance, corrected * ((count - 1) / count))):
            running.assign(running * self.momentum + batch * (1 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable(package="mponet")
class Dropout(keras.layers.Dropout):
    """`keras.layers.Dropout`, which can be told what to keep.

    Attributes:
        kept: boolean, the shape of the inputs: the values to keep, in inference as well; None for
            Keras' own ways. `mponet_tensorflow.lower.dropping` sets it.
    """

    kept: Array | None = None

    def call(self, inputs: Array, training: bool = False) -> Array:
        """The values kept, divided by the share of them.

        Raises:
            ModelError: the mask has another shape, or is a constant of a function that is being
                compiled.
        """
        if self.kept is None:
            return super().call(inputs, training=training)
        if not inputs.shape.is_compatible_with(self.kept.shape):
            raise ModelError(
                f"the mask of {self.name} has the shape {tuple(self.kept.shape)}; expected {tuple(inputs.shape)}"
            )
        if not tf.executing_eagerly() and not tf.is_symbolic_tensor(self.kept):
            raise ModelError(
                f"the mask of {self.name} would be compiled in as a constant; expected an argument of the compiled "
                "function; use dropping inside it, or call the model itself"
            )
        return inputs * (tf.cast(self.kept, inputs.dtype) / (1 - self.rate))


@keras.saving.register_keras_serializable(package="mponet")
class PadChannels(keras.layers.Layer):
    """Feature maps with ``channels`` channels of zeros behind their own."""

    def __init__(self, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels

    def call(self, inputs: Array) -> Array:
        """``(..., n)`` to ``(..., n + channels)``."""
        return tf.pad(inputs, [[0, 0]] * (inputs.shape.rank - 1) + [[0, self.channels]])

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """``(..., n)`` to ``(..., n + channels)``."""
        return (*input_shape[:-1], input_shape[-1] + self.channels)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        return {**super().get_config(), "channels": self.channels}
