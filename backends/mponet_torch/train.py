"""Gradients and training steps of lowered models."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from mponet.backend import Numbers, Parameters
from mponet.group import ALONE, Group
from mponet.models.dropout import Masks
from mponet.recipe import AVERAGE, VELOCITY, Recipe, check_state
from mponet_torch.lower import Slot, canonical, dropping, full_precision, images, native_order, slots
from mponet_torch.nn.blocks import BatchNorm
from mponet_torch.ops.arrays import Array, from_numpy, to_numpy
from mponet_torch.ops.group import data_parallel, fully_sharded, share_of, summed


def predict(native: nn.Module, images: Numbers, masks: Masks = ()) -> Numbers:
    """Logits ``(batch, classes)`` in inference mode of images NHWC.

    With ``masks``, dropout is active all the same.
    """
    native.eval()
    with torch.no_grad(), full_precision(native), dropping(native, masks):
        return to_numpy(native(_inputs(native, images)))


def gradients(
    native: nn.Module, images: Numbers, labels: NDArray[np.int64], masks: Masks = ()
) -> tuple[float, dict[str, Numbers]]:
    """Mean cross-entropy in training mode, and its gradient by parameter name.

    Running statistics do not move.
    """
    native.train()
    places = _trainable(native)
    before = [(buffer, buffer.clone()) for buffer in native.buffers()]
    try:
        with full_precision(native):
            loss = _loss(native, images, labels, masks)
            found = torch.autograd.grad(loss, [slot.parameter for slot in places.values()])
    finally:  # autograd still looks at the statistics, so not before
        for buffer, value in before:
            buffer.copy_(value)
    pairs = zip(places.items(), found, strict=True)
    return float(loss.detach()), {name: to_numpy(canonical(slot, value)) for (name, slot), value in pairs}


class Trainer:
    """SGD by a recipe on a lowered model; changes the model in place."""

    def __init__(self, native: nn.Module, recipe: Recipe, group: Group = ALONE) -> None:
        self.native = native.train()
        self.group = group
        self._forward = native if group.count == 1 else _together(native, group)
        self.recipe = recipe
        self.slots = _trainable(native)
        self.averages: list[Array] = []  # of the parameters, in the order of the slots; none before the first step
        self._parameters = [slot.parameter for slot in self.slots.values()]
        # foreach and fused differ in speed only; fused is one kernel for all parameters, also on a
        # CPU, but knows no DTensor
        self.optimizer = torch.optim.SGD(
            self._parameters,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=not group.sharded,
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
        if not self.native.training:  # `predict` came between; asking all modules takes a small network's time
            self.native.train()
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        with full_precision(self.native):
            loss = _loss(self._forward, images, labels, masks)
            loss.backward()
            if self.group.count > 1:
                loss = summed(loss.detach()) / self.group.count
        if self.recipe.clip:
            self._clip()
        self.optimizer.step()
        if self.recipe.average:
            self._average(share)
        return loss.detach()

    def state(self) -> dict[str, Numbers]:
        """The optimiser's state by name, as far as the recipe has it.

        The momentum is ``velocity/<parameter name>``, the average ``average/<parameter name>``.

        Empty before the first step.
        """
        velocities = [self.optimizer.state[parameter].get("momentum_buffer") for parameter in self._parameters]
        kept = {VELOCITY: [value for value in velocities if value is not None], AVERAGE: self.averages}
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
        self.optimizer.state.clear()
        self.averages = []
        for name, slot in self.slots.items():
            if VELOCITY + name in state:
                self.optimizer.state[slot.parameter]["momentum_buffer"] = _like(slot, state[VELOCITY + name])
            if AVERAGE + name in state:
                self.averages.append(_like(slot, state[AVERAGE + name]))

    def _clip(self) -> None:
        """Scale the gradients down to the recipe's norm.

        On the device, nothing waits for the norm.
        """
        slopes = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(slopes)
        torch._foreach_mul_(slopes, (self.recipe.clip / norm).clamp(max=1.0))

    def _average(self, share: float) -> None:
        """Move the averages by ``share`` of the way to the parameters."""
        with torch.no_grad():
            if not self.averages:
                self.averages = [torch.zeros_like(parameter) for parameter in self._parameters]
            torch._foreach_lerp_(self.averages, self._parameters, share)


def _together(native: nn.Module, group: Group) -> nn.Module:
    for module in native.modules():
        if isinstance(module, BatchNorm):
            module.synchronized = True
    return fully_sharded(native) if group.sharded else data_parallel(native)


def _trainable(native: nn.Module) -> dict[str, Slot]:
    return {name: slot for name, slot in slots(native).items() if slot.trainable}


def _like(slot: Slot, value: Numbers) -> Array:
    """The values in the memory layout of the parameter, which a fused optimiser expects."""
    like = slot.parameter.detach()
    whole = native_order(slot, from_numpy(value, like.dtype, like.device))
    return torch.empty_like(like).copy_(share_of(whole, like))


def _inputs(native: nn.Module, batch: Numbers) -> Array:
    like = next(native.parameters())
    return images(torch.as_tensor(batch).to(device=like.device, dtype=like.dtype))


def _loss(native: nn.Module, batch: Numbers, labels: NDArray[np.int64], masks: Masks) -> Array:
    inputs = _inputs(native, batch)
    with dropping(native, masks):
        return cross_entropy(native(inputs), torch.as_tensor(labels).to(inputs.device))
