"""Runs plans that `mponet.fused.fusable` names by kernels of our own, where there is a GPU, Triton, and 16-bit numbers.

In float32 a kernel gains nothing: the products take longer than moving the states does, and cuBLAS has the faster ones.
``MPONET_KERNELS=off`` does without.
"""

import os
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

import torch

from mponet.fused import Sizes, fusable, padded
from mponet.plan import Plan
from mponet_torch.arrays import Array

VARIABLE = "MPONET_KERNELS"
DTYPES = (torch.bfloat16, torch.float16)
#: Programs for each multiprocessor that add up the gradients of weights.
SHARES = 4


def serves(plan: Plan, inputs: Array) -> bool:
    """Whether a kernel runs this plan on this batch."""
    on_chip = inputs.device.type == "cuda" and inputs.dtype in DTYPES
    return on_chip and inputs.shape[0] > 0 and available() and _fusable(plan)


@cache
def available() -> bool:
    """Whether kernels can be compiled here and are wanted."""
    wanted = os.environ.get(VARIABLE, "").strip().lower() not in ("off", "0", "no")
    return wanted and torch.cuda.is_available() and find_spec("triton") is not None


_fusable = lru_cache(maxsize=4096)(fusable)


def forward(plan: Plan, weights: Sequence[Array], inputs: Array, bias: Array | None = None) -> Array:
    """``inputs @ W + bias`` by one kernel; ``weights`` as `mponet.contract.weights_of` gives them."""
    sizes = Sizes.of(plan)
    return _sweep(sizes, _factors(sizes, weights), inputs, bias)


def backward(
    plan: Plan, weights: Sequence[Array], inputs: Array, gradient: Array, *, wrt_inputs: bool = True
) -> tuple[Array | None, list[Array]]:
    """Gradients of the inputs and, in the layout of ``weights``, of each weight."""
    sizes = Sizes.of(plan)
    factors = _factors(sizes, weights)
    gradient = gradient.contiguous()
    slope = None
    if wrt_inputs:
        turned = [factor.mT for factor in factors]
        slope = _sweep(sizes.turned, turned, gradient, None)
    return slope, [one.to(inputs.dtype) for one in _slopes(sizes, factors, inputs, gradient)]


def _factors(sizes: Sizes, weights: Sequence[Array]) -> list[Array]:
    """Weights by bond: ``(D_1, J_1, I_1)``, of three groups ``(D_1, D_2, J_2, I_2)``, and ``(D, J_n, I_n)``."""
    inputs, outputs, bonds = sizes
    *middle, last = weights[::-1][1:] if len(weights) == 3 else weights[:1]
    first = weights[-1].view(outputs[0], inputs[0], bonds[0]).permute(2, 0, 1).contiguous()
    between = [
        weight.view(bonds[0], outputs[1], inputs[1], bonds[1]).permute(0, 3, 1, 2).contiguous() for weight in middle
    ]
    return [first, *between, last.view(inputs[-1], bonds[-1], outputs[-1]).permute(1, 2, 0)]


