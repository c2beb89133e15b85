"""The processes that train one model together, by `torch.distributed`."""

import atexit
import gc
import os
import warnings
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
        atexit.register(_leave)
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return ALONE
    return Group(dist.get_rank(), dist.get_world_size(), _agree, _losing)


def data_parallel(native: nn.Module) -> nn.Module:
    """The module wrapped by `DistributedDataParallel`, which averages gradients over the processes.

    Running statistics are equal everywhere, since batch norms see the whole batch.
    """
    return DistributedDataParallel(native)


def fully_sharded(native: nn.Module) -> nn.Module:
    """The module with its parameters spread over the processes by `fully_shard` (FSDP2).

    Each layer gathers its parameters when it runs, and gradients are averaged as they are spread.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # a layer's output may be a view of its rows; it warns of changes in place, and there are none
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    mesh = init_device_mesh(next(native.parameters()).device.type, (dist.get_world_size(),))
    native.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # or it refuses kernels
    for module in reversed(list(native.modules())):  # inner modules first
        if module is native or any(True for _ in module.parameters(recurse=False)):
            fully_shard(module, mesh=mesh)
    return native


def share_of(whole: Array, like: Array) -> Array:
    """The share of a whole array that this process keeps, laid out as ``like``; all where it is."""
    if not hasattr(like, "device_mesh"):
        return whole
    from torch.distributed.tensor import DTensor, distribute_tensor  # takes a second or two

    assert isinstance(like, DTensor)
    return distribute_tensor(whole, like.device_mesh, like.placements)


def summed(values: Array) -> Array:
    """The sum over all processes, differentiable."""
    return _Sum.apply(values)  # type: ignore[no-any-return, no-untyped-call]


class _Sum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of their gradients.

    That of ``torch.distributed.nn`` is deprecated, and its successor has no public name.
    """

    @staticmethod
    def forward(ctx: Any, values: Array) -> Array:
        return _reduced(values.clone())

    @staticmethod
    def backward(ctx: Any, slope: Array) -> Array:
        return _Sum.apply(slope.contiguous())  # type: ignore[no-any-return, no-untyped-call]


def _is_loss(error: Exception) -> bool:
    """Whether an error tells of a lost connection; those of Gloo have no class of their own."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in LOST)


_losing = partial(losing, _is_loss)


#: The last sum.  A thread of Gloo frees a sum that nothing else holds, and takes the GIL for its
#: tensor; if that happens while Python ends, the process is aborted.
_last: list[Any] = []


def _reduced(values: Array) -> Array:
    """The values, replaced by their sum over all processes."""
    work: Any = dist.all_reduce(values, async_op=True)
    _last[:] = [work]  # which frees the one before, here and now
    work.wait()
    return values


def _leave() -> None:
    """Leave the group before Python ends, which threads of FSDP2 would abort otherwise."""
    if dist.is_initialized():
        gc.collect()  # modules that were trained hold the group; without them its threads are joined
        dist.destroy_process_group()


def _agree(value: bool) -> bool:
    with _losing():
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        first = torch.tensor(value and dist.get_rank() == 0, dtype=torch.int32, device=device)
        return bool(_reduced(first))
