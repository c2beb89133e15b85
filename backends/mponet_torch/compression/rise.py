"""How much larger the loss of a compressed model is."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from mponet_torch.compression.streaming import LossFunction, call, examples_in, first_tensor, frozen
from mponet_torch.ops.arrays import Array


def loss_rise(dense: nn.Module, compressed: nn.Module, data: Iterable[Any], loss: LossFunction | None) -> float:
    """The mean over examples of what a compressed model loses; see `mponet.compress.adapter`."""
    total, examples = 0.0, 0
    with frozen(dense), frozen(compressed), torch.no_grad():
        for batch in data:
            total += float(_rise(call(dense, batch), call(compressed, batch), batch, loss))
            examples += examples_in(batch)
    return total / max(examples, 1)


def _rise(before: Any, after: Any, batch: Any, loss: LossFunction | None) -> Array:
    if loss is not None:
        return loss(after, batch) - loss(before, batch)
    if isinstance(getattr(before, "logits", None), torch.Tensor):
        dense, compressed = (outputs.logits.double().log_softmax(-1) for outputs in (before, after))
        divergence: Array = (dense.exp() * (dense - compressed)).sum()
        return divergence
    return (first_tensor(after) - first_tensor(before)).double().square().sum() / 2
