"""The planning context of PyTorch: versions, device, and passes that can be timed."""

from collections.abc import Callable
from functools import cache

import torch

import mponet_triton as kernels
from mponet.contraction.cost import Purpose
from mponet.contraction.planner import PlanningContext, PlanSet, plans_for, rounded
from mponet.contraction.program import BasePlan
from mponet.contraction.search import Shape
from mponet_torch.ops.arrays import IN_PLACE, device_of, dtype_of
from mponet_torch.ops.contraction import backward, forward_saving, sweep, weights_of

#: An eager layer knows whether it is differentiated, and keeps its weights in eval mode.
PURPOSES: tuple[Purpose, ...] = ("forward", "training", "inference")


def versions() -> dict[str, str]:
    """Versions of the packages underneath."""
    return {"torch": torch.__version__}


def runner(plan: BasePlan, batch: int, purpose: Purpose, dtype: str) -> Callable[[], None]:
    """A pass by ``plan`` on random numbers, on the default device; it waits for the result."""
    device, generator = device_of(None), torch.Generator().manual_seed(0)
    program = plan.program
    sizes = ((batch, program.in_features), (batch, program.out_features), *program.tensor_shapes)
    arrays = (torch.randn(size, generator=generator).to(device, dtype_of(dtype)) for size in sizes)
    inputs, gradient, *tensors = arrays
    weights = weights_of(plan, tensors)

    def run() -> None:
        with torch.no_grad():
            if purpose == "inference":
                sweep(plan, weights, inputs)
            elif purpose == "training":
                _, saved = forward_saving(plan, tensors, inputs)
                backward(plan, tensors, inputs, gradient, IN_PLACE, saved=saved)
            else:
                sweep(plan, weights_of(plan, tensors), inputs)
            if device.type == "cuda":
                torch.cuda.synchronize()

    return run


def planner(device: torch.device | None = None) -> PlanningContext:
    """What plans for a device are chosen by; None for the default device."""
    return _gpu() if (device or device_of(None)).type == "cuda" else _CPU


class PlanCache:
    """The plans of one layer; looking them up by its shape takes as long as a small product.

    Batches of one class share their plans (`mponet.contraction.planner.rounded`).  A copied or
    pickled layer starts with an empty cache.
    """

    #: Classes of batches up to a million rows, in two dtypes.
    LIMIT = 256

    def __init__(self, shape: Shape, memory: int | None = None) -> None:
        self.shape, self.memory = shape, memory
        self._plans: dict[tuple[int, torch.dtype, torch.device], PlanSet] = {}

    def plans(self, batch: int, dtype: torch.dtype, device: torch.device) -> PlanSet:
        """The plans for a batch of so many rows of a dtype on a device."""
        key = rounded(batch), dtype, device
        plans = self._plans.get(key)
        if plans is None:
            plans = plans_for(self.shape, key[0], str(dtype).removeprefix("torch."), planner(device), self.memory)
            if len(self._plans) >= self.LIMIT:
                self._plans = {}
            self._plans[key] = plans
        return plans

    def __reduce__(self) -> tuple[type["PlanCache"], tuple[Shape, int | None]]:
        return PlanCache, (self.shape, self.memory)


def _with_device() -> dict[str, str]:
    return {**versions(), "device": torch.cuda.get_device_name()}


@cache
def _gpu() -> PlanningContext:
    """Asked for with the first layer on a GPU: an import must not start a device."""
    return PlanningContext(
        "torch", _with_device, runner, "cuda", kernels.available(), PURPOSES[:2]
    )  # no weights are kept on a GPU


_CPU = PlanningContext("torch", versions, runner, purposes=PURPOSES)
