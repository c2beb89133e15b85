"""The task that every backend gets, and its files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from mponet.backend import Numbers
from mponet.crosscheck.margin import smoothest_batch
from mponet.crosscheck.rounding import SINGLE
from mponet.errors import InputError
from mponet.models import spec as vocabulary
from mponet.models.dropout import Masks, dropout_layers, sample_masks
from mponet.models.init import start
from mponet.models.shapes import layers, parameter_shapes
from mponet.models.spec import Model
from mponet.operators.shape import MPOShape
from mponet.recipe import Recipe

#: Learning rates of training, by dtype, one tuple for each leg.  They drop in the middle: a
#: velocity with the rate folded in would show.  In float32 every leg is a single step; see
#: `mponet.crosscheck.bounds` for why.
RATES: dict[str, tuple[tuple[float, ...], ...]] = {
    "float64": ((0.01,) * 10 + (0.001,) * 10,),
    "float32": ((0.01,), (0.01,), (0.001,), (0.001,)),
}
DTYPES = tuple(RATES)
SGD = Recipe("sgd", 20, 1, 0.01, weight_decay=0.01)
MOMENTUM = replace(SGD, name="momentum", momentum=0.9)
#: All that a recipe can ask of an optimiser.  Gradients at the start are many times longer than
#: 0.1.
NESTEROV = replace(MOMENTUM, name="nesterov", nesterov=True, average=0.9, clip=0.1)
#: What is trained with; batch, rates and number of steps are those of the case.
RECIPES = (SGD, MOMENTUM, NESTEROV)
#: Spread of what training starts at 0: biases, shifts, running means, velocities.
SIGMA = 0.1
#: Range of what it starts at 1: scales and running variances.
AROUND_ONE = (0.5, 1.5)
#: Batches to choose from, so that no jump is within reach of float32's rounding.
CHOICE = 20


@dataclass(frozen=True, slots=True, eq=False)
class StartState:
    """A state to start from, and what to do there.

    Attributes:
        parameters: parameters and running statistics by canonical name, none at its usual start,
            rounded to the dtype of the case; in float32, moved a little away from jumps
            (`mponet.crosscheck.margin`).
        state: of an optimiser, by ``velocity/<parameter name>`` and ``average/<parameter name>``;
            empty at rest.
        begun: steps that the state has behind it.
        images: ``(batch, height, width, channels)`` in [0, 1), rounded to the dtype of the case.
        labels: ``(batch,)``.
        masks: what each dropout keeps in every step; those of the first also serve logits, loss and
            gradients.
        rates: learning rate of every step.
        share: what jumps within reach of rounding may change of the first step's gradient.
    """

    parameters: dict[str, Numbers]
    state: dict[str, Numbers]
    begun: int
    images: Numbers
    labels: NDArray[np.int64]
    masks: tuple[Masks, ...]
    rates: tuple[float, ...]
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Same numbers for everybody.

    Attributes:
        model: the network.
        dtype: what to compute in.
        recipes: what to train with.
        legs: where training starts; logits, loss and gradients are those of the first.
    """

    model: Model
    dtype: str
    recipes: tuple[Recipe, ...]
    legs: tuple[StartState, ...]

    @property
    def batch(self) -> int:
        """Number of examples."""
        return len(self.legs[0].labels)

    @property
    def share(self) -> float:
        """The largest of any leg."""
        return max(leg.share for leg in self.legs)


