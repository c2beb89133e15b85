"""The task that every backend gets, and its files."""

import json
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from mponet.backend import Numbers
from mponet.crosscheck.margin import widest
from mponet.errors import InputError
from mponet.models import layers as vocabulary
from mponet.models.infer import layers, parameter_shapes
from mponet.models.layers import Model
from mponet.models.start import start
from mponet.recipe import Recipe
from mponet.shape import MPOShape

#: Learning rates of training, by dtype, one tuple for each leg.  They drop in the middle: a velocity with the rate
#: folded in would show.  In float32 every leg is a single step; see `mponet.crosscheck.bounds` for why.
RATES: dict[str, tuple[tuple[float, ...], ...]] = {
    "float64": ((0.01,) * 10 + (0.001,) * 10,),
    "float32": ((0.01,), (0.01,), (0.001,), (0.001,)),
}
DTYPES = tuple(RATES)
SGD = Recipe("sgd", 20, 1, 0.01, weight_decay=0.01)
#: What is trained with; batch, rates and number of steps are those of the case.
RECIPES = (SGD, replace(SGD, name="momentum", momentum=0.9), replace(SGD, name="nesterov", momentum=0.9, nesterov=True))
BIAS_SIGMA = 0.1
VELOCITY_SIGMA = 0.1
#: Images to choose each image of the batch from.
CHOICE = 4


@dataclass(frozen=True, slots=True, eq=False)
class Leg:
    """A state to start from, and what to do there.

    Attributes:
        parameters: by canonical name, biases not zero, rounded to the dtype of the case.
        velocity: by ``velocity/<parameter name>``; empty at rest.
        images: ``(batch, height, width, channels)`` in [0, 1), rounded to the dtype of the case.
        labels: ``(batch,)``.
        rates: learning rate of every step.
    """

    parameters: dict[str, Numbers]
    velocity: dict[str, Numbers]
    images: Numbers
    labels: NDArray[np.int64]
    rates: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Same numbers for everybody.

    Attributes:
        model: the network.
        dtype: what to compute in.
        legs: where training starts; logits, loss and gradients are those of the first.
    """

    model: Model
    dtype: str
    legs: tuple[Leg, ...]


def make(model: Model, dtype: str, seed: int, batch: int) -> Case:
    """The task of a model, from the seed alone.

    Raises:
        InputError: the dtype is none that is compared, or the seed or the batch is out of range.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    if seed < 0 or batch < 1:
        raise InputError(f"seed is {seed} and batch is {batch}; expected a seed of at least 0, a batch of at least 1")
    legs = (_leg(model, dtype, seed, number, batch, rates) for number, rates in enumerate(RATES[dtype]))
    return Case(model, dtype, tuple(legs))


def _leg(model: Model, dtype: str, seed: int, number: int, batch: int, rates: tuple[float, ...]) -> Leg:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3, number)))
    values = start(model, seed if number == 0 else int(rng.integers(2**31)))
    for name, shape in parameter_shapes(model).items():
        if name.endswith("/bias"):
            values[name] = rng.normal(0.0, BIAS_SIGMA, shape)
    parameters: dict[str, Numbers] = {name: value.astype(dtype) for name, value in values.items()}
    velocity: dict[str, Numbers] = {
        f"velocity/{name}": rng.normal(0.0, VELOCITY_SIGMA, value.shape).astype(dtype)
        for name, value in values.items()
        if len(RATES[dtype]) > 1
    }
    candidates = rng.random((CHOICE * batch, *model.input_shape)).astype(dtype)
    labels = rng.integers(0, layers(model)[-1].output_shape[-1], batch)
    return Leg(parameters, velocity, widest(model, parameters, candidates, batch), labels, rates)


def save(case: Case, folder: Path) -> None:
    """Write ``case.json`` and one safetensors file for each leg."""
    facts = {"dtype": case.dtype, "model": _encode(case.model), "rates": [leg.rates for leg in case.legs]}
    (folder / "case.json").write_text(json.dumps(facts), encoding="utf-8")
    for number, leg in enumerate(case.legs):
        tensors = {f"parameters/{name}": value for name, value in leg.parameters.items()}
        save_file({**tensors, **leg.velocity, "images": leg.images, "labels": leg.labels}, _file(folder, number))


def load(folder: Path) -> Case:
    """What `save` wrote."""
    facts = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    legs = []
    for number, rates in enumerate(facts["rates"]):
        tensors = load_file(_file(folder, number))
        images, labels = tensors.pop("images"), tensors.pop("labels")
        velocity = {name: tensors.pop(name) for name in list(tensors) if name.startswith("velocity/")}
        parameters = {name.removeprefix("parameters/"): value for name, value in tensors.items()}
        legs.append(Leg(parameters, velocity, images, labels, tuple(rates)))
    return Case(_decode(facts["model"]), facts["dtype"], tuple(legs))


def _file(folder: Path, number: int) -> Path:
    return folder / f"case{number}.safetensors"


def _encode(value: Any) -> Any:
    """Specifications as JSON: a dataclass is an object with its name as ``type``, a tuple a list."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__} | {f.name: _encode(getattr(value, f.name)) for f in fields(value)}
    return [_encode(item) for item in value] if isinstance(value, tuple) else value


def _decode(value: Any) -> Any:
    """`_encode` backwards."""
    if isinstance(value, dict):
        kind = MPOShape if value["type"] == MPOShape.__name__ else getattr(vocabulary, value["type"])
        return kind(**{name: _decode(item) for name, item in value.items() if name != "type"})
    return tuple(_decode(item) for item in value) if isinstance(value, list) else value
