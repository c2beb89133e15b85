"""Gradients and training steps of lowered models."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from mponet.backend import Numbers, Parameters
from mponet.errors import CheckpointError
from mponet.recipe import Recipe
from mponet_torch.arrays import Array, from_numpy, to_numpy
from mponet_torch.lower import canonical, images, native_order, slots


def predict(native: nn.Module, images: Numbers) -> Numbers:
    """Logits ``(batch, classes)`` in inference mode of images NHWC."""
    native.eval()
    with torch.no_grad():
        return to_numpy(native(_inputs(native, images)))


def gradients(native: nn.Module, images: Numbers, labels: NDArray[np.int64]) -> tuple[float, dict[str, Numbers]]:
    """Mean cross-entropy in training mode, and its gradient by parameter name."""
    native.train()
    places = slots(native)
    loss = _loss(native, images, labels)
    found = torch.autograd.grad(loss, [slot.parameter for slot in places.values()])
    pairs = zip(places.items(), found, strict=True)
    return float(loss.detach()), {name: to_numpy(canonical(slot, value)) for (name, slot), value in pairs}


class Trainer:
    """SGD by a recipe on a lowered model; changes the model in place."""

    def __init__(self, native: nn.Module, recipe: Recipe) -> None:
        self.native = native.train()
        self.slots = slots(native)
        # foreach and fused differ in speed only; fused is one kernel for all parameters, also on a CPU
        self.optimizer = torch.optim.SGD(
            [slot.parameter for slot in self.slots.values()],
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def step(self, images: Numbers, labels: NDArray[np.int64], learning_rate: float) -> Any:
        """One step on a batch NHWC; the mean cross-entropy before it."""
        self.native.train()
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = _loss(self.native, images, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def state(self) -> dict[str, Numbers]:
        """Momentum by ``velocity/<parameter name>``; empty without momentum or before the first step."""
        found = {}
        for name, slot in self.slots.items():
            velocity = self.optimizer.state[slot.parameter].get("momentum_buffer")
            if velocity is not None:
                found[f"velocity/{name}"] = to_numpy(canonical(slot, velocity))
        return found

    def restore(self, state: Parameters) -> None:
        """Take over what `state` gave.

        Raises:
            CheckpointError: it belongs to other parameters.
        """
        if state and set(state) != {f"velocity/{name}" for name in self.slots}:
            raise CheckpointError(f"optimiser state holds {sorted(state)}; expected velocities of {sorted(self.slots)}")
        self.optimizer.state.clear()
        for key, value in state.items():
            name = key.removeprefix("velocity/")
            slot, like = self.slots[name], self.slots[name].parameter
            if value.shape != tuple(canonical(slot).shape):
                raise CheckpointError(
                    f"velocity of {name} has the shape {value.shape}; expected {tuple(canonical(slot).shape)}"
                )
            velocity = native_order(slot, from_numpy(value, like.dtype, like.device)).contiguous()
            self.optimizer.state[like]["momentum_buffer"] = velocity


def _inputs(native: nn.Module, batch: Numbers) -> Array:
    like = next(native.parameters())
    return images(torch.as_tensor(batch).to(device=like.device, dtype=like.dtype))


def _loss(native: nn.Module, batch: Numbers, labels: NDArray[np.int64]) -> Array:
    inputs = _inputs(native, batch)
    return cross_entropy(native(inputs), torch.as_tensor(labels).to(inputs.device))