def make(
    model: Model, dtype: str, seed: int, batch: int, recipes: Sequence[Recipe] = RECIPES, choice: int = CHOICE
) -> Case:
    """The task of a model, from the seed alone.

    Args:
        model: the network.
        dtype: ``float64`` or ``float32``.
        seed: any whole number from 0.
        batch: number of examples.
        recipes: what to train with; none for logits, loss and gradients alone.
        choice: batches to choose from in float32.

    Raises:
        InputError: the dtype is none that is compared, or the seed or the batch is out of range.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    if seed < 0 or batch < 2:
        raise InputError(
            f"seed is {seed} and batch is {batch}; expected a seed of at least 0, a batch of at least 2, of which "
            "batch norms can take a variance"
        )
    rates = RATES[dtype] if recipes else ((),)
    legs = (_leg(model, dtype, seed, number, batch, steps, choice) for number, steps in enumerate(rates))
    return Case(model, dtype, tuple(recipes), tuple(legs))


def _leg(
    model: Model, dtype: str, seed: int, number: int, batch: int, rates: tuple[float, ...], choice: int
) -> StartState:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3, number)))
    parameters = _values(model, seed if number == 0 else int(rng.integers(2**31)), rng, dtype)
    labels = rng.integers(0, layers(model)[-1].output_shape[-1], batch)
    kept = tuple(
        sample_masks(dropout_layers(model), batch, seed, 100 * number + step) for step in range(max(len(rates), 1))
    )
    candidates = (rng.random((batch, *model.input_shape)).astype(dtype) for _ in range(choice))
    images, jumps = next(candidates), 0.0
    if dtype == "float32":
        images, parameters, jumps = smoothest_batch(model, parameters, chain([images], candidates), kept[0], SINGLE)
    state: dict[str, Numbers] = {}
    if single := len(rates) == 1:
        for name, shape in parameter_shapes(model).items():
            state[f"velocity/{name}"] = rng.normal(0.0, SIGMA, shape).astype(dtype)
            state[f"average/{name}"] = parameters[name] + rng.normal(0.0, SIGMA, shape).astype(dtype)
    return StartState(parameters, state, 10 if single else 0, images, labels, kept, rates, jumps)


def _values(model: Model, seed: int, rng: np.random.Generator, dtype: str) -> dict[str, Numbers]:
    """Parameters and running statistics."""
    values: dict[str, Numbers] = dict(start(model, seed))
    for name, value in values.items():
        match name.rpartition("/")[2]:
            case "bias" | "shift" | "mean":
                values[name] = rng.normal(0.0, SIGMA, value.shape)
            case "scale" | "variance":
                values[name] = rng.uniform(*AROUND_ONE, value.shape)
    return {name: value.astype(dtype) for name, value in values.items()}


def save(case: Case, folder: Path) -> None:
    """Write ``case.json`` and one safetensors file for each leg."""
    facts = {
        "dtype": case.dtype,
        "model": _encode(case.model),
        "recipes": [recipe.as_dict() for recipe in case.recipes],
        "legs": [{"begun": leg.begun, "rates": leg.rates, "share": leg.share} for leg in case.legs],
    }
    (folder / "case.json").write_text(json.dumps(facts), encoding="utf-8")
    for number, leg in enumerate(case.legs):
        tensors: dict[str, NDArray[Any]] = {**leg.state, "images": leg.images, "labels": leg.labels}
        tensors |= {f"parameters/{name}": value for name, value in leg.parameters.items()}
        for step, kept in enumerate(leg.masks):
            tensors |= {f"masks/{step}/{place}": mask for place, mask in enumerate(kept)}
        save_file(tensors, _file(folder, number))


def load(folder: Path) -> Case:
    """What `save` wrote."""
    facts = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    legs = tuple(_read(_file(folder, number), **leg) for number, leg in enumerate(facts["legs"]))
    recipes = tuple(Recipe(**recipe) for recipe in facts["recipes"])
    return Case(_decode(facts["model"]), facts["dtype"], recipes, legs)


def _read(file: Path, begun: int, rates: Sequence[float], share: float) -> StartState:
    found: dict[str, dict[str, Any]] = {"parameters": {}, "velocity": {}, "average": {}, "masks": {}}
    tensors = load_file(file)
    images, labels = tensors.pop("images"), tensors.pop("labels")
    for full, value in tensors.items():
        kind, name = full.split("/", 1)
        found[kind][name] = value
    kept = tuple(_masks(found["masks"], step) for step in range(max(len(rates), 1)))
    state = {f"{kind}/{name}": value for kind in ("velocity", "average") for name, value in found[kind].items()}
    return StartState(found["parameters"], state, begun, images, labels, kept, tuple(rates), share)


def _masks(found: dict[str, NDArray[np.bool_]], step: int) -> Masks:
    places = range(sum(name.startswith(f"{step}/") for name in found))
    return tuple(found[f"{step}/{place}"] for place in places)


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
