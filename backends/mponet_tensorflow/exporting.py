"""`export`: a model as a file that runs without mponet, or outside Python."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.errors import ExportError
from mponet.export import TOLERANCE, Exported, Exporter, write_checked
from mponet.export.formats import format_for
from mponet.files import write_atomically
from mponet.layers.operator import OperatorLayer
from mponet_tensorflow.ops.arrays import keras, tf

Arrays = Sequence[NDArray[Any]]


def export(
    model: keras.Model,
    path: str | Path,
    inputs: Any,
    *,
    to: str,
    merge: bool = False,
    dynamic: Sequence[int] = (0,),
    tolerance: float = TOLERANCE,
) -> Exported:
    """Write a model to a file, run the file, and compare.

    Args:
        model: a model with operators or without.
        path: the file to be made, or the folder for ``saved-model``.
        inputs: an example: an array, or a tuple with one for each input.
        to: ``saved-model``, ``litert``, ``onnx`` or ``keras`` (`mponet.export.FORMATS`).
        merge: whether operators are multiplied out first.  The file is larger then, and faster
            where dense layers are.
        dynamic: axes of every input that have any length in the file: the batch, and those that are
            None in the model's inputs.
        tolerance: largest deviation that is accepted, relative to the largest output.

    Returns:
        What was written, and how far its outputs deviate.

    Raises:
        InputError: there is no such format, or the name of the file does not fit it.
        BackendError: a package is missing.
        CheckpointError: the file exists or cannot be written.
        ExportError: the model cannot be exported, or the file gives other outputs.

    Example:
        >>> import tempfile
        >>> from mponet_tensorflow import MPODense
        >>> model = keras.Sequential([keras.Input((64,)), MPODense(64, 4)])
        >>> rows = np.ones((2, 64), "float32")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = export(model, f"{folder}/m.keras", rows, to="keras")
        >>> written.deviation < 1e-5
        True
    """
    format_for(to, "tensorflow")
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    arrays = [np.asarray(value) for value in given]
    own = _merged(model) if merge else model

    def call(values: Arrays) -> Arrays:
        return _arrays(own(_single(values), training=False))

    options: dict[str, Any] = {"to": to, "framework": "tensorflow", "dynamic": tuple(dynamic), "tolerance": tolerance}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters warn of their own insides
        return write_checked(EXPORTERS[to], call, own, Path(path), arrays, **options)


def _merged(model: keras.Model) -> keras.Model:
    """A model with every operator replaced by the dense layer of the same numbers.

    Raises:
        ExportError: the model is not a graph of layers, so that no layer of it can be replaced.
    """
    dense: dict[int, Any] = {}

    def replaced(layer: Any) -> Any:
        if isinstance(layer, OperatorLayer):
            dense[id(layer)] = _tied(layer) if _is_head(layer) else layer.to_dense()
            return dense[id(layer)]
        return layer.__class__.from_config(layer.get_config())

    try:
        copy = keras.models.clone_model(model, clone_function=replaced)
    except (TypeError, ValueError) as error:
        raise ExportError(f"the operators of {model.name} cannot be merged ({error}); export it as it is") from error
    for old, new in zip(model.layers, copy.layers, strict=True):
        if id(old) not in dense:
            new.set_weights(old.get_weights())
    return copy


def _is_head(layer: Any) -> bool:
    """Whether a layer is also called with ``reverse=True``."""
    return any(node.arguments.kwargs.get("reverse") for node in layer._inbound_nodes)


def _tied(layer: Any) -> Any:
    """The dense embedding that is also called with ``reverse=True``."""
    table = layer.to_dense().embeddings
    tied = keras.layers.ReversibleEmbedding(*table.shape, mask_zero=layer.mask_zero, dtype=layer.dtype_policy)
    tied.build()
    tied.embeddings.assign(table)
    return tied


def _single(values: Arrays) -> Any:
    tensors = [tf.convert_to_tensor(value) for value in values]
    return tensors[0] if len(tensors) == 1 else tensors


def _arrays(outputs: Any) -> Arrays:
    return [np.asarray(value) for value in tf.nest.flatten(outputs)]


class _SavedModel:
    """TensorFlow's folder, with the endpoint ``serve`` of `keras.Model.export`."""

    def write(self, model: keras.Model, inputs: Arrays, dynamic: tuple[int, ...], path: Path) -> None:
        model.export(str(path), format="tf_saved_model", verbose=False)

    def run(self, path: Path, inputs: Arrays) -> Arrays:
        loaded = tf.saved_model.load(str(path))
        return _arrays(loaded.serve(_single(inputs)))


class _LiteRT:
    """LiteRT, by the converter that TensorFlow holds."""

    def write(self, model: keras.Model, inputs: Arrays, dynamic: tuple[int, ...], path: Path) -> None:
        with TemporaryDirectory(dir=path.parent) as folder:
            model.export(f"{folder}/saved", format="tf_saved_model", verbose=False)
            payload = tf.lite.TFLiteConverter.from_saved_model(f"{folder}/saved").convert()
        write_atomically(path, payload)

    def run(self, path: Path, inputs: Arrays) -> Arrays:
        interpreter = tf.lite.Interpreter(str(path))
        signature = interpreter.get_signature_runner()
        names = list(signature.get_input_details())
        outputs = signature(**dict(zip(names, inputs, strict=True)))
        return [outputs[name] for name in sorted(outputs)]


class _Onnx:
    """ONNX by tf2onnx, which `keras.Model.export` calls."""

    def write(self, model: keras.Model, inputs: Arrays, dynamic: tuple[int, ...], path: Path) -> None:
        model.export(str(path), format="onnx", verbose=False)

    def run(self, path: Path, inputs: Arrays) -> Arrays:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        return list(session.run(None, dict(zip(names, inputs, strict=True))))


class _Keras:
    """Keras' own file."""

    def write(self, model: keras.Model, inputs: Arrays, dynamic: tuple[int, ...], path: Path) -> None:
        model.save(path)

    def run(self, path: Path, inputs: Arrays) -> Arrays:
        return _arrays(keras.saving.load_model(path)(_single(inputs), training=False))


def image_inputs(native: keras.Model, images: NDArray[Any]) -> NDArray[Any]:
    """Images NHWC as a lowered model takes them."""
    return np.asarray(images, native.inputs[0].dtype)


def native_state(native: keras.Model) -> dict[str, NDArray[Any]]:
    """The weights of a lowered model as arrays, by their paths; without random states."""
    return {name: np.asarray(weight.value) for name, weight in _weights(native).items()}


def load_native_state(native: keras.Model, state: Mapping[str, NDArray[Any]]) -> None:
    """Overwrite a lowered model with what `native_state` gave.

    Raises:
        ValueError: names or shapes do not fit.
    """
    own = _weights(native)
    shapes = [{name: tuple(value.shape) for name, value in values.items()} for values in (own, state)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"weights {sorted(shapes[1].items())}; expected {sorted(shapes[0].items())}")
    for name, weight in own.items():
        weight.assign(state[name])


def _weights(native: keras.Model) -> dict[str, Any]:
    return {
        weight.path: weight for weight in native.weights if "float" in keras.backend.standardize_dtype(weight.dtype)
    }


#: What writes and runs each format.
EXPORTERS: Mapping[str, Exporter] = {
    "saved-model": _SavedModel(),
    "litert": _LiteRT(),
    "onnx": _Onnx(),
    "keras": _Keras(),
}
