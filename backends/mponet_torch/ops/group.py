"""The processes that train one model together, by `torch.distributed`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from mponet.backend import ALONE, Group
from mponet.errors import BackendError
from mponet_torch.ops.arrays import Array

#: Words in the messages of lost connections, which torch raises as plain RuntimeErrors.
LOST = ("gloo", "nccl", "connection", "store", "broken pipe", "reset by peer", "timed out")


def group() -> Group:
    """The group that ``torchrun`` names in the environment; one process where it names none."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return ALONE
    return Group(dist.get_rank(), dist.get_world_size(), _wait, losing)


def data_parallel(native: nn.Module) -> nn.Module:
    """The module behind `DistributedDataParallel`, which averages gradients over the processes.

    Running statistics are equal everywhere, since batch norms see the whole batch.
    """
    return DistributedDataParallel(native)


def summed(values: Array) -> Array:
    """The sum over all processes, differentiable."""
    return all_reduce(values)  # type: ignore[no-any-return]


@contextmanager
def losing() -> Iterator[None]:
    """Turn the loss of another process into an error of ours.

    Raises:
        BackendError: another process ended.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not any(word in text.lower() for word in LOST):
            raise
        raise BackendError(
            f"another process of this training ended ({' '.join(text.split())[:120]}); expected all of them; look at "
            "its own last line, then start all again with --resume"
        ) from error


def _wait() -> None:
    with losing():
        dist.barrier()
