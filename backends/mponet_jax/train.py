"""Gradients and training steps of lowered models."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from flax import nnx
from numpy.typing import NDArray

from mponet.backend import Numbers, Parameters
from mponet.group import ALONE, Group
from mponet.models.dropout import Masks
from mponet.recipe import AVERAGE, VELOCITY, Recipe, check_state
from mponet_jax.lower import Slot, canonical, dropping, images, native_order, slots
from mponet_jax.ops.arrays import Array, accumulator, from_numpy, to_numpy
from mponet_jax.ops.group import batched, kept, placed, share

#: Arrays of a model, in the order in which JAX sees them as leaves.
Leaves = tuple[Array, ...]


def predict(native: nnx.Module, images: Numbers, masks: Masks = ()) -> Numbers:
    """Logits ``(batch, classes)`` in inference mode of images NHWC.

    With ``masks``, dropout is active all the same.
    """
    native.eval()
    return to_numpy(_logits(native, images, masks))


def gradients(
    native: nnx.Module, images: Numbers, labels: NDArray[np.int64], masks: Masks = ()
) -> tuple[float, dict[str, Numbers]]:
    """Mean cross-entropy in training mode, and its gradient by parameter name.

    Running statistics stay as they are.
    """
    native.train()
    anatomy, parameters, others = _apart(native)
    (loss, after), slopes = _slopes(anatomy, _raw(parameters), _raw(others), images, labels, masks)
    for variable, value in zip(others, after, strict=True):
        if isinstance(variable, nnx.RngState):  # a dropout without a mask has drawn
            variable.set_raw_value(value)
    found = {id(parameter): slope for parameter, slope in zip(parameters, slopes, strict=True)}
    places = {name: slot for name, slot in slots(native).items() if slot.trainable}
    return float(loss), {name: to_numpy(canonical(slot, found[id(slot.parameter)])) for name, slot in places.items()}


class Trainer:
    """SGD by a recipe on a lowered model; changes the model in place.

    The model's parameters are the only ones there are: a step reads them, and sets them to its
    results, which may still be on their way.  The arrays before it stay valid, so that copies of a
    model share them safely; only the memory of momentum and averages is reused.
    """

    def __init__(self, native: nnx.Module, recipe: Recipe, group: Group = ALONE) -> None:
        native.train()
        self.native = native
        self.group = group
        self.optimizer = _optimizer(recipe.momentum, recipe.nesterov, recipe.weight_decay, recipe.clip)
        anatomy, self._parameters, self._others = _apart(native)
        if group.count > 1:
            for variable in (*self._parameters, *self._others):
                shared = group.sharded and isinstance(variable, nnx.Param)
                value = variable.get_raw_value()
                variable.set_raw_value(placed(value, share(value.shape)) if shared else placed(value))
        self._step = _compiled(anatomy, self.optimizer, group.sharded)
        self._initial = _initial_state(self.optimizer, bool(recipe.average), group.sharded)
        named = {id(slot.parameter): (name, slot) for name, slot in slots(native).items()}
        self.slots: dict[str, Slot] = dict(named[id(parameter)] for parameter in self._parameters)
        self._rate = np.dtype(accumulator(self._parameters[0].dtype))
        self.recipe = recipe
        self._state: Any = None

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
        parameters = _raw(self._parameters)
        state = self._initial(parameters) if self._state is None else self._state
        # arrays, not constants: a new learning rate, share or mask compiles nothing
        rate, share = self._rate.type(learning_rate), self._rate.type(share)
        if self.group.count > 1:
            images, labels = batched(images), batched(labels)
            masks = tuple(batched(mask) for mask in masks)
        loss, parameters, others, self._state = self._step(
            parameters, _raw(self._others), state, images, labels, rate, share, masks
        )
        for variable, value in zip(self._parameters, parameters, strict=True):
            variable.set_raw_value(value)
        for variable, value in zip(self._others, others, strict=True):
            variable.set_raw_value(value)
        return loss

    def state(self) -> dict[str, Numbers]:
        """The optimiser's state by name, as far as the recipe has it.

        Names are ``velocity/<parameter name>`` and ``average/<parameter name>``.

        Empty before the first step.
        """
        if self._state is None:
            return {}
        optimizer, averages = self._state
        kept = {VELOCITY: optax.tree_utils.tree_get(optimizer, "trace", default=()), AVERAGE: averages}
        return {
            kind + name: to_numpy(canonical(slot, value))
            for kind, values in kept.items()
            for (name, slot), value in zip(self.slots.items(), values, strict=bool(values))
        }

    def restore(self, state: Parameters) -> None:
        """Take over what `state` gave; nothing at all starts anew.

        Raises:
            CheckpointError: it belongs to other parameters, or to another recipe.
        """
        check_state(state, {name: tuple(canonical(slot).shape) for name, slot in self.slots.items()}, self.recipe)
        if not state:
            self._state = None
            return
        optimizer, averages = self._initial(_raw(self._parameters))
        if self.recipe.momentum:
            optimizer = optax.tree_utils.tree_set(optimizer, trace=tuple(self._restored(VELOCITY, state)))
        if self.recipe.average:
            averages = tuple(self._restored(AVERAGE, state))
        self._state = optimizer, averages

    def _restored(self, kind: str, state: Parameters) -> Iterator[Array]:
        for name, slot in self.slots.items():
            like = slot.parameter.get_raw_value()
            dtype = accumulator(like.dtype) if kind == AVERAGE else like.dtype
            # committed like the parameter: a step with both kinds would be compiled a second time
            # for its results
            device = like.sharding if like.committed else None
            yield from_numpy(native_order(slot, state[kind + name]), dtype, device)


@dataclass(frozen=True, slots=True)
class _Anatomy:
    """A model without its numbers.

    A step works on leaves, because taking a module apart in Python at each step costs more than
    some steps.

    Attributes:
        structure: as JAX sees it.
        trained: of each leaf, whether it is a parameter; the others are running statistics and
            random numbers.
    """

    structure: Any
    trained: tuple[bool, ...]

    def joined(self, parameters: Leaves, others: Leaves) -> Any:
        """The model with these numbers."""
        here, there = iter(parameters), iter(others)
        return self.structure.unflatten([next(here if trained else there) for trained in self.trained])

    def others(self, native: Any) -> Leaves:
        """The numbers of a model that are not parameters."""
        pairs = zip(jax.tree.leaves(native), self.trained, strict=True)
        return tuple(leaf for leaf, trained in pairs if not trained)


def _apart(native: nnx.Module) -> tuple[_Anatomy, list[Any], list[Any]]:
    """A model's anatomy, its parameters, and its other variables, both in the order of leaves."""
    variables = jax.tree.leaves(native, is_leaf=lambda node: isinstance(node, nnx.Variable))
    trained = tuple(isinstance(variable, nnx.Param) for variable in variables)
    parameters, others = (
        [v for v, t in zip(variables, trained, strict=True) if t is wanted] for wanted in (True, False)
    )
    return _Anatomy(jax.tree.structure(native), trained), parameters, others


