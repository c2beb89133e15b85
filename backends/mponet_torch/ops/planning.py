"""The planning context of PyTorch: versions, device, and passes that can be timed."""

from collections.abc import Callable

import torch

import mponet_triton as kernels
from mponet.contraction.cost import Purpose
from mponet.contraction.plan import Plan
from mponet.contraction.planner import PlanningContext
from mponet_torch.ops.arrays import IN_PLACE, device_of, dtype_of
from mponet_torch.ops.chain import back, sweep, weights_of


def versions() -> dict[str, str]:
    """Versions of the packages underneath."""
    return {"torch": torch.__version__}


def runner(plan: Plan, batch: int, purpose: Purpose, dtype: str) -> Callable[[], None]:
    """A pass by ``plan`` on random numbers, on the default device; it waits for the result."""
    device, generator = device_of(None), torch.Generator().manual_seed(0)
    shape = plan.shape
    sizes = ((batch, shape.in_features), (batch, shape.out_features), *shape.core_shapes)
    arrays = (torch.randn(size, generator=generator).to(device, dtype_of(dtype)) for size in sizes)
    inputs, slopes, *cores = arrays
    weights = weights_of(plan, cores)

    def run() -> None:
        with torch.no_grad():
            if purpose == "inference":
                sweep(plan, weights, inputs)
            else:
                sweep(plan, weights_of(plan, cores), inputs)
            if purpose == "training":
                back(plan, cores, inputs, slopes, IN_PLACE)
            if device.type == "cuda":
                torch.cuda.synchronize()

    return run


def planner_of(device: torch.device) -> PlanningContext:
    """What plans for a device are chosen by."""
    return _GPU if device.type == "cuda" else _CPU


def _with_device() -> dict[str, str]:
    return {**versions(), "device": torch.cuda.get_device_name()}


_CPU = PlanningContext("torch", versions, runner)
_GPU = PlanningContext("torch", _with_device, runner, "cuda", fuses=kernels.available())
PLANNER = planner_of(device_of(None))
