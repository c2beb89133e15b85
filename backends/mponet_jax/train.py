"""Gradients and training steps of lowered models."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
import optax  # type: ignore[import-untyped]
from flax import nnx
from numpy.typing import NDArray

from mponet.backend import Numbers, Parameters
from mponet.errors import CheckpointError
from mponet.recipe import Recipe
from mponet_jax.arrays import Array, accumulator, from_numpy, to_numpy
from mponet_jax.lower import canonical, images, native_order, slots

#: One array for each parameter, in the order of the model's leaves.
Leaves = tuple[Array, ...]


def predict(native: nnx.Module, images: Numbers) -> Numbers:
    """Logits ``(batch, classes)`` in inference mode of images NHWC."""
    native.eval()  # type: ignore[no-untyped-call]
    return to_numpy(_logits(native, images))


def gradients(native: nnx.Module, images: Numbers, labels: NDArray[np.int64]) -> tuple[float, dict[str, Numbers]]:
    """Mean cross-entropy in training mode, and its gradient by parameter name."""
    native.train()  # type: ignore[no-untyped-call]
    loss, found = _slopes(native, images, labels)
    return float(loss), {name: to_numpy(canonical(slot)) for name, slot in slots(found).items()}


class Trainer:
    """SGD by a recipe on a lowered model; changes the model in place.

    The model's parameters are the only ones there are: a step reads them, and sets them to its results, which may still
    be on their way.  The arrays before it stay valid, so that copies of a model share them safely; only the memory of
    the momentum is reused.
    """

    def __init__(self, native: nnx.Module, recipe: Recipe) -> None:
        native.train()  # type: ignore[no-untyped-call]
        self.native = native
        self.slots = dict(_in_order(native))
        self.optimizer = _optimizer(recipe.momentum, recipe.nesterov, recipe.weight_decay)
        self._step = _compiled(jax.tree.structure(native), self.optimizer)
        self._parameters = [slot.parameter for slot in self.slots.values()]
        self._rate = np.dtype(accumulator(self._parameters[0].dtype))
        self._state: Any = None

    def step(self, images: Numbers, labels: NDArray[np.int64], learning_rate: float) -> Any:
        """One step on a batch NHWC; the mean cross-entropy before it."""
        leaves = self._leaves()
        state = self.optimizer.init(leaves) if self._state is None else self._state
        # an array, not a constant: a new learning rate compiles nothing
        loss, leaves, self._state = self._step(leaves, state, images, labels, self._rate.type(learning_rate))
        for parameter, value in zip(self._parameters, leaves, strict=True):
            parameter.set_raw_value(value)
        return loss

    def state(self) -> dict[str, Numbers]:
        """Momentum by ``velocity/<parameter name>``; empty without momentum or before the first step."""
        velocities = optax.tree_utils.tree_get(self._state, "trace", default=())
        pairs = zip(self.slots.items(), velocities, strict=bool(velocities))
        return {f"velocity/{name}": to_numpy(canonical(slot, velocity)) for (name, slot), velocity in pairs}

    def restore(self, state: Parameters) -> None:
        """Take over what `state` gave.

        Raises:
            CheckpointError: it belongs to other parameters.
        """
        if state and set(state) != {f"velocity/{name}" for name in self.slots}:
            raise CheckpointError(f"optimiser state holds {sorted(state)}; expected velocities of {sorted(self.slots)}")
        fresh = self.optimizer.init(self._leaves())
        if not state or optax.tree_utils.tree_get(fresh, "trace") is None:
            self._state = None
            return
        velocities = tuple(self._velocity(name, state[f"velocity/{name}"]) for name in self.slots)
        self._state = optax.tree_utils.tree_set(fresh, trace=velocities)

    def _velocity(self, name: str, value: Numbers) -> Array:
        slot = self.slots[name]
        like = slot.parameter.get_raw_value()
        if value.shape != canonical(slot).shape:
            raise CheckpointError(f"velocity of {name} has the shape {value.shape}; expected {canonical(slot).shape}")
        return from_numpy(native_order(slot, value), like.dtype, like.sharding)

    def _leaves(self) -> Leaves:
        return tuple(parameter.get_raw_value() for parameter in self._parameters)


def _in_order(native: nnx.Module) -> list[tuple[str, Any]]:
    """`slots` in the order in which JAX sees the parameters as leaves."""
    found = {id(slot.parameter): (name, slot) for name, slot in slots(native).items()}
    return [found[id(leaf)] for leaf in jax.tree.leaves(native, is_leaf=lambda node: isinstance(node, nnx.Variable))]


@lru_cache(maxsize=64)
def _optimizer(momentum: float, nesterov: bool, weight_decay: float) -> optax.GradientTransformation:
    """What to subtract from the parameters for a learning rate of 1: the recipe's meaning of decay and momentum."""
    decay = optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()
    return optax.chain(decay, optax.trace(momentum, nesterov) if momentum else optax.identity())


@lru_cache(maxsize=64)
def _compiled(structure: Any, optimizer: optax.GradientTransformation) -> Callable[..., tuple[Array, Leaves, Any]]:
    """The training step of all models of this structure.

    It works on leaves, because taking a module apart in Python at each step costs more than some steps.
    """

    @partial(jax.jit, donate_argnames="state")
    def step(leaves: Leaves, state: Any, batch: Array, labels: Array, rate: Array) -> tuple[Array, Leaves, Any]:
        loss, slopes = jax.value_and_grad(lambda these: _loss(structure.unflatten(these), batch, labels))(leaves)
        updates, state = optimizer.update(slopes, state, leaves)
        stepped = ((leaf - rate * update).astype(leaf.dtype) for leaf, update in zip(leaves, updates, strict=True))
        return loss, tuple(stepped), state

    return step


@jax.jit
def _logits(native: Any, batch: Array) -> Array:
    """JAX compiles it once for each structure of model and shape of batch."""
    dtype = jax.tree.leaves(native)[0].dtype
    return native(images(batch.astype(dtype)))  # type: ignore[no-any-return]


def _loss(native: Any, batch: Array, labels: Array) -> Array:
    logits = _logits(native, batch)
    losses: Array = optax.softmax_cross_entropy_with_integer_labels(logits.astype(accumulator(logits.dtype)), labels)
    return losses.mean()


_slopes = jax.jit(jax.value_and_grad(_loss))
