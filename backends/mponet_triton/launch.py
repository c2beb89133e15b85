"""Runs the plans that `mponet.contraction.kernels.fusable` names with Triton kernels.

That needs a GPU, Triton and 16-bit numbers.

In float32 a kernel gains nothing: the products take longer than moving the states does, and cuBLAS
has the faster ones. ``MPONET_KERNELS=off`` does without.
"""

import os
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from math import prod
from typing import TypeGuard

import torch
from torch import Tensor

from mponet.contraction.kernels import Sizes, fusable, padded
from mponet.contraction.plan import Plan
from mponet.contraction.program import BasePlan

VARIABLE = "MPONET_KERNELS"
DTYPES = (torch.bfloat16, torch.float16)
#: Programs for each multiprocessor that add up the gradients of weights.
PROGRAMS_PER_SM = 4
#: Numbers of a state that the warps of a program hold between two products; twice the warps for
#: more.
STATE_ELEMENTS = 8192
#: Warps and stages of the gradients of two groups.
SLOPES = (4, 3)


def supports(plan: BasePlan, like: Tensor) -> TypeGuard[Plan]:
    """Whether a kernel runs this plan on arrays like this one."""
    return like.device.type == "cuda" and like.dtype in DTYPES and available() and _fusable(plan)


@cache
def available() -> bool:
    """Whether kernels can be compiled here and are wanted."""
    wanted = os.environ.get(VARIABLE, "").strip().lower() not in ("off", "0", "no")
    return wanted and torch.cuda.is_available() and find_spec("triton") is not None


_fusable = lru_cache(maxsize=4096)(fusable)


def forward(plan: Plan, factors: Sequence[Tensor], inputs: Tensor, bias: Tensor | None = None) -> Tensor:
    """``inputs @ W + bias`` by one kernel."""
    return _sweep(_sizes(plan)[0], factors, inputs, bias)


def input_gradient(plan: Plan, factors: Sequence[Tensor], gradient: Tensor) -> Tensor:
    """``gradient @ W^T``, the gradient of the inputs.

    The same kernel for the transposed operator.
    """
    return _sweep(_sizes(plan)[1], [factor.mT for factor in factors], gradient, None)


def weight_gradients(plan: Plan, factors: Sequence[Tensor], inputs: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the cores of two groups: ``(1, I_1, J_1, D)`` and ``(D, I_2, J_2, 1)``."""
    from mponet_triton.kernels import weight_gradients_two

    sizes = _sizes(plan)[0]
    rows, ((i1, i2), (j1, j2), (bond,)) = inputs.shape[0], sizes
    share = _share(rows, bond, inputs.device)
    parts = -(-rows // share)
    sums = inputs.new_empty(parts, bond * (i1 * j1 + i2 * j2), dtype=torch.float32)
    warps, stages = SLOPES
    if rows:
        with torch.cuda.device_of(inputs):  # Triton launches on the current device, wherever the arrays are
            weight_gradients_two[(bond, parts)](
                inputs.contiguous(), gradient.contiguous(), *factors, sums, rows, share, *_strides(factors),
                *_constants(sizes), _precision(inputs), num_warps=warps, num_stages=stages,
            )  # fmt: skip
    first, last = sums.sum(0).to(inputs.dtype).split((bond * i1 * j1, bond * i2 * j2))
    return first.view(1, i1, j1, bond), last.view(bond, i2, j2, 1)


@lru_cache(maxsize=1024)
def tile(sizes: Sizes) -> tuple[int, int, int]:
    """Of a sweep of two groups: rows that a program takes, its warps and its stages."""
    (_, wide), (tall, last) = (tuple(map(padded, some)) for some in (sizes.inputs, sizes.outputs))
    row = tall * max(wide, last)
    return max(1, min(8, STATE_ELEMENTS // row)), 4 if row <= STATE_ELEMENTS else 8, 2


@lru_cache(maxsize=1024)
def block(sizes: Sizes) -> tuple[int, int, int]:
    """Of a sweep of three groups.

    Bonds that a program takes at a time, its warps and its stages.
    """
    state = padded(sizes.inputs[0]) * padded(sizes.outputs[1]) * padded(sizes.outputs[2])
    held = max(1, 2 * STATE_ELEMENTS // state)
    return 1 << (min(held, sizes.bonds[0]).bit_length() - 1), 4, 2


def _sweep(sizes: Sizes, factors: Sequence[Tensor], inputs: Tensor, bias: Tensor | None) -> Tensor:
    """The forward kernel; factors ``(.., J, I)`` of any strides."""
    from mponet_triton import kernels

    rows = inputs.shape[0]
    outputs = inputs.new_empty(rows, prod(sizes.outputs))
    arrays = (inputs.contiguous(), *factors, outputs if bias is None else bias.contiguous(), outputs)
    options = (bias is not None, _precision(inputs))
    size: tuple[int, ...]
    if len(factors) == 2:
        taken, warps, stages = tile(sizes)
        kernel, size = kernels.sweep_two[(-(-rows // taken),)], (rows,)
    else:
        taken, warps, stages = block(sizes)
        kernel, size = kernels.sweep_three[(rows,)], ()
    if rows:
        strides, means = _strides(factors), {"num_warps": warps, "num_stages": stages}
        with torch.cuda.device_of(inputs):
            kernel(*arrays, *size, *strides, *_constants(sizes), taken, *options, **means)
    return outputs


@lru_cache(maxsize=1024)
def _sizes(plan: Plan) -> tuple[Sizes, Sizes]:
    """Those of the operator, and of the transposed one."""
    sizes = Sizes.of(plan)
    return sizes, sizes.transposed


@lru_cache(maxsize=1024)
def _constants(sizes: Sizes) -> tuple[int, ...]:
    """Bonds, sizes and padded sizes, in the order of the kernels' arguments."""
    plain = (*sizes.inputs, *sizes.outputs)
    return (*sizes.bonds, *plain, *map(padded, plain))


def _strides(factors: Sequence[Tensor]) -> list[int]:
    return [stride for factor in factors for stride in factor.stride()]


def _share(rows: int, blocks: int, device: torch.device) -> int:
    """Rows of a part, so that the chip is full."""
    return max(1, -(-rows * blocks // (PROGRAMS_PER_SM * _units(device))))


@cache
def _units(device: torch.device) -> int:
    """Multiprocessors of a GPU; in the interpreter a few."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def _precision(inputs: Tensor) -> str:
    """Products of float32 numbers as they are; 16-bit ones know no other."""
    return "ieee" if inputs.dtype == torch.float32 else "tf32"
