"""`NativeNetwork`: a Keras model as `mponet.compress` sees it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace as replaced
from math import prod
from typing import Any

from mponet.compress.adapter import CompressAdapter, Functions
from mponet.compress.fitting import FittedLayer
from mponet.compress.target import Target
from mponet.errors import CompressionError
from mponet_tensorflow.compression.duplicate import copied
from mponet_tensorflow.compression.graph import named_layers, own_variables, put
from mponet_tensorflow.compression.modules import OPERATORS, REVERSE, ReverseUse, kind_of, layer_of, type_name
from mponet_tensorflow.compression.rise import loss_rise
from mponet_tensorflow.compression.streaming import rows_per_example, stream
from mponet_tensorflow.compression.timing import sample_inputs, speed_ratio
from mponet_tensorflow.compression.upstream import cross_stream
from mponet_tensorflow.ops.arrays import keras, tf, to_numpy

#: Why a layer that shares its weight is left alone.
TIED = "it shares its weight with another layer; untie them first"


def build(layer: Any, fitted: FittedLayer) -> Any:
    """The operator that replaces a layer."""
    kind = kind_of(layer)
    assert kind is not None
    return kind.build(layer, fitted)


class NativeNetwork(CompressAdapter):
    """The two ends of compression for a model.

    Raises:
        CompressionError: the model has no weights yet.
    """

    kind = keras.Model
    functions = Functions(stream, rows_per_example, sample_inputs, speed_ratio, build, cross_stream, copied, loss_rise)

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        self.check(model)
        if not model.built:
            raise CompressionError(f"{model.name} has no weights yet; expected a built model; call it on a batch first")
        super().__init__(model, *args, **kwargs)
        self._layers = dict(_uses(model))

    def module(self, name: str) -> Any:
        """The layer that a target names."""
        return self._layers[name]

    def weights(self) -> int:
        """Number of weights, shared ones once."""
        return sum(prod(variable.shape) for variable in self.model.weights)

    def replace(self, fitted: FittedLayer) -> None:
        """Put an operator in the place of a layer, and of its use as an output head."""
        layer = self._layers[fitted.name]
        built = build(layer, fitted)
        put(self.model, layer, built)
        self._layers[fitted.name] = built

    def described(self) -> Iterable[Target]:
        """Every layer that holds a matrix, in the order of the network; one used twice once."""
        holders = Counter(id(v) for layer in named_layers(self.model).values() for v in own_variables(layer))
        first: dict[int, str] = {}
        for name, use in self._layers.items():
            matrix = _matrix_of(layer_of(use))
            if matrix is None or isinstance(use, OPERATORS):
                continue
            kind = kind_of(use)
            target = _foreign(name, use, matrix) if kind is None else kind.describe(name, use)
            owner = first.setdefault(id(matrix), name)
            if holders[id(matrix)] > 1:
                target = replaced(target, tied_to="" if owner == name else owner, unsupported=TIED)
            yield target


def _uses(model: Any) -> Iterable[tuple[str, Any]]:
    """The layers of a model by name, an embedding that is an output head, too, as both."""
    for name, layer in named_layers(model).items():
        yield name, layer
        if isinstance(layer, keras.layers.ReversibleEmbedding) and layer.tie_weights:
            yield name + REVERSE, ReverseUse(layer)


def _matrix_of(layer: Any) -> Any:
    """The largest of a layer's own variables with two axes or more; None if there is none."""
    quantised = getattr(layer, "quantization_mode", None) is not None  # its matrix holds integers
    held = [v for v in own_variables(layer) if len(v.shape) >= 2 and (quantised or tf.as_dtype(v.dtype).is_floating)]
    return max(held, key=lambda variable: prod(variable.shape), default=None)


def _foreign(name: str, layer: Any, matrix: Any) -> Target:
    """A layer with a matrix that no kind recognises: listed with the reason."""
    return Target(
        name=name,
        kind="convolution" if len(matrix.shape) > 2 else "linear",
        type_name=type_name(layer),
        in_features=prod(matrix.shape[:-1]),
        out_features=matrix.shape[-1],
        load=lambda: to_numpy(matrix).astype(float),
        itemsize=tf.as_dtype(matrix.dtype).size,
        unsupported=f"{type_name(layer)} is not supported",
    )
