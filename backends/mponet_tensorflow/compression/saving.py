"""Compressed models in a folder: the plan as JSON, the weights as safetensors.

Loading runs no code of the files.  Sequential and functional models need none of this: Keras saves
them, operators included, as ``.keras`` files, which load wherever ``mponet_tensorflow`` is
imported.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mponet.compress.names import translated
from mponet.compress.pipeline import unfitted_layers
from mponet.compress.plan import CompressionPlan
from mponet.compress.target import Target
from mponet.errors import CheckpointError, CompressionError
from mponet.files import writing
from mponet_tensorflow.compression.duplicate import compile_as, copied
from mponet_tensorflow.compression.graph import named_layers, named_variables
from mponet_tensorflow.compression.modules import OPERATORS
from mponet_tensorflow.compression.network import NativeNetwork
from mponet_tensorflow.ops.arrays import from_numpy, keras, tf, to_numpy

PLAN, WEIGHTS = "compression_plan.json", "model.safetensors"
Module = TypeVar("Module", bound=keras.Model)


def save_compressed(model: keras.Model, plan: CompressionPlan, folder: str | Path) -> None:
    """Write a compressed model to a folder, the plan last.

    Each variable is a tensor under the name of its layer and its own, joined by dots.

    Args:
        model: what `compress` returned, healed or not.
        plan: what was carried out, ``report.plan``.
        folder: is made if it is not there.

    Raises:
        CompressionError: the plan is not that of the model.
        CheckpointError: the folder cannot be written.
    """
    _check(model, plan)
    folder = Path(folder)
    variables = named_variables(model)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{WEIGHTS}.{os.getpid()}.part"
        try:
            tensors = {name: to_numpy(variable) for name, variable in variables.items()}
            save_file(tensors, str(part), {"order": json.dumps(list(variables))})
            part.replace(folder / WEIGHTS)
        finally:
            part.unlink(missing_ok=True)
    plan.save(folder / PLAN)


def load_compressed(model: Module, folder: str | Path) -> Module:
    """Turn a dense model into the compressed one of a folder, in place.

    Folders of other frameworks fit a model with the same names (`mponet.compress.names`).  Layers
    that Keras has numbered (``dense_3``) may have other numbers: where names differ, layers are
    matched in their order, and all sizes must agree.

    Args:
        model: a built model as it was before compression, whatever its numbers.
        folder: what `save_compressed` wrote.

    Raises:
        CheckpointError: the folder holds no compressed model, or weights of another one.
        CompressionError: the plan is of another network.  The model is unchanged in both cases.

    Example:
        >>> import keras, tempfile
        >>> from mponet.compress import CompressConfig
        >>> from mponet_tensorflow.compression import compress
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(96)])
        >>> small, report = compress(model, CompressConfig(error=0.5))
        >>> other = keras.Sequential([keras.Input((64,)), keras.layers.Dense(96)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_compressed(small, report.plan, folder)
        ...     again = load_compressed(other, folder)
        >>> inputs = keras.random.normal((3, 64))
        >>> bool(keras.ops.all(again(inputs) == small(inputs)))
        True
    """
    folder = Path(folder)
    plan = CompressionPlan.load(folder / PLAN)
    trial = restructure(copied(model), plan)
    try:
        tensors = _ordered(*_read(folder / WEIGHTS), named_variables(trial))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder / WEIGHTS} does not hold the weights of this compressed {type(model).__name__} ({error}); "
            "expected a folder that save_compressed wrote for the same class and sizes"
        ) from error
    restructure(model, plan)
    for name, variable in named_variables(model).items():
        variable.assign(from_numpy(tensors[name], tf.as_dtype(variable.dtype)))
    return model


def restructure(model: Module, plan: CompressionPlan) -> Module:
    """Replace the layers of a dense model by the operators of a plan, all entries zero, in place.

    The result has the variables of the compressed model, to be overwritten by those of a checkpoint
    of any kind.

    Args:
        model: a built model as it was before compression.
        plan: what was carried out.

    Raises:
        CompressionError: the plan is of another network.  The model is unchanged then.
    """
    network = NativeNetwork(model)
    for fitted in unfitted_layers(network.targets(), _renamed(plan, network.targets())):
        network.replace(fitted)
    compile_as(model, model)
    return model


def _renamed(plan: CompressionPlan, targets: Sequence[Target]) -> CompressionPlan:
    """A plan with the names of a model that has the same layers, in order, under other names.

    Other plans are given back as they are.
    """
    names = {layer.name: target.name for layer, target in zip(plan, targets, strict=False)}
    planned = [(layer.type_name, layer.dense_weights) for layer in plan]
    if planned != [(target.type_name, target.weights) for target in targets]:
        return plan
    tied = {"": "", **names}
    layers = (replace(layer, name=names[layer.name], tied_to=tied.get(layer.tied_to, "")) for layer in plan)
    return replace(plan, layers=tuple(layers))


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Tensors by name, and their names in the order of the model that was saved."""
    with safe_open(str(path), "numpy") as file:
        order = (file.metadata() or {}).get("order")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    return tensors, list(tensors) if order is None else list(map(str, json.loads(order)))


def _ordered(
    tensors: Mapping[str, NDArray[Any]], order: Sequence[str], variables: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """The tensors under the names of a model's variables.

    Raises:
        ValueError: they are those of another model.
    """
    names = list(variables)
    tensors = translated(tensors, {name: tuple(variable.shape) for name, variable in variables.items()})
    if set(names) != set(tensors):
        same = [name.rpartition(".")[2] for name in order] == [name.rpartition(".")[2] for name in names]
        if not same or set(order) != set(tensors):
            missing, unknown = sorted(set(names) - set(tensors)), sorted(set(tensors) - set(names))
            raise ValueError(f"{missing[0]} is missing" if missing else f"{unknown[0]} is not in the model")
        tensors = {name: tensors[saved] for name, saved in zip(names, order, strict=True)}
    for name, variable in variables.items():
        if tensors[name].shape != tuple(variable.shape):
            raise ValueError(f"{name} has the shape {tensors[name].shape}; expected {tuple(variable.shape)}")
    return dict(tensors)


def _check(model: keras.Model, plan: CompressionPlan) -> None:
    """Refuse a plan that is not that of the model."""
    own = {name for name, layer in named_layers(model).items() if isinstance(layer, OPERATORS)}
    planned = {layer.name for layer in plan.replaced}
    if not planned or not planned <= own:
        raise CompressionError(
            f"the plan replaces {len(planned)} layers, and {len(planned & own)} of them are operators in this "
            f"{type(model).__name__}; expected the model and the plan of the same compression"
        )
