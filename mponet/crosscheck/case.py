"""The task that every backend gets, and its files."""

import json
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from mponet.backend import Numbers
from mponet.errors import InputError
from mponet.models import layers as vocabulary
from mponet.models.infer import layers, parameter_shapes
from mponet.models.layers import Model
from mponet.models.start import start
from mponet.recipe import Recipe
from mponet.shape import MPOShape

REFERENCE = "numpy"
DTYPES = ("float64", "float32")
STEPS = 20
#: The learning rate drops in the middle: a velocity with the rate folded in would show.
RATES = (0.01,) * (STEPS // 2) + (0.001,) * (STEPS // 2)
SGD = Recipe("sgd", STEPS, 1, RATES[0], weight_decay=0.01)
#: Trajectories by the name of their recipe.
RECIPES = (SGD, replace(SGD, name="momentum", momentum=0.9), replace(SGD, name="nesterov", momentum=0.9, nesterov=True))
BIAS_SIGMA = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Same numbers for everybody.

    Attributes:
        model: the network.
        dtype: what to compute in.
        parameters: by canonical name, biases not zero, rounded to ``dtype``.
        images: ``(batch, height, width, channels)`` in [0, 1), rounded to ``dtype``.
        labels: ``(batch,)``.
    """

    model: Model
    dtype: str
    parameters: dict[str, Numbers]
    images: Numbers
    labels: NDArray[np.int64]


def make(model: Model, dtype: str, seed: int, batch: int) -> Case:
    """The task of a model, from the seed alone.

    Raises:
        InputError: the dtype is none that is compared, or the seed or the batch is out of range.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    if seed < 0 or batch < 1:
        raise InputError(f"seed is {seed} and batch is {batch}; expected a seed of at least 0, a batch of at least 1")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3,)))
    parameters: dict[str, Numbers] = dict(start(model, seed))
    for name, shape in parameter_shapes(model).items():
        if name.endswith("/bias"):
            parameters[name] = rng.normal(0.0, BIAS_SIGMA, shape)
    images = rng.random((batch, *model.input_shape))
    labels = rng.integers(0, layers(model)[-1].output_shape[-1], batch)
    rounded = {name: np.asarray(value, dtype=dtype) for name, value in parameters.items()}
    return Case(model, dtype, rounded, np.asarray(images, dtype=dtype), labels)


def save(case: Case, folder: Path) -> None:
    """Write ``case.json`` and ``case.safetensors``."""
    text = json.dumps({"dtype": case.dtype, "model": _encode(case.model)})
    (folder / "case.json").write_text(text, encoding="utf-8")
    tensors = {f"parameters/{name}": value for name, value in case.parameters.items()}
    save_file({**tensors, "images": case.images, "labels": case.labels}, folder / "case.safetensors")


def load(folder: Path) -> Case:
    """What `save` wrote."""
    facts = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "case.safetensors")
    images, labels = tensors.pop("images"), tensors.pop("labels")
    parameters = {name.removeprefix("parameters/"): value for name, value in tensors.items()}
    return Case(_decode(facts["model"]), facts["dtype"], parameters, images, labels)


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
