"""The task that every backend computes, and its files."""

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
from mponet.files import read_json, write_json
from mponet.models import spec as vocabulary
from mponet.models.dropout import Masks, dropout_layers, sample_masks
from mponet.models.init import start
from mponet.models.shapes import layers, parameter_shapes
from mponet.models.spec import Model
from mponet.operators.shape import MPOShape
from mponet.recipe import Recipe

#: Learning rates of training by dtype, one tuple per start state.  They drop in the middle, which
#: shows a velocity that contains the rate.  In float32 every start state is followed by one step;
#: `mponet.crosscheck.bounds` says why.
RATES: dict[str, tuple[tuple[float, ...], ...]] = {
    "float64": ((0.01,) * 10 + (0.001,) * 10,),
    "float32": ((0.01,), (0.01,), (0.001,), (0.001,)),
}
DTYPES = tuple(RATES)
SGD = Recipe("sgd", 20, 1, 0.01, weight_decay=0.01)
MOMENTUM = replace(SGD, name="momentum", momentum=0.9)
#: Everything that a recipe can set.  The norm of the first gradients is many times larger than 0.1.
NESTEROV = replace(MOMENTUM, name="nesterov", nesterov=True, average=0.9, clip=0.1)
#: Recipes to train with; batch, rates and number of steps are those of the case.
RECIPES = (SGD, MOMENTUM, NESTEROV)
#: Standard deviation of values that training starts at 0: biases, shifts, running means,
#: velocities.
SIGMA = 0.1
#: Range of values that training starts at 1: scales and running variances.
AROUND_ONE = (0.5, 1.5)
#: Number of candidate batches, so that one has no jump within reach of float32 rounding.
CHOICE = 20


@dataclass(frozen=True, slots=True, eq=False)
class StartState:
    """A state of training to start from, and the batch for the steps that follow.

    Attributes:
        parameters: parameters and running statistics by canonical name, rounded to the dtype of the
            case.  All are random, so that no term is zero or one by initialisation; in float32 they
            are moved away from jumps (`mponet.crosscheck.margin`).
        state: state of the optimiser by ``velocity/<parameter name>`` and ``average/<parameter
            name>``; empty at the first step.
        first_step: number of the first step.
        images: ``(batch, height, width, channels)`` in [0, 1), rounded to the dtype of the case.
        labels: ``(batch,)``.
        masks: dropout masks of every step; those of the first are used for logits, loss and
            gradients as well.
        rates: learning rate of every step.
        share: relative change of the first gradient that jumps within reach of rounding may cause.
    """

    parameters: dict[str, Numbers]
    state: dict[str, Numbers]
    first_step: int
    images: Numbers
    labels: NDArray[np.int64]
    masks: tuple[Masks, ...]
    rates: tuple[float, ...]
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """The numbers that all backends start from.

    Attributes:
        model: the network.
        dtype: floating-point type of the computation.
        recipes: recipes to train with.
        starts: states that training starts from; logits, loss and gradients use the first.
    """

    model: Model
    dtype: str
    recipes: tuple[Recipe, ...]
    starts: tuple[StartState, ...]

    @property
    def batch(self) -> int:
        """Number of examples."""
        return len(self.starts[0].labels)

    @property
    def share(self) -> float:
        """The largest share of the start states."""
        return max(start_state.share for start_state in self.starts)


