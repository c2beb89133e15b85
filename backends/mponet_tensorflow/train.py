"""Gradients and training steps of lowered models."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.backend import Numbers, Parameters
from mponet.errors import CheckpointError
from mponet.recipe import Recipe
from mponet_tensorflow.arrays import Array, from_numpy, keras, tf, to_numpy
from mponet_tensorflow.lower import canonical, native_order, slots


def predict(native: keras.Model, images: Numbers) -> Numbers:
    """Logits ``(batch, classes)`` in inference mode of images NHWC."""
    with tf.device(_device(native)):
        # compiled by Keras, kept in the model, and two to three times as fast as calling the model
        logits = native.predict_on_batch(np.asarray(images, native.inputs[0].dtype))
    return to_numpy(tf.convert_to_tensor(logits))


def gradients(native: keras.Model, images: Numbers, labels: NDArray[np.int64]) -> tuple[float, dict[str, Numbers]]:
    """Mean cross-entropy in training mode, and its gradient by parameter name."""
    places = slots(native)
    with tf.device(_device(native)):
        loss, found = _loss_and_slopes(native, [slot.parameter.value for slot in places.values()], images, labels)
    pairs = zip(places.items(), found, strict=True)
    return float(loss), {name: to_numpy(canonical(slot, value)) for (name, slot), value in pairs}


class Trainer:
    """SGD by a recipe on a lowered model; changes the model in place."""

    def __init__(self, native: keras.Model, recipe: Recipe) -> None:
        self.native = native
        self.recipe = recipe
        self.slots = slots(native)
        self.device = _device(native)
        self.weights = {name: slot.parameter.value for name, slot in self.slots.items()}
        with tf.device(self.device):
            moving = self.weights if recipe.momentum else {}
            self.velocities = {name: tf.Variable(tf.zeros_like(weight)) for name, weight in moving.items()}
        # no XLA: on a CPU it is no faster for fc2, 2.7 times slower for lenet5's convolutions, and compiles for seconds
        self.compiled = tf.function(self._step, autograph=False, jit_compile=False)

    def step(self, images: Numbers, labels: NDArray[np.int64], learning_rate: float) -> Any:
        """One step on a batch NHWC; the mean cross-entropy before it."""
        with tf.device(self.device):
            # as a tensor: a Python number would be compiled in, and every new one compiled again
            return self.compiled(images, labels, tf.constant(learning_rate, self.native.inputs[0].dtype))

    def state(self) -> dict[str, Numbers]:
        """Momentum by ``velocity/<parameter name>``; empty without momentum."""
        return {
            f"velocity/{name}": to_numpy(canonical(self.slots[name], velocity))
            for name, velocity in self.velocities.items()
        }

    def restore(self, state: Parameters) -> None:
        """Take over what `state` gave.

        Raises:
            CheckpointError: it belongs to other parameters.
        """
        if state and set(state) != {f"velocity/{name}" for name in self.slots}:
            raise CheckpointError(f"optimiser state holds {sorted(state)}; expected velocities of {sorted(self.slots)}")
        for name, velocity in self.velocities.items():
            value = state.get(f"velocity/{name}", np.zeros(velocity.shape))
            if value.shape != tuple(velocity.shape):
                raise CheckpointError(
                    f"velocity of {name} has the shape {value.shape}; expected {tuple(velocity.shape)}"
                )
            velocity.assign(native_order(self.slots[name], from_numpy(value, velocity.dtype)))

    def _step(self, images: Array, labels: Array, learning_rate: Array) -> Array:
        loss, slopes = _loss_and_slopes(self.native, list(self.weights.values()), images, labels)
        for (name, weight), slope in zip(self.weights.items(), slopes, strict=True):
            if self.recipe.weight_decay:
                slope = slope + self.recipe.weight_decay * weight
            if self.recipe.momentum:
                _apply_momentum(weight, self.velocities[name], slope, learning_rate, self.recipe)
            else:
                weight.assign_sub(learning_rate * slope)
        return loss


def _apply_momentum(
    weight: tf.Variable, velocity: tf.Variable, slope: Array, learning_rate: Array, recipe: Recipe
) -> None:
    """``v <- m v + g``, then ``w <- w - lr v`` or Nesterov's ``w <- w - lr (g + m v)``, in one pass over memory.

    Keras' optimiser is not used: its velocity is ``v <- m v - lr g``, in which a new learning rate acts only as fast as
    the old velocity dies away.  This kernel of TensorFlow is the recipe's rule.
    """
    tf.raw_ops.ResourceApplyMomentum(
        var=weight.handle,
        accum=velocity.handle,
        lr=learning_rate,
        grad=slope,
        momentum=tf.constant(recipe.momentum, weight.dtype),
        use_nesterov=recipe.nesterov,
    )


def _device(native: keras.Model) -> str:
    """Where the model's parameters are."""
    return str(native.weights[0].value.device)


def _loss_and_slopes(
    native: keras.Model, weights: list[Array], images: Array, labels: Array
) -> tuple[Array, list[Array]]:
    """Mean cross-entropy in training mode, and its gradients."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        logits = native(tf.cast(images, native.inputs[0].dtype), training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    return loss, tape.gradient(loss, weights)
