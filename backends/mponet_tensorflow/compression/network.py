"""`NativeNetwork`: a Keras model as `mponet.compress` sees it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace as replaced
from math import prod
from typing import Any

from mponet.compress.calibrate import Calibration
from mponet.compress.fitting import FittedLayer, unfitted
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.target import Target
from mponet.compress.upstream import CrossSums
from mponet.errors import CompressionError
from mponet_tensorflow.compression.graph import named_layers, own_variables, put
from mponet_tensorflow.compression.modules import OPERATORS, REVERSE, ReverseUse, kind_of, layer_of, type_name
from mponet_tensorflow.compression.streaming import LossFunction, rows_per_example, stream
from mponet_tensorflow.compression.timing import sample_inputs, speed_ratio
from mponet_tensorflow.compression.upstream import cross_stream
from mponet_tensorflow.ops.arrays import keras, tf, to_numpy

#: Why a layer that shares its weight is left alone.
TIED = "it shares its weight with another layer; untie them first"


class NativeNetwork:
    """The two ends of compression for a model (`mponet.compress.adapter.CompressAdapter`).

    Attributes:
        model: the model, changed by `replace`.

    Args:
        model: the model.
        loss: the sum of the loss over rows; None chooses by the outputs.
        example: a batch of inputs that tells the rows per example of every layer; None takes those
            of the calibration, or one.
        reference: the model as it was, for `cross_sums`; None if ``model`` is not a copy.

    Raises:
        CompressionError: the model has no weights yet.
    """

    def __init__(
        self, model: Any, loss: LossFunction | None = None, example: Any = None, reference: Any = None
    ) -> None:
        if not model.built:
            raise CompressionError(f"{model.name} has no weights yet; expected a built model; call it on a batch first")
        self.model = model
        self._loss, self._example, self._reference = loss, example, reference
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._layers = dict(_uses(model))
        self._targets: tuple[Target, ...] | None = None

    def targets(self) -> Sequence[Target]:
        """Every layer that holds a matrix, in the order of the network.

        A layer used twice is listed once.
        """
        if self._targets is None:
            described = tuple(self._described())
            counts: dict[str, int] = {}
            if self._example is not None:
                known = {t.name: self._layers[t.name] for t in described if not t.unsupported}
                counts = rows_per_example(self.model, known, self._example)
            self._targets = tuple(replaced(t, positions=counts.get(t.name, 1)) for t in described)
        return self._targets

    def other_weights(self) -> int:
        """Number of weights that belong to no target, tied ones once."""
        own = sum(target.weights for target in self.targets() if not target.tied_to)
        return sum(prod(variable.shape) for variable in self.model.weights) - own

    def calibrate(
        self,
        targets: Sequence[Target],
        data: Iterable[Any],
        *,
        gradients: bool,
        products: bool,
        sums: Calibration | None = None,
    ) -> Calibration:
        """Sums over the inputs of targets, and gradients at their outputs.

        Args:
            targets: those that sums are wanted of.
            data: batches of the model's own inputs.
            gradients: whether to run backward passes, too.
            products: whether they gather the products of gradients.
            sums: what earlier batches gave, to be added to; None begins anew.
        """
        modules = {target.name: self._layers[target.name] for target in targets}
        options = {"gradients": gradients, "products": products, "sums": sums, "shapes": self._shapes}
        return stream(self.model, modules, data, self._loss, **options)

    def measure(self, layer: LayerPlan, rows: int | None = None) -> float | None:
        """Time of a layer over that of the operator that a plan names: above 1 it is faster.

        Args:
            layer: a row of a plan that replaces a layer.
            rows: rows of the batch; None takes the shape of the calibration's last batch.

        Returns:
            The median ratio of interleaved calls; None if the inputs' shape is not known.
        """
        module = self._layers[layer.name]
        kind = kind_of(module)
        assert kind is not None
        inputs = sample_inputs(module, self._shapes.get(layer.name), rows)
        if inputs is None:
            return None
        target = next(target for target in self.targets() if target.name == layer.name)
        return speed_ratio(module, kind.build(module, unfitted(target, layer)), inputs)

    def cross_sums(self, names: Sequence[str], data: Iterable[Any]) -> Mapping[str, CrossSums]:
        """Sums over the inputs of linear layers in the compressed and in the dense model.

        Args:
            names: of the layers, none of them replaced yet.
            data: batches of the model's own inputs.

        Raises:
            CompressionError: the dense model is gone, since it is compressed in place.
        """
        if self._reference is None:
            raise CompressionError("upstream needs the dense model beside its copy; expected in_place=False")
        return cross_stream(self._reference, self.model, names, data)

    def replace(self, fitted: FittedLayer) -> None:
        """Put an operator in the place of a layer, and of its use as an output head."""
        layer = self._layers[fitted.name]
        kind = kind_of(layer)
        assert kind is not None
        built = kind.build(layer, fitted)
        put(self.model, layer, built)
        self._layers[fitted.name] = built

    def _described(self) -> Iterable[Target]:
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
