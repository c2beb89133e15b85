"""What compression promises in every framework: the networks of the contract, in plain numpy.

Each framework has a module here, ``contract.compress_torch`` and so on, that offers:

- ``package``: the adapter's package, with ``compress``, ``plan``, ``calibrate`` and so on;
- ``CASES``: name to `Case`, a model with one layer called ``layer`` for each kind of layer;
- ``network(weights, dtype)``: the network of `Network` as a model of the framework, with a dropout
  somewhere;
- ``branches()``: a model and a batch; the layers ``wide`` and ``narrow`` read one array and make
  different rows of it;
- ``tied()``: name to a model, a batch, and the names of two layers that share a weight, the one
  that owns it first;
- ``left_alone()``: a model, a batch, and name to text of the reasons why layers are left;
- ``shared()``: a model of one layer that it uses twice, and a batch;
- ``cubic_loss(outputs, batch)``: ``sum(outputs^3) / 3``;
- ``batches(array)``: name to a pair of a model and a batch of ``array``, for every form of batches;
- ``run(model, batch)``: the outputs as numpy; ``numbers(model)``: all parameters by name;
- ``layer(model, name)``: a module by its name;
- ``train(model)``: put it into training mode; ``trains(model)``: whether it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mponet.compress import Calibration, InputSums
from mponet.compress.target import Target

WORDS, SIZE = 150, 96
#: Name to shape, ``(inputs, outputs)``; a bias is one of the outputs.
SHAPES = {"embed": (WORDS, SIZE), **dict.fromkeys(("query", "key", "value", "output"), (SIZE, SIZE))}
BIASES = ("key", "value", "output")


@dataclass(frozen=True)
class Case:
    """A kind of layer.

    Attributes:
        shape: rows and columns of its matrix.
        make: the model, from matrix, bias (None for none) and the name of a dtype.
        batch: a batch for it, from a numpy generator and the name of a dtype.
        has_bias: whether the kind can have a bias.
    """

    shape: tuple[int, int]
    make: Callable[..., Any]
    batch: Callable[..., Any]
    has_bias: bool = True


def weights(seed=0):
    """Numbers of `Network`: falling spectra, as trained weights have."""
    rng = np.random.default_rng(seed)
    numbers = {}
    for name, shape in SHAPES.items():
        u, s, vh = np.linalg.svd(rng.normal(size=shape) / np.sqrt(SIZE), full_matrices=False)
        numbers[name] = u * (s * np.arange(1, len(s) + 1) ** -rng.uniform(0.3, 0.9)) @ vh * 3
        if name in BIASES:
            numbers[f"{name}.bias"] = rng.normal(size=SIZE)
    return numbers


def tokens(count=6, seed=1):
    """Batches of words, not all equally frequent."""
    rng = np.random.default_rng(seed)
    return [(WORDS * rng.random((8, 30)) ** 2).astype(np.int64) for _ in range(count)]


class Network:
    """Five layers, of which three read one array; forward and backward by hand.

    ``x = embed[tokens]``, ``h = tanh(query(x)) * key(x) + value(x)``, ``y = x + output(h)``; the
    loss is ``sum(y^3) / 3``.
    """

    def __init__(self, numbers):
        self.numbers = numbers

    def _layer(self, name, inputs):
        return inputs @ self.numbers[name] + self.numbers.get(f"{name}.bias", 0.0)

    def __call__(self, batch):
        """The outputs for a batch of tokens."""
        return self._passes(batch)[-1]

    def _passes(self, batch):
        x = self.numbers["embed"][batch]
        query, key, value = (self._layer(name, x) for name in ("query", "key", "value"))
        hidden = np.tanh(query) * key + value
        return x, query, key, hidden, x + self._layer("output", hidden)

    def inputs(self, batches):
        """Layer to the rows that it multiplies with."""
        passes = [self._passes(batch) for batch in batches]
        x, hidden = (np.concatenate([p[k].reshape(-1, SIZE) for p in passes]) for k in (0, 3))
        return {
            "query": x,
            "key": x,
            "value": x,
            "output": hidden,
            "embed": np.eye(WORDS)[np.concatenate(batches).ravel()],
        }

    def gradients(self, batches):
        """Layer to the rows of the loss's gradient at its outputs."""
        rows = {name: [] for name in SHAPES}
        for batch in batches:
            _, query, key, _, outputs = self._passes(batch)
            slopes = {"output": outputs**2}
            hidden = slopes["output"] @ self.numbers["output"].T
            slopes["query"] = hidden * key * (1 - np.tanh(query) ** 2)
            slopes["key"], slopes["value"] = hidden * np.tanh(query), hidden
            back = [slopes[name] @ self.numbers[name].T for name in ("query", "key", "value")]
            slopes["embed"] = outputs**2 + sum(back)
            for name, values in slopes.items():
                rows[name].append(values.reshape(-1, SIZE))
        return {name: np.concatenate(parts) for name, parts in rows.items()}

    def calibration(self, batches):
        """What a pass over the batches should give, for the metric ``kfac``."""
        inputs, gradients = self.inputs(batches), self.gradients(batches)
        known = Calibration()
        for name in SHAPES:
            key = "query" if name in ("key", "value") else name
            known.inputs[name] = key
            if name == key:
                known.sums[key] = InputSums.zeros(inputs[name].shape[1], diagonal=name == "embed")
                known.sums[key].add(inputs[name])
            rows = gradients[name]
            known.add_gradient(name, float((rows**2).mean()), len(rows), rows.T @ rows)
        return known

    def targets(self):
        """Its layers, as an adapter describes them."""
        return [
            Target(
                name=name,
                kind="embedding" if name == "embed" else "linear",
                type_name="Layer",
                in_features=shape[0],
                out_features=shape[1],
                load=lambda name=name: self.numbers[name],
                load_bias=(lambda name=name: self.numbers[f"{name}.bias"]) if name in BIASES else None,
                itemsize=8,
            )
            for name, shape in SHAPES.items()
        ]


def planted(case, rank, seed=0):
    """A matrix of a rank, and a bias if the kind has one."""
    rng = np.random.default_rng(seed)
    rows, columns = case.shape
    matrix = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns)) / np.sqrt(rows * rank)
    return matrix, rng.normal(size=columns) if case.has_bias else None
