"""Compressed models in a folder: the plan as JSON, the weights as safetensors.

Loading runs no code of the files.  Sequential and functional models need none of this: Keras saves
them, operators included, as ``.keras`` files, which load wherever ``mponet_tensorflow`` is
imported.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from mponet.compress.execution import unfitted_layers
from mponet.compress.plan import CompressionPlan
from mponet.compress.saved import PLAN, matched, reading, save_folder
from mponet.compress.target import Target
from mponet.files import parse_json
from mponet_tensorflow.compression.duplicate import compile_as, copied
from mponet_tensorflow.compression.graph import named_layers, named_variables
from mponet_tensorflow.compression.modules import OPERATORS
from mponet_tensorflow.compression.network import NativeNetwork
from mponet_tensorflow.ops.arrays import from_numpy, keras, tf, to_numpy

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
    operators = [name for name, layer in named_layers(model).items() if isinstance(layer, OPERATORS)]
    tensors = {name: to_numpy(variable) for name, variable in named_variables(model).items()}
    order = {"order": json.dumps(list(tensors))}
    save_folder(Path(folder), plan, operators, type(model).__name__, lambda file: save_file(tensors, file, order))


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
    NativeNetwork.check(model)
    plan = CompressionPlan.load(Path(folder) / PLAN)
    trial = restructure(copied(model), plan)
    with reading(Path(folder), type(model).__name__) as weights:
        tensors = _ordered(*_read(weights), named_variables(trial))
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
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a mapping
    return tensors, list(tensors) if order is None else parse_json(order, list[str])


def _ordered(
    tensors: Mapping[str, NDArray[Any]], order: Sequence[str], variables: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """The tensors under the names of a model's variables.

    Raises:
        ValueError: they are those of another model.
    """
    expected = {name: tuple(variable.shape) for name, variable in variables.items()}
    names = list(expected)
    renamed = [name.rpartition(".")[2] for name in order] == [name.rpartition(".")[2] for name in names]
    if renamed and set(order) == set(tensors) != set(names):
        tensors = {name: tensors[saved] for name, saved in zip(names, order, strict=True)}
    return matched(tensors, expected)