def _raw(variables: list[Any]) -> Leaves:
    return tuple([variable.get_raw_value() for variable in variables])


@lru_cache(maxsize=64)
def _optimizer(momentum: float, nesterov: bool, weight_decay: float, clip: float) -> optax.GradientTransformation:
    """What to subtract from the parameters for a learning rate of 1.

    The recipe's meaning of clipping and the rest.
    """
    return optax.chain(
        optax.clip_by_global_norm(clip) if clip else optax.identity(),
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
        optax.trace(momentum, nesterov) if momentum else optax.identity(),
    )


@lru_cache(maxsize=64)
def _initial_state(
    optimizer: optax.GradientTransformation, averaging: bool, sharded: bool
) -> Callable[[Leaves], tuple[Any, Leaves]]:
    """The state before the first step, compiled once for all parameters, not once per shape."""

    def initial(parameters: Leaves) -> tuple[Any, Leaves]:
        # halves would lose what a small share adds to an average
        averages = [jnp.zeros_like(leaf, accumulator(leaf.dtype)) for leaf in parameters if averaging]
        state = optimizer.init(parameters), tuple(averages)
        return kept(state) if sharded else state

    return jax.jit(initial, keep_unused=True)  # zeros are committed where the parameters are


@lru_cache(maxsize=64)
def _compiled(
    anatomy: _Anatomy, optimizer: optax.GradientTransformation, sharded: bool
) -> Callable[..., tuple[Array, Leaves, Leaves, Any]]:
    """The training step of all models of this anatomy."""

    @partial(jax.jit, donate_argnames="state")
    def step(
        parameters: Leaves,
        others: Leaves,
        state: Any,
        batch: Array,
        labels: Array,
        rate: Array,
        share: Array,
        masks: Any,
    ) -> tuple[Array, Leaves, Leaves, Any]:
        inner, averages = state
        whole = kept(parameters, whole=True) if sharded else parameters
        (loss, others), slopes = _slopes(anatomy, whole, others, batch, labels, masks)
        if sharded:
            loss, others = kept((loss, others), whole=True)
            slopes = kept(slopes)
        updates, inner = optimizer.update(slopes, inner, parameters)
        stepped = tuple(
            (leaf - rate * update).astype(leaf.dtype) for leaf, update in zip(parameters, updates, strict=True)
        )
        pairs = zip(averages, stepped, strict=bool(averages))  # none where the recipe has no average
        state = inner, tuple(average + share * (leaf - average) for average, leaf in pairs)
        return (loss, kept(stepped), others, kept(state)) if sharded else (loss, stepped, others, state)

    return step


@partial(jax.jit, static_argnums=0)
def _slopes(
    anatomy: _Anatomy, parameters: Leaves, others: Leaves, batch: Array, labels: Array, masks: Any
) -> tuple[tuple[Array, Leaves], Leaves]:
    """Mean cross-entropy, the other variables behind it, and the gradient of the parameters."""

    def loss(parameters: Leaves) -> tuple[Array, Leaves]:
        native = anatomy.joined(parameters, others)
        logits = _forward(native, batch, masks)
        wide = logits.astype(accumulator(logits.dtype))
        return optax.softmax_cross_entropy_with_integer_labels(wide, labels).mean(), anatomy.others(native)

    return jax.value_and_grad(loss, has_aux=True)(parameters)


def _forward(native: Any, batch: Array, masks: Any) -> Array:
    # a frozen model may have no parameters; statistics may be wider than parameters
    leaves = jax.tree.leaves(nnx.state(native, nnx.Param)) or jax.tree.leaves(nnx.state(native))
    dtype = next(leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating))
    with dropping(native, masks):
        return native(images(batch.astype(dtype)))  # type: ignore[no-any-return]


#: JAX compiles it once for each structure of model and shape of batch.
_logits = jax.jit(_forward)