def make(
    model: Model, dtype: str, seed: int, batch: int, recipes: Sequence[Recipe] = RECIPES, choice: int = CHOICE
) -> Case:
    """The task for a model; it depends on the seed alone.

    Args:
        model: the network.
        dtype: ``float64`` or ``float32``.
        seed: a whole number from 0.
        batch: number of examples.
        recipes: recipes to train with; empty for logits, loss and gradients only.
        choice: number of candidate batches in float32.

    Raises:
        InputError: the dtype is unknown, or the seed or the batch is out of range.

    >>> from mponet.models import build
    >>> case = make(build("fc2"), "float64", seed=0, batch=4)
    >>> case.batch, len(case.starts[0].rates)
    (4, 20)
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    if seed < 0 or batch < 2:
        raise InputError(
            f"seed is {seed} and batch is {batch}; expected a seed of at least 0, and a batch of at least 2, which "
            "batch norms need for a variance"
        )
    rates = RATES[dtype] if recipes else ((),)
    starts = (_start_state(model, dtype, seed, number, batch, steps, choice) for number, steps in enumerate(rates))
    return Case(model, dtype, tuple(recipes), tuple(starts))


def _start_state(
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


@dataclass(frozen=True, slots=True)
class Facts:
    """Who answered: the file next to the answers of a backend."""

    versions: dict[str, str]
    device: str


@dataclass(frozen=True, slots=True)
class _Start:
    first_step: int
    rates: tuple[float, ...]
    share: float


@dataclass(frozen=True, slots=True)
class _Document:
    """case.json."""

    dtype: str
    model: dict[str, Any]
    recipes: tuple[Recipe, ...]
    starts: tuple[_Start, ...]


def save(case: Case, folder: Path) -> None:
    """Write ``case.json`` and one safetensors file per start state."""
    facts = {
        "dtype": case.dtype,
        "model": _encode(case.model),
        "recipes": [recipe.as_dict() for recipe in case.recipes],
        "starts": [
            {"first_step": start_state.first_step, "rates": start_state.rates, "share": start_state.share}
            for start_state in case.starts
        ],
    }
    write_json(folder / "case.json", facts)
    for number, start_state in enumerate(case.starts):
        tensors: dict[str, NDArray[Any]] = {
            **start_state.state,
            "images": start_state.images,
            "labels": start_state.labels,
        }
        tensors |= {f"parameters/{name}": value for name, value in start_state.parameters.items()}
        for step, kept in enumerate(start_state.masks):
            tensors |= {f"masks/{step}/{place}": mask for place, mask in enumerate(kept)}
        save_file(tensors, _file(folder, number))


def load(folder: Path) -> Case:
    """Read what `save` wrote."""
    document = read_json(folder / "case.json", _Document)
    starts = tuple(_read(_file(folder, number), start_state) for number, start_state in enumerate(document.starts))
    return Case(_decode(document.model), document.dtype, document.recipes, starts)


def _read(file: Path, start_state: _Start) -> StartState:
    groups: dict[str, dict[str, Any]] = {"parameters": {}, "velocity": {}, "average": {}, "masks": {}}
    tensors = load_file(file)
    images, labels = tensors.pop("images"), tensors.pop("labels")
    for full, value in tensors.items():
        kind, name = full.split("/", 1)
        groups[kind][name] = value
    rates = start_state.rates
    kept = tuple(_masks(groups["masks"], step) for step in range(max(len(rates), 1)))
    state = {f"{kind}/{name}": value for kind in ("velocity", "average") for name, value in groups[kind].items()}
    return StartState(
        groups["parameters"], state, start_state.first_step, images, labels, kept, rates, start_state.share
    )


def _masks(masks: dict[str, NDArray[np.bool_]], step: int) -> Masks:
    places = range(sum(name.startswith(f"{step}/") for name in masks))
    return tuple(masks[f"{step}/{place}"] for place in places)


def _file(folder: Path, number: int) -> Path:
    return folder / f"case{number}.safetensors"


def _encode(value: Any) -> Any:
    """Specifications as JSON.

    A dataclass is an object with its name as ``type``, a tuple a list.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__} | {f.name: _encode(getattr(value, f.name)) for f in fields(value)}
    return [_encode(item) for item in value] if isinstance(value, tuple) else value


def _decode(value: Any) -> Any:
    """The inverse of `_encode`."""
    if isinstance(value, dict):
        kind = MPOShape if value["type"] == MPOShape.__name__ else getattr(vocabulary, value["type"])
        return kind(**{name: _decode(item) for name, item in value.items() if name != "type"})
    return tuple(_decode(item) for item in value) if isinstance(value, list) else value
