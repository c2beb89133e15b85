"""How much larger the loss of a compressed model is."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mponet_jax.compression.streaming import LossFunction, call, examples_in, first_array
from mponet_jax.ops.arrays import Array


def loss_rise(dense: nnx.Module, compressed: nnx.Module, data: Iterable[Any], loss: LossFunction | None) -> float:
    """The mean over examples of what a compressed model loses; see `mponet.compress.adapter`."""
    models = [nnx.clone(model) for model in (dense, compressed)]
    for model in models:
        model.eval()
    total, examples = 0.0, 0
    for batch in data:
        before, after = (call(model, batch) for model in models)
        total += float(_rise(before, after, batch, loss))
        examples += examples_in(batch)
    return total / max(examples, 1)


def _rise(before: Any, after: Any, batch: Any, loss: LossFunction | None) -> Array:
    if loss is not None:
        return loss(after, batch) - loss(before, batch)
    if isinstance(getattr(before, "logits", None), jax.Array):
        dense, compressed = (jax.nn.log_softmax(outputs.logits.astype(jnp.float32)) for outputs in (before, after))
        return (jnp.exp(dense) * (dense - compressed)).sum()
    return jnp.square(first_array(after) - first_array(before)).sum() / 2
