"""What `mponet bench inference` times in this framework."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from mponet.bench.implementation import DENSE, OURS, Numbers
from mponet.bench.inference import FROZEN, InferenceRow
from mponet.bench.layers import problem
from mponet.bench.rows import Row
from mponet_torch.bench.peers import LowRank
from mponet_torch.freezing import freeze
from mponet_torch.nn.convolution import MPOConv2d
from mponet_torch.nn.embedding import MPOEmbedding
from mponet_torch.nn.linear import MPOLinear
from mponet_torch.ops.arrays import Array, device_of, to_numpy

#: As most people run torch, and compiled.
MODES = ("eager", "compiled")


def layers(row: InferenceRow) -> Mapping[str, Any]:
    """The implementations by name, and under ``kept`` what the frozen layer keeps."""
    ours, others = _layer(row)
    ours = ours.eval()
    frozen, report = freeze(ours)
    (kept,) = report.layers.values()
    words = {"plan": kept.kept, "bytes": kept.nbytes, "dense bytes": kept.matrix_nbytes}
    return {DENSE: ours.to_dense(), OURS: ours, FROZEN: frozen, **others, "kept": words}


def call(native: nn.Module, inputs: Numbers, mode: str) -> Callable[[], Array]:
    """A forward pass, ready to run."""
    device = device_of(None)
    maps = inputs.ndim > 2
    rows = torch.tensor(np.moveaxis(inputs, -1, 1).copy() if maps else inputs, device=device)
    native = native.to(device)
    if mode == "compiled":
        torch.compiler.reset()
    run = torch.compile(native, dynamic=False) if mode == "compiled" else native
    return torch.inference_mode()(partial(run, rows))


def outputs(result: Array) -> Numbers:
    """The result of a call as a numpy array."""
    return to_numpy(result)


def _layer(row: InferenceRow) -> tuple[Any, dict[str, nn.Module]]:
    """Our layer, and what is timed besides."""
    shape = row.shape
    if row.kind == "convolution":
        return MPOConv2d(shape.in_features, shape.out_features, 3, row.bond, padding=1, seed=0), {}
    if row.kind == "embedding":
        dims: dict[str, Any] = {"input_dims": shape.input_dims, "output_dims": shape.output_dims}
        return MPOEmbedding(shape.in_features, shape.out_features, row.bond, seed=0, **dims), {}
    mpo, bias, _, _ = problem(Row(row.name, shape, 1))
    return MPOLinear.from_mpo(mpo, bias, dtype=torch.float32), {"low rank": LowRank.of(mpo, bias)}
