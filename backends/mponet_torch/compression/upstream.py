"""Inputs of layers in two networks at once: the dense one, and the one that is being compressed."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from mponet.compress.upstream import CrossSums, cross_sums
from mponet_torch.compression.streaming import call, frozen
from mponet_torch.ops.arrays import Array, to_numpy


def cross_stream(
    dense: nn.Module, compressed: nn.Module, names: Sequence[str], data: Iterable[Any]
) -> dict[str, CrossSums]:
    """Run both networks on data, in eval mode, and sum over the inputs of some linear layers.

    Args:
        dense: the network as it was.
        compressed: the same with some of its modules replaced.
        names: of linear layers that both have.
        data: batches of the networks' own inputs.

    Raises:
        CompressionError: a layer reads another number of rows in the two networks.
    """
    models = dense, compressed
    with frozen(dense), frozen(compressed), torch.inference_mode():
        return cross_sums(([_inputs(model, names, batch) for model in models] for batch in data), _products)


def _products(rows: Array, other: Array) -> tuple[Any, ...]:
    after, before = rows.double(), other.double()
    return tuple(to_numpy(value) for value in (after.T @ after, after.sum(0), after.T @ before, before.sum(0)))


def _inputs(model: nn.Module, names: Sequence[str], batch: Any) -> dict[str, Array]:
    """The rows that each layer reads in one batch; of a layer that is called twice, all."""
    rows: dict[str, list[Array]] = {}
    with _recording(model, names, rows):
        call(model, batch)
    return {name: torch.cat(parts) for name, parts in rows.items() if parts}


@contextmanager
def _recording(model: nn.Module, names: Sequence[str], rows: dict[str, list[Array]]) -> Iterator[None]:
    with ExitStack() as stack:
        for name in names:
            kept = rows.setdefault(name, [])

            def record(_: nn.Module, inputs: tuple[Any, ...], kept: list[Array] = kept) -> None:
                kept.append(inputs[0].detach().reshape(-1, inputs[0].shape[-1]))

            handle = model.get_submodule(name).register_forward_pre_hook(record)
            stack.callback(handle.remove)
        yield
