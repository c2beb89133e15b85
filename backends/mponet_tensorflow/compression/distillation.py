"""The loss of distillation: how far a student's outputs are from those of its teacher."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mponet.compress.healing import HealConfig
from mponet.errors import CompressionError
from mponet_tensorflow.compression.graph import named_layers, shadowed
from mponet_tensorflow.compression.streaming import call, first_tensor
from mponet_tensorflow.ops.arrays import Array, keras, tf

#: The mean loss of the labels, from the student's outputs and the batch.
LabelLoss = Callable[[Any, Any], Array]
#: Names of the mask of rows among the inputs: of Hugging Face and of KerasHub.
MASKS = ("attention_mask", "padding_mask")


class Distillation:
    """The loss of a student on a batch.

    Args:
        student: the model that learns.
        teacher: the model that it learns from.
        config: weights of the terms.
        inputs: gives the inputs of both from a batch; None takes the batch itself.
        loss: mean loss of the labels; None takes the ``loss`` of the student's outputs.

    Raises:
        CompressionError: the student or the teacher has no layer of a name in ``config.hidden``.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        config: HealConfig,
        inputs: Callable[[Any], Any] | None = None,
        loss: LabelLoss | None = None,
    ) -> None:
        self.student, self.teacher, self.config = student, teacher, config
        self._inputs, self._label_loss = inputs, loss
        for name in config.hidden:
            for model in (student, teacher):
                if name not in named_layers(model):
                    raise CompressionError(
                        f"hidden {name!r} is not a layer of {type(model).__name__}; expected its name"
                    )

    def inputs(self, batch: Any) -> Any:
        """The inputs of both models from a batch."""
        return batch if self._inputs is None else self._inputs(batch)

    def loss(self, batch: Any) -> Array:
        """The loss, a mean over rows, the student in inference mode."""
        return self.loss_of(self.inputs(batch), batch, training=False)

    def loss_of(self, inputs: Any, batch: Any, *, training: bool) -> Array:
        """The loss where the inputs are known; ``training`` is handed to the student."""
        config = self.config
        with _recorded(self.teacher, config.hidden) as wanted:
            expected = call(self.teacher, inputs) if config.logits or config.hidden else None
        with _recorded(self.student, config.hidden) as seen:
            outputs = call(self.student, inputs, training=training)
        mask = next((inputs[name] for name in MASKS if name in inputs), None) if isinstance(inputs, Mapping) else None
        terms = []
        if config.logits:
            terms.append(config.logits * self._divergence(outputs, expected, mask))
        if config.hidden and config.hidden_weight:
            errors = [relative_error(seen[name], wanted[name], mask) for name in config.hidden]
            terms.append(config.hidden_weight * tf.reduce_mean(tf.stack(errors)))
        if config.labels:
            terms.append(config.labels * self._labels(outputs, batch))
        return tf.add_n(terms)

    def _divergence(self, outputs: Any, expected: Any, mask: Array | None) -> Array:
        if self.config.objective == "mse" or (self.config.objective == "auto" and _logits(outputs) is None):
            return relative_error(first_tensor(outputs), first_tensor(expected), mask)
        logits, wanted = _logits(outputs), _logits(expected)
        if logits is None or wanted is None:
            raise CompressionError(
                f"objective is 'kl' and the model gives {type(outputs).__name__} without logits; expected logits or "
                "one tensor; take objective='mse'"
            )
        return kl_divergence(logits, wanted, self.config.temperature, mask)

    def _labels(self, outputs: Any, batch: Any) -> Array:
        value = self._label_loss(outputs, batch) if self._label_loss else getattr(outputs, "loss", None)
        if value is None:
            raise CompressionError(
                f"labels weigh {self.config.labels} and {type(outputs).__name__} has no loss; expected labels in the "
                "batch, and loss= that reads them"
            )
        return value


def kl_divergence(logits: Array, wanted: Array, temperature: float, mask: Array | None = None) -> Array:
    """Mean over rows of ``KL(teacher || student)``, in float32 at least, times ``temperature^2``.

    Args:
        logits: of the student, classes last.
        wanted: of the teacher.
        temperature: both are divided by it.
        mask: 0 for rows that do not count; it is used if it has the shape of the rows.

    Example:
        >>> logits = tf.constant([[0.0, 1.0], [3.0, 0.0]])
        >>> abs(float(kl_divergence(logits, logits + 5, 2.0))) < 1e-6
        True
    """
    if logits.shape != wanted.shape:
        raise CompressionError(
            f"the student's logits have the shape {tuple(logits.shape)}, the teacher's {tuple(wanted.shape)}; expected "
            "equal ones"
        )
    dtype = _wide(logits.dtype)
    rows, expected = (tf.reshape(tf.cast(x, dtype), (-1, x.shape[-1])) / temperature for x in (logits, wanted))
    target = tf.stop_gradient(tf.nn.log_softmax(expected))
    divergence = tf.reduce_sum(tf.exp(target) * (target - tf.nn.log_softmax(rows)), -1)
    return _row_mean(divergence, logits.shape[:-1], mask) * temperature**2


def relative_error(value: Array, wanted: Array, mask: Array | None = None) -> Array:
    """``||value - wanted||^2 / ||wanted||^2``, over the rows that count, in float32 at least."""
    if value.shape != wanted.shape:
        raise CompressionError(
            f"the student gives the shape {tuple(value.shape)}, the teacher {tuple(wanted.shape)}; expected equal ones"
        )
    dtype = _wide(value.dtype)
    wanted = tf.stop_gradient(tf.cast(wanted, dtype))
    error, energy = (tf.cast(value, dtype) - wanted) ** 2, wanted**2
    if value.shape.rank > 1:
        error, energy = tf.reduce_mean(error, -1), tf.reduce_mean(energy, -1)
    error, energy = (_row_mean(tf.reshape(rows, (-1,)), rows.shape, mask) for rows in (error, energy))
    return error / tf.maximum(energy, dtype.as_numpy_dtype(tf.experimental.numpy.finfo(dtype.as_numpy_dtype).tiny))


def _wide(dtype: tf.DType) -> tf.DType:
    return tf.float64 if dtype == tf.float64 else tf.float32


def _row_mean(rows: Array, shape: Sequence[int | None], mask: Array | None) -> Array:
    """The mean of the rows that count."""
    if mask is None or not tf.TensorShape(mask.shape).is_compatible_with(tf.TensorShape(shape)):
        return tf.reduce_mean(rows)
    weights = tf.cast(tf.reshape(mask, (-1,)), rows.dtype)
    return tf.reduce_sum(rows * weights) / tf.maximum(tf.reduce_sum(weights), 1)


def _logits(outputs: Any) -> Array | None:
    """The outputs as logits; None if they have none and are more than one tensor."""
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if tf.is_tensor(logits):
        return logits
    return outputs if tf.is_tensor(outputs) else None


@contextmanager
def _recorded(model: keras.Model, names: Iterable[str]) -> Iterator[dict[str, Array]]:
    """The outputs of some layers, by name, of the calls within the block."""
    values: dict[str, Array] = {}
    layers = named_layers(model) if names else {}

    def keep(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def kept(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            values[name] = first_tensor(outputs)
            return outputs

        return kept

    with shadowed({name: layers[name] for name in names}, "call", keep):
        yield values