def _sweep(sizes: Sizes, factors: Sequence[Array], inputs: Array, bias: Array | None) -> Array:
    """The forward kernel; factors ``(.., J, I)`` of any strides."""
    from mponet_torch import fused

    rows = inputs.shape[0]
    outputs = inputs.new_empty(rows, _product(sizes.outputs))
    arrays = (inputs.contiguous(), *factors, outputs if bias is None else bias, outputs)
    strides = [stride for factor in factors for stride in factor.stride()]
    biased, precision = bias is not None, _precision(inputs)
    if len(factors) == 2:
        tile, warps, stages = two(sizes)
        fused.sweep_two[(-(-rows // tile),)](
            *arrays, rows, *strides, *_constants(sizes), tile, biased, precision, num_warps=warps, num_stages=stages
        )
    else:
        bonds, warps, stages = three(sizes)
        fused.sweep_three[(rows,)](
            *arrays, *strides, *_constants(sizes), bonds, biased, precision, num_warps=warps, num_stages=stages
        )
    return outputs


def _slopes(sizes: Sizes, factors: Sequence[Array], inputs: Array, gradient: Array) -> list[Array]:
    """The kernel of the weights' gradients, float32, in the layout and order of weights."""
    from mponet_torch import fused

    rows, ins, outs, bonds = inputs.shape[0], *sizes
    strides = [stride for factor in factors for stride in factor.stride()]
    held, warps, stages = three(sizes) if len(factors) == 3 else (1, *two_slopes(sizes))
    blocks = (bonds[0],) if len(factors) == 2 else (bonds[1], -(-bonds[0] // held))
    share = _share(rows, _product(blocks), inputs.device)
    parts = -(-rows // share)
    options = {"num_warps": warps, "num_stages": stages}
    if len(factors) == 2:
        found = [
            inputs.new_empty(parts, bonds[0], outs[0], ins[0], dtype=torch.float32),
            inputs.new_empty(parts, bonds[0], outs[1], ins[1], dtype=torch.float32),
        ]
        fused.slopes_two[(*blocks, parts)](
            inputs, gradient, *factors, *found, rows, share, *strides, *_constants(sizes), _precision(inputs), **options
        )
        first, last = (one.sum(0) for one in found)
        return [last.permute(2, 0, 1).reshape(ins[1], -1), first.permute(1, 2, 0).reshape(outs[0], -1)]
    found = [
        inputs.new_empty(parts, bonds[1], bonds[0], outs[0], ins[0], dtype=torch.float32),
        inputs.new_empty(parts, bonds[1], bonds[0], outs[1], ins[1], dtype=torch.float32),
        inputs.new_empty(parts, blocks[1], bonds[1], outs[2], ins[2], dtype=torch.float32),
    ]
    fused.slopes_three[(*blocks, parts)](
        inputs,
        gradient,
        *factors,
        *found,
        rows,
        share,
        *strides,
        *_constants(sizes),
        held,
        _precision(inputs),
        **options,
    )
    first, middle, last = found[0].sum((0, 1)), found[1].sum(0), found[2].sum((0, 1))
    return [
        last.permute(2, 0, 1).reshape(ins[2], -1),
        middle.permute(1, 2, 3, 0).reshape(bonds[0] * outs[1], -1),
        first.permute(1, 2, 0).reshape(outs[0], -1),
    ]


def two(sizes: Sizes) -> tuple[int, int, int]:
    """Rows of a tile, warps and stages of a sweep of two groups."""
    (_, wide), (tall, last) = (tuple(map(padded, some)) for some in (sizes.inputs, sizes.outputs))
    row = tall * max(wide, last)
    tile = max(1, 8192 // row)
    return min(tile, 8), 4 if row * tile <= 8192 else 8, 2


def two_slopes(sizes: Sizes) -> tuple[int, int]:
    """Warps and stages of the gradients of two groups."""
    held = sum(padded(i) * padded(j) for i, j in zip(sizes.inputs, sizes.outputs, strict=True))
    return (4 if held <= 8192 else 8), 2


def three(sizes: Sizes) -> tuple[int, int, int]:
    """Bonds at a time, warps and stages of three groups."""
    i1, j2, j3 = padded(sizes.inputs[0]), padded(sizes.outputs[1]), padded(sizes.outputs[2])
    held = max(1, 16384 // (i1 * j2 * j3))
    bonds = 1 << (min(held, sizes.bonds[0]).bit_length() - 1)
    return bonds, 4 if bonds * i1 * j2 * j3 <= 8192 else 8, 2


def _constants(sizes: Sizes) -> tuple[int, ...]:
    """Bonds, sizes and padded sizes, in the order of the kernels' arguments."""
    plain = (*sizes.inputs, *sizes.outputs)
    return (*sizes.bonds, *plain, *map(padded, plain))


def _share(rows: int, blocks: int, device: torch.device) -> int:
    """Rows of a part, so that the chip is full."""
    units = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
    return max(1, -(-rows * blocks // (SHARES * units)))


def _precision(inputs: Array) -> str:
    """Products of float32 numbers as they are; 16-bit ones know no other."""
    return "ieee" if inputs.dtype == torch.float32 else "tf32"


def _product(sizes: Sequence[int]) -> Any:
    result = 1
    for size in sizes:
        result *= size
    return result
