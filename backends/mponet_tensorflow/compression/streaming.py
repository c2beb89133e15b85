"""One pass of data through a Keras model.

Sums over the inputs of its layers, and gradients at their outputs.

While data run, each layer's ``call`` is shadowed (`mponet_tensorflow.compression.graph.shadowed`),
and its ``activation``, because what is fitted is the product before it.  A second model with the
layers' inputs as outputs would do for functional models only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from mponet.compress.calibrate import MAX_PRODUCT_OUTPUTS, Calibration, InputSums
from mponet.errors import CompressionError
from mponet_tensorflow.compression.graph import shadowed
from mponet_tensorflow.compression.modules import REVERSE, is_reversed, kind_of, layer_of
from mponet_tensorflow.ops.arrays import Array, keras, tf, to_numpy

#: The loss summed over rows, from the outputs of the model and the batch.
LossFunction = Callable[[Any, Any], Array]
#: Rows at the first layer after which no more backward passes are run.
GRADIENT_ROWS = 4096
#: Input tensors of one pass that are remembered, to recognise layers that read the same one.
RECENT_INPUTS = 16


def stream(
    model: Any,
    modules: Mapping[str, Any],
    data: Iterable[Any],
    loss: LossFunction | None,
    *,
    gradients: bool,
    products: bool = False,
    sums: Calibration | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> Calibration:
    """Run a model on data and gather what compression needs.

    Functions that TensorFlow has compiled run eagerly meanwhile.

    Args:
        model: the model, which runs with ``training=False``.
        modules: the layers that sums are wanted of, by name.
        data: batches, as `call` takes them; a `tf.data.Dataset` is one such iterable.
        loss: the summed loss; None takes `default_loss`.
        gradients: whether to run backward passes.
        products: whether they gather the products of gradients.
        sums: what earlier batches gave, to be added to; None begins anew.
        shapes: gets the shape of each layer's last input; None keeps none.

    Raises:
        CompressionError: there are no data, or values are not finite.
    """
    watch = _Watch(modules, products, sums, shapes)
    batches = 0
    with eager(), watch.watching():
        for batch in data:
            batches += 1
            watch.calibration.examples += examples_in(batch)
            if gradients and watch.gradient_rows < GRADIENT_ROWS:
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    watch.start(tape)
                    value = (loss or default_loss)(call(model, batch), batch)
                watch.add_gradients(value)
            else:
                watch.start(None)
                call(model, batch)
    if not batches:
        raise CompressionError("calibration holds no batch; expected at least one; a generator can be read once only")
    return watch.calibration


def call(model: Any, batch: Any, *, training: bool = False) -> Any:
    """The outputs of a model for one batch.

    A batch is what the model takes as its first argument: an array, or a list or mapping of them.
    A tuple is read as `keras.Model.fit` reads it, inputs and then targets; only the inputs are
    used.
    """
    return model(batch[0] if isinstance(batch, tuple) else batch, training=training)


def examples_in(batch: Any) -> int:
    """Number of examples in a batch: the length of the first axis of its first array."""
    inputs = batch[0] if isinstance(batch, tuple) else batch
    return next((len(value) for value in keras.tree.flatten(inputs) if getattr(value, "shape", ())), 1)


def rows_per_example(model: Any, modules: Mapping[str, Any], example: Any) -> dict[str, int]:
    """How many rows each layer makes for one example, from one forward pass.

    Args:
        model: the model.
        modules: those that are counted, by name.
        example: a batch of the model's own inputs.
    """
    watch = _Watch(modules, products=False)
    with eager(), watch.watching():
        watch.start(None, count=True)
        call(model, example)
    return {name: max(round(rows / examples_in(example)), 1) for name, rows in watch.rows.items()}


def default_loss(outputs: Any, batch: Any) -> Array:
    """A loss for models that come without.

    The summed loss of labels drawn from the model's own predictions.

    Outputs with ``logits`` are read as logits of classes, and one label is drawn for each row, so
    that squared gradients are those of the Fisher information; no labels are needed.  Other outputs
    are projected on random signs, so that squared gradients measure how far the outputs themselves
    move.
    """
    logits = logits_of(outputs)
    rng = np.random.default_rng(0)
    if logits is not None:
        rows = tf.cast(tf.reshape(logits, (-1, logits.shape[-1])), tf.float32)
        gumbel = rng.gumbel(size=tuple(rows.shape)).astype(np.float32)
        drawn = tf.argmax(tf.stop_gradient(rows) + gumbel, -1)
        return tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(drawn, rows))
    value = first_tensor(outputs)
    signs = rng.integers(0, 2, size=tuple(value.shape)) * 2 - 1
    return tf.reduce_sum(value * tf.cast(signs, value.dtype))


def logits_of(outputs: Any) -> Any:
    """The logits that outputs name; None if they name none."""
    return outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)


class _Watch:
    """What is seen of the layers while data run through the model."""

    def __init__(
        self,
        modules: Mapping[str, Any],
        products: bool,
        sums: Calibration | None = None,
        shapes: dict[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.modules = modules
        self._layers = {name.removesuffix(REVERSE): layer_of(module) for name, module in modules.items()}
        self._products = products
        self.calibration = Calibration() if sums is None else sums
        self.shapes = {} if shapes is None else shapes
        self._recent: list[tuple[Array, Any, str]] = []
        self._outputs: list[tuple[str, Array]] = []
        self._tape: tf.GradientTape | None = None
        self._counts = False
        self.rows: dict[str, int] = {}

    @property
    def gradient_rows(self) -> int:
        """Rows of which gradients were seen, at the layer that saw the fewest."""
        return min(self.calibration.gradient_rows.values(), default=0)

    def start(self, tape: tf.GradientTape | None, *, count: bool = False) -> None:
        """Begin a batch, with gradients if there is a tape; or only count rows of outputs."""
        self._tape, self._counts = tape, count
        self._recent.clear()
        self._outputs.clear()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The layers shadowed within the block."""
        with shadowed(self._layers, "call", self._seen_call), shadowed(self._layers, "activation", self._seen_product):
            yield
        self.start(None)

    def add_gradients(self, loss: Array) -> None:
        """Take in the gradients of a batch's loss at the outputs that were seen."""
        assert self._tape is not None
        slopes = self._tape.gradient(loss, [outputs for _, outputs in self._outputs])
        for (name, _), slope in zip(self._outputs, slopes, strict=True):
            if slope is not None:
                self._add_gradient(name, tf.convert_to_tensor(slope))

    def _seen_call(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        layer = self._layers[name]

        def seen(*args: Any, **kwargs: Any) -> Any:
            used = name + REVERSE if is_reversed(args, kwargs) else name
            if used not in self.modules:
                return call(*args, **kwargs)
            self._add_inputs(used, args[0] if args else next(iter(kwargs.values())))
            outputs = call(*args, **kwargs)
            return outputs if hasattr(layer, "activation") else self._watched(used, outputs)

        return seen

    def _seen_product(self, name: str, activation: Callable[..., Any] | None) -> Callable[..., Any]:
        def seen(product: Array) -> Any:
            product = self._watched(name, product)
            return product if activation is None else activation(product)

        return seen

    def _watched(self, name: str, outputs: Array) -> Array:
        if self._counts:
            module = self.modules[name]
            kind = kind_of(module)
            assert kind is not None
            self.rows[name] = self.rows.get(name, 0) + len(kind.gradient_rows(module, outputs))
        if self._tape is not None:
            self._tape.watch(outputs)
            self._outputs.append((name, outputs))
        return outputs

    def _add_inputs(self, name: str, inputs: Array) -> None:
        if tf.is_symbolic_tensor(inputs):
            raise CompressionError(
                f"{name} is called while TensorFlow traces a function; expected a model that runs eagerly; exclude it"
            )
        calibration, layer = self.calibration, self.modules[name]
        kind = kind_of(layer)
        assert kind is not None
        if self._counts:
            return
        self.shapes[name] = tuple(inputs.shape)
        if name not in calibration.inputs:  # the first batch tells which layers read the same tensor
            rows = kind.reading(layer)
            same = (key for tensor, reading, key in self._recent if tensor is inputs and reading == rows)
            calibration.inputs[name] = next(same, name)
            self._recent = [*self._recent[1 - RECENT_INPUTS :], (inputs, rows, calibration.inputs[name])]
        if calibration.inputs[name] != name:
            return
        products, total, count = kind.sums(layer, tf.stop_gradient(inputs))
        if name not in calibration.sums:
            calibration.sums[name] = InputSums.zeros(len(total), diagonal=products.ndim == 1)
        calibration.sums[name].add_sums(products, total, count)

    def _add_gradient(self, name: str, gradient: Array) -> None:
        layer = self.modules[name]
        kind = kind_of(layer)
        assert kind is not None
        rows = tf.cast(kind.gradient_rows(layer, gradient), tf.float64)
        wide = rows.shape[1] > MAX_PRODUCT_OUTPUTS
        products = None
        if self._products:
            products = to_numpy(tf.reduce_sum(rows**2, 0) if wide else tf.matmul(rows, rows, transpose_a=True))
        mean_square = float(tf.reduce_mean(rows**2))
        self.calibration.add_gradient(name, mean_square, len(rows), products)


@contextmanager
def eager() -> Iterator[None]:
    """Compiled functions run eagerly, so that the layers inside them are seen."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def first_tensor(outputs: Any) -> Array:
    """The outputs, or the first tensor of real numbers among them.

    Raises:
        CompressionError: there is none.
    """
    for value in keras.tree.flatten(outputs):
        if tf.is_tensor(value) and value.dtype.is_floating:
            return value
    raise CompressionError(f"the model gives {type(outputs).__name__}; expected a tensor in it; pass loss=")
