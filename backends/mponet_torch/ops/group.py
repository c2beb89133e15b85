"""The processes that train one model together, by `torch.distributed`."""

import os
from functools import partial
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mponet.group import ALONE, Group, losing
from mponet_torch.ops.arrays import Array

#: Words in the messages of lost connections that torch raises as plain RuntimeErrors.
LOST = ("gloo", "nccl")


def group() -> Group:
    """The group that ``torchrun`` names in the environment; one process where it names none."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return ALONE
    return Group(dist.get_rank(), dist.get_world_size(), _wait, _losing)


def data_parallel(native: nn.Module) -> nn.Module:
    """The module wrapped by `DistributedDataParallel`, which averages gradients over the processes.

    Running statistics are equal everywhere, since batch norms see the whole batch.
    """
    return DistributedDataParallel(native)


def summed(values: Array) -> Array:
    """The sum over all processes, differentiable."""
    return _Sum.apply(values)  # type: ignore[no-any-return, no-untyped-call]


class _Sum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of their gradients.

    That of ``torch.distributed.nn`` is deprecated, and its successor has no public name.
    """

    @staticmethod
    def forward(ctx: Any, values: Array) -> Array:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, slope: Array) -> Array:
        return _Sum.apply(slope.contiguous())  # type: ignore[no-any-return, no-untyped-call]


def _is_loss(error: Exception) -> bool:
    """Whether an error tells of a lost connection; those of Gloo have no class of their own."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in LOST)


_losing = partial(losing, _is_loss)


def _wait() -> None:
    with _losing():
        dist.barrier()
