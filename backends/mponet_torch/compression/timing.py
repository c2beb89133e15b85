"""Times of modules and of the operators that replace them."""

from typing import Any

import torch
from torch import nn

from mponet.compress.timing import median_ratio
from mponet_torch.ops.arrays import Array


def speed_ratio(module: nn.Module, operator: nn.Module, inputs: Array) -> float:
    """Time of a module's forward pass over that of its operator, in eval mode, without gradients.

    Args:
        module: the dense module.
        operator: what replaces it; in eval mode it keeps its merged weights.
        inputs: for both.
    """
    modes = module.training, operator.training
    module.eval()
    operator.eval()
    try:
        with torch.inference_mode():
            return median_ratio(lambda: _done(module(inputs)), lambda: _done(operator(inputs)))
    finally:
        module.train(modes[0])
        operator.train(modes[1])


def sample_inputs(module: Any, shape: tuple[int, ...] | None, rows: int | None) -> Array | None:
    """Inputs for a module: of a shape, or so many rows of a matrix; None if neither says enough.

    Args:
        module: the module.
        shape: of its inputs; None if they were not seen.
        rows: rows of a linear layer, or row numbers of an embedding; None takes the shape.
    """
    if rows is not None and not hasattr(module, "kernel_size"):
        width = shape[-1:] if shape is not None else (getattr(module, "in_features", 0),)
        shape = (rows,) if isinstance(module, nn.Embedding) else (rows, *width)
    if shape is None or 0 in shape:
        return None
    weight, generator = module.weight, torch.Generator().manual_seed(0)
    if isinstance(module, nn.Embedding):
        return torch.randint(0, module.num_embeddings, shape, generator=generator).to(weight.device)
    return torch.randn(shape, generator=generator).to(weight)


def _done(outputs: Array) -> None:
    if outputs.is_cuda:
        torch.cuda.synchronize(outputs.device)
