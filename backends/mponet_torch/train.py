"""Gradients and training steps of lowered models."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from mponet.backend import Numbers, Parameters
from mponet.errors import CheckpointError
from mponet.models.dropout import Masks
from mponet.recipe import Recipe
from mponet_torch.arrays import Array, from_numpy, to_numpy
from mponet_torch.lower import Slot, canonical, dropping, images, native_order, slots


def predict(native: nn.Module, images: Numbers, masks: Masks = ()) -> Numbers:
    """Logits ``(batch, classes)`` in inference mode of images NHWC; with ``masks``, dropout is active all the same."""
    native.eval()
    with torch.no_grad(), dropping(native, masks):
        return to_numpy(native(_inputs(native, images)))


def gradients(
    native: nn.Module, images: Numbers, labels: NDArray[np.int64], masks: Masks = ()
) -> tuple[float, dict[str, Numbers]]:
    """Mean cross-entropy in training mode, and its gradient by parameter name; running statistics do not move."""
    native.train()
    places = _trainable(native)
    before = [(buffer, buffer.clone()) for buffer in native.buffers()]
    try:
        loss = _loss(native, images, labels, masks)
        found = torch.autograd.grad(loss, [slot.parameter for slot in places.values()])
    finally:  # autograd still looks at the statistics, so not before
        for buffer, value in before:
            buffer.copy_(value)
    pairs = zip(places.items(), found, strict=True)
    return float(loss.detach()), {name: to_numpy(canonical(slot, value)) for (name, slot), value in pairs}


class Trainer:
    """SGD by a recipe on a lowered model; changes the model in place."""

    def __init__(self, native: nn.Module, recipe: Recipe) -> None:
        self.native = native.train()
        self.recipe = recipe
        self.slots = _trainable(native)
        self.averages: list[Array] = []  # of the parameters, in the order of the slots; none before the first step
        self._parameters = [slot.parameter for slot in self.slots.values()]
        # foreach and fused differ in speed only; fused is one kernel for all parameters, also on a CPU
        self.optimizer = torch.optim.SGD(
            self._parameters,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

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
        self.native.train()
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = _loss(self.native, images, labels, masks)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip:
            self._clip()
        self.optimizer.step()
        if self.recipe.average:
            self._average(share)
        return loss.detach()

    def state(self) -> dict[str, Numbers]:
        """Momentum by ``velocity/<name>``, averages by ``average/<name>``; empty before the first step."""
        velocities = [self.optimizer.state[parameter].get("momentum_buffer") for parameter in self._parameters]
        found = {f"velocity/{name}": value for name, value in zip(self.slots, velocities, strict=True)}
        found |= {f"average/{name}": value for name, value in zip(self.slots, self.averages, strict=False)}
        return {
            key: to_numpy(canonical(self.slots[key.partition("/")[2]], value))
            for key, value in found.items()
            if value is not None
        }

    def restore(self, state: Parameters) -> None:
        """Take over what `state` gave; nothing, for a fresh start.

        Raises:
            CheckpointError: it belongs to other parameters.
        """
        velocities = self._restored("velocity", state)
        averages = self._restored("average", state)
        if unknown := set(state) - {f"velocity/{n}" for n in velocities} - {f"average/{n}" for n in averages}:
            raise CheckpointError(
                f"optimiser state holds {sorted(unknown)}; expected velocities or averages of {sorted(self.slots)}"
            )
        self.optimizer.state.clear()
        for name, value in velocities.items():
            self.optimizer.state[self.slots[name].parameter]["momentum_buffer"] = value
        self.averages = list(averages.values())

    def _clip(self) -> None:
        """Scale the gradients down to the recipe's norm; on the device, nothing waits for the norm."""
        slopes = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(slopes)
        torch._foreach_mul_(slopes, (self.recipe.clip / norm).clamp(max=1.0))

    def _average(self, share: float) -> None:
        """Move the averages by ``share`` of the way to the parameters."""
        with torch.no_grad():
            if not self.averages:
                self.averages = [torch.zeros_like(parameter) for parameter in self._parameters]
            torch._foreach_lerp_(self.averages, self._parameters, share)

    def _restored(self, kind: str, state: Parameters) -> dict[str, Array]:
        """The native arrays of one kind, by parameter name: those of all parameters, or none."""
        given = {key.partition("/")[2]: value for key, value in state.items() if key.startswith(f"{kind}/")}
        plural = {"velocity": "velocities", "average": "averages"}[kind]
        if given and set(given) != set(self.slots):
            raise CheckpointError(f"optimiser state holds {plural} of {sorted(given)}; expected {sorted(self.slots)}")
        for name, value in given.items():
            expected = tuple(canonical(self.slots[name]).shape)
            if value.shape != expected:
                raise CheckpointError(f"{kind} of {name} has the shape {value.shape}; expected {expected}")
        return {name: _like(slot, given[name]) for name, slot in self.slots.items() if given}


def _trainable(native: nn.Module) -> dict[str, Slot]:
    return {name: slot for name, slot in slots(native).items() if slot.trainable}


def _like(slot: Slot, value: Numbers) -> Array:
    """The values laid out in memory as the parameter is, which a fused optimiser takes for granted."""
    like = slot.parameter.detach()
    return torch.empty_like(like).copy_(native_order(slot, from_numpy(value, like.dtype, like.device)))


def _inputs(native: nn.Module, batch: Numbers) -> Array:
    like = next(native.parameters())
    return images(torch.as_tensor(batch).to(device=like.device, dtype=like.dtype))


def _loss(native: nn.Module, batch: Numbers, labels: NDArray[np.int64], masks: Masks) -> Array:
    inputs = _inputs(native, batch)
    with dropping(native, masks):
        return cross_entropy(native(inputs), torch.as_tensor(labels).to(inputs.device))
