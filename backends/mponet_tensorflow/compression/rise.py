"""How much larger the loss of a compressed model is."""

from collections.abc import Iterable
from typing import Any

from mponet_tensorflow.compression.streaming import LossFunction, call, examples_in, first_tensor, logits_of
from mponet_tensorflow.ops.arrays import Array, tf


def loss_rise(dense: Any, compressed: Any, data: Iterable[Any], loss: LossFunction | None) -> float:
    """The mean over examples of what a compressed model loses; see `mponet.compress.adapter`."""
    total, examples = 0.0, 0
    for batch in data:
        total += float(_rise(call(dense, batch), call(compressed, batch), batch, loss))
        examples += examples_in(batch)
    return total / max(examples, 1)


def _rise(before: Any, after: Any, batch: Any, loss: LossFunction | None) -> Array:
    if loss is not None:
        return loss(after, batch) - loss(before, batch)
    if logits_of(before) is not None:
        dense, compressed = (tf.nn.log_softmax(tf.cast(logits_of(outputs), tf.float64)) for outputs in (before, after))
        return tf.reduce_sum(tf.exp(dense) * (dense - compressed))
    return tf.reduce_sum(tf.cast(first_tensor(after) - first_tensor(before), tf.float64) ** 2) / 2
