"""How `mponet.planner` knows this framework: by its versions, and by passes made ready to be timed."""

from collections.abc import Callable

import torch

from mponet import contract
from mponet.cost import Purpose
from mponet.plan import Plan
from mponet.planner import Planner
from mponet_torch.arrays import IN_PLACE, device_of, dtype_of


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
    weights = contract.weights_of(plan, cores, IN_PLACE)

    def run() -> None:
        with torch.no_grad():
            if purpose == "inference":
                contract.sweep(plan, weights, inputs, IN_PLACE)
            else:
                contract.forward(plan, cores, inputs, IN_PLACE)
            if purpose == "training":
                contract.backward(plan, cores, inputs, slopes, IN_PLACE)
            if device.type == "cuda":
                torch.cuda.synchronize()

    return run


PLANNER = Planner("torch", versions, runner)
