"""A NumPy backend, so that the loop, its files and resuming are tested without a framework.

It takes one layer: softmax regression on a full matrix, or on an operator of two sites.
"""

import numpy as np

from mponet.group import ALONE
from mponet.models import Family
from mponet.models.spec import Dense, Flatten, Model
from mponet.operators.shape import MPOShape
from mponet.recipe import Recipe

RECIPE = Recipe("short", steps=120, batch=100, learning_rate=0.5, momentum=0.9, weight_decay=1e-4, nesterov=True)


def make(variant, bond):
    shape = MPOShape.from_factors((8, 8), (5, 2), 2 if bond is None else bond) if variant == "mpo" else None
    return Model("toy", variant, bond, (8, 8, 1), (Flatten(), Dense("fc1", 10, mpo=shape)), "a test")


FAMILY = Family("toy", "toy", "toy", ("toy",), lambda _, variant, bond: make(variant, bond), "one layer", "mnist")


class Killed(BaseException):
    """As abrupt as a signal: nothing in the library may catch it."""


class Native:
    def __init__(self, model, parameters):
        self.model = model
        self.values = parameters


class Loss:
    """A loss that counts how often it is read."""

    def __init__(self, backend, value):
        self.backend, self.value = backend, value

    def __float__(self):
        self.backend.reads += 1
        return float(self.value)


class ToyBackend:
    """The `mponet.backend.Backend` protocol; ``kill_at`` and ``nan_at`` count steps in total."""

    name = "toy"

    def __init__(self, kill_at=None, nan_at=None):
        self.kill_at, self.nan_at = kill_at, nan_at
        self.steps = self.reads = self.evaluations = 0

    def versions(self):
        return {"toy": "1"}

    def devices(self):
        return ("cpu",)

    def build(self, model, parameters, *, dtype="float32", device=None):
        return Native(model, {name: np.array(value, dtype) for name, value in parameters.items()})

    def parameters(self, native):
        return {name: value.copy() for name, value in native.values.items()}

    def assign(self, native, parameters):
        native.values = {name: np.array(value, np.float32) for name, value in parameters.items()}

    def predict(self, native, images, masks=()):
        self.evaluations += 1
        flat = images.reshape(len(images), -1)
        return flat @ _matrix(native.values) + native.values["fc1/bias"]

    def gradients(self, native, images, labels, masks=()):
        logits = self.predict(native, images)
        self.evaluations -= 1
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        rows = np.arange(len(labels))
        loss = -np.log(shares[rows, labels]).mean()
        shares[rows, labels] -= 1
        slope = shares / len(labels)
        return loss, _pulled_back(native.values, images.reshape(len(images), -1).T @ slope) | {"fc1/bias": slope.sum(0)}

    def group(self):
        return ALONE

    def trainer(self, native, recipe, group=None):
        return ToyTrainer(self, native, recipe)


class ToyTrainer:
    def __init__(self, backend, native, recipe):
        self.backend, self.native, self.recipe = backend, native, recipe
        self.velocity = {name: np.zeros_like(value) for name, value in native.values.items()}
        self.average = {name: np.zeros_like(value) for name, value in native.values.items()} if recipe.average else {}

    def step(self, images, labels, learning_rate, *, masks=(), share=0.0):
        if self.backend.kill_at == self.backend.steps:
            raise Killed
        loss, gradients = self.backend.gradients(self.native, images, labels)
        if self.backend.nan_at == self.backend.steps:
            loss = self.native.values["fc1/bias"][0] = np.nan
        self.backend.steps += 1
        for name, value in self.native.values.items():
            gradient = gradients[name] + np.float32(self.recipe.weight_decay) * value
            self.velocity[name] = np.float32(self.recipe.momentum) * self.velocity[name] + gradient
            look = gradient + np.float32(self.recipe.momentum) * self.velocity[name]
            value -= np.float32(learning_rate) * look
        for name, value in self.average.items():
            value += np.float32(share) * (self.native.values[name] - value)
        return Loss(self.backend, loss)

    def state(self):
        velocities = {f"velocity/{name}": value.copy() for name, value in self.velocity.items()}
        return velocities | {f"average/{name}": value.copy() for name, value in self.average.items()}

    def restore(self, state):
        self.velocity, self.average = (
            {name.removeprefix(slot): np.array(value) for name, value in state.items() if name.startswith(slot)}
            for slot in ("velocity/", "average/")
        )


def _matrix(values):
    if "fc1/kernel" in values:
        return values["fc1/kernel"]
    return np.einsum("xija,aklx->ikjl", values["fc1/core1"], values["fc1/core2"]).reshape(64, 10)


def _pulled_back(values, slope):
    if "fc1/kernel" in values:
        return {"fc1/kernel": slope}
    first, second = values["fc1/core1"], values["fc1/core2"]
    parts = slope.reshape(first.shape[1], second.shape[1], first.shape[2], second.shape[2])
    return {
        "fc1/core1": np.einsum("ikjl,aklx->xija", parts, second),
        "fc1/core2": np.einsum("ikjl,xija->aklx", parts, first),
    }
