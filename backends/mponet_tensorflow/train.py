"""Gradients and training steps of lowered models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.backend import Numbers, Parameters
from mponet.group import ALONE, Group
from mponet.models.dropout import Masks
from mponet.recipe import AVERAGE, VELOCITY, Recipe, check_state
from mponet_tensorflow.lower import Slot, canonical, dropping, full_precision, native_order, slots
from mponet_tensorflow.ops.arrays import Array, from_numpy, keras, tf, to_numpy
from mponet_tensorflow.ops.group import averaged, strategy


def predict(native: keras.Model, images: Numbers, masks: Masks = ()) -> Numbers:
    """Logits ``(batch, classes)`` in inference mode of images NHWC.

    With ``masks``, dropout is active all the same.
    """
    images = np.asarray(images, native.inputs[0].dtype)
    with full_precision(native), dropping(native, masks):
        # compiled by Keras, kept in the model, and two to three times as fast as calling the model;
        # knows no masks
        logits = native(images, training=False) if masks else native.predict_on_batch(images)
    return to_numpy(tf.convert_to_tensor(logits))


def gradients(
    native: keras.Model, images: Numbers, labels: NDArray[np.int64], masks: Masks = ()
) -> tuple[float, dict[str, Numbers]]:
    """Mean cross-entropy in training mode, and its gradient by parameter name.

    Running statistics stay as they are.
    """
    places = slots(native)
    trained = {name: slot for name, slot in places.items() if slot.trainable}
    with full_precision(native), _unmoved([slot for slot in places.values() if not slot.trainable]):
        weights = [slot.parameter.value for slot in trained.values()]
        loss, found = _loss_and_slopes(native, weights, images, labels, masks)
    pairs = zip(trained.items(), found, strict=True)
    return float(loss), {name: to_numpy(canonical(slot, value)) for (name, slot), value in pairs}


class Trainer:
    """SGD by a recipe on a lowered model; changes the model in place."""

    def __init__(self, native: keras.Model, recipe: Recipe, group: Group = ALONE) -> None:
        self.native = native
        self.group = group
        if group.count > 1:
            for layer in _batch_norms(native):
                layer.synchronized = True
        self.recipe = recipe
        self.slots = {name: slot for name, slot in slots(native).items() if slot.trainable}
        self.weights = {name: slot.parameter.value for name, slot in self.slots.items()}
        with full_precision(native):
            self.velocities = _zeros_like(self.weights if recipe.momentum else {})
            self.averages = _zeros_like(self.weights if recipe.average else {})
        # no XLA: on a CPU it is no faster for fc2, 2.7 times slower for lenet5's convolutions, and
        # compiles for seconds
        step = self._step if group.count == 1 else self._replicated
        self.compiled = tf.function(step, autograph=False, jit_compile=False)

    def step(
        self,
        images: Numbers,
        labels: NDArray[np.int64],
        learning_rate: float,
        *,
        masks: Masks = (),
        share: float = 0.0,
    ) -> Any:
        """One step on a batch NHWC; the mean cross-entropy before it."""
        dtype = self.native.inputs[0].dtype
        with full_precision(self.native):
            # as tensors: a Python number would be compiled in, and every new one compiled again
            numbers = tf.constant(learning_rate, dtype), tf.constant(share, dtype)
            return self.compiled(images, labels, *numbers, tuple(masks))

    def state(self) -> dict[str, Numbers]:
        """The optimiser's state by name.

        The momentum is ``velocity/<parameter name>``; the moving average, if kept, is
        ``average/<parameter name>``.
        """
        return {
            kind + name: to_numpy(canonical(self.slots[name], value))
            for kind, values in self._kept().items()
            for name, value in values.items()
        }

    def restore(self, state: Parameters) -> None:
        """Take over what `state` gave; nothing at all starts anew.

        Raises:
            CheckpointError: it belongs to other parameters, or to another recipe.
        """
        check_state(state, {name: tuple(canonical(slot).shape) for name, slot in self.slots.items()}, self.recipe)
        for kind, variables in self._kept().items():
            for name, variable in variables.items():
                if state:
                    value = from_numpy(state[kind + name], variable.dtype)
                    variable.assign(native_order(self.slots[name], value))
                else:
                    variable.assign(tf.zeros_like(variable))

    def _kept(self) -> dict[str, dict[str, tf.Variable]]:
        """What is kept of each parameter between steps."""
        return {VELOCITY: self.velocities, AVERAGE: self.averages}

    def _replicated(self, *arguments: Any) -> Array:
        """`_step` on every process of the strategy."""
        losses = strategy().run(self._step, args=arguments)
        return strategy().experimental_local_results(losses)[0]

    def _step(
        self, images: Array, labels: Array, learning_rate: Array, share: Array, masks: tuple[Array, ...]
    ) -> Array:
        loss, slopes = _loss_and_slopes(self.native, list(self.weights.values()), images, labels, masks)
        if self.group.count > 1:
            loss, *slopes = averaged([loss, *slopes])
        if self.recipe.clip:
            slopes, _ = tf.clip_by_global_norm(slopes, self.recipe.clip)
        for (name, weight), slope in zip(self.weights.items(), slopes, strict=True):
            if self.recipe.weight_decay:
                slope = slope + self.recipe.weight_decay * weight
            if self.recipe.momentum:
                _apply_momentum(weight, self.velocities[name], slope, learning_rate, self.recipe)
            else:
                weight.assign_sub(learning_rate * slope)
            if self.recipe.average:
                self.averages[name].assign_add(share * (weight - self.averages[name]))
        return loss


def _apply_momentum(
    weight: tf.Variable, velocity: tf.Variable, slope: Array, learning_rate: Array, recipe: Recipe
) -> None:
    """``v <- m v + g``, then ``w <- w.

    Lr v`` or Nesterov's ``w <- w - lr (g + m v)``, in one pass over memory.

    Keras' optimiser is not used: its velocity is ``v <- m v - lr g``, in which a new learning rate
    acts only as fast as the old velocity dies away.  This kernel of TensorFlow is the recipe's
    rule.
    """
    tf.raw_ops.ResourceApplyMomentum(
        var=weight.handle,
        accum=velocity.handle,
        lr=learning_rate,
        grad=slope,
        momentum=tf.constant(recipe.momentum, weight.dtype),
        use_nesterov=recipe.nesterov,
    )


def _batch_norms(native: keras.Model) -> list[keras.layers.Layer]:
    layers = native._flatten_layers(include_self=False)
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]


def _zeros_like(weights: dict[str, tf.Variable]) -> dict[str, tf.Variable]:
    return {name: tf.Variable(tf.zeros_like(weight)) for name, weight in weights.items()}


@contextmanager
def _unmoved(statistics: Sequence[Slot]) -> Iterator[None]:
    """Behind it, the running statistics are what they were before it."""
    before = [tf.identity(slot.parameter.value) for slot in statistics]
    try:
        yield
    finally:
        for slot, value in zip(statistics, before, strict=True):
            slot.parameter.assign(value)


def _loss_and_slopes(
    native: keras.Model, weights: list[Array], images: Array, labels: Array, masks: Sequence[Array]
) -> tuple[Array, list[Array]]:
    """Mean cross-entropy in training mode, and its gradients."""
    with tf.GradientTape(watch_accessed_variables=False) as tape, dropping(native, masks):
        tape.watch(weights)
        logits = native(tf.cast(images, native.inputs[0].dtype), training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    return loss, tape.gradient(loss, weights)
