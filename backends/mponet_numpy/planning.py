"""How `mponet.planner` knows numpy: by its version, and by passes made ready to be timed."""

from collections.abc import Callable

import numpy as np

from mponet import contract
from mponet.cost import Purpose
from mponet.errors import BackendError
from mponet.plan import Plan
from mponet.planner import Planner
from mponet_numpy.arrays import OPS

DTYPES = ("float64", "float32", "float16")


def versions() -> dict[str, str]:
    """Versions of the packages underneath."""
    return {"numpy": np.__version__}


def runner(plan: Plan, batch: int, purpose: Purpose, dtype: str) -> Callable[[], None]:
    """A pass by ``plan`` on random numbers.

    Raises:
        BackendError: numpy has no such numbers.
    """
    if dtype not in DTYPES:
        raise BackendError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}: numpy has no other")
    shape, rng = plan.shape, np.random.default_rng(0)
    sizes = ((batch, shape.in_features), (batch, shape.out_features), *shape.core_shapes)
    inputs, slopes, *cores = (rng.normal(size=size).astype(dtype) for size in sizes)
    weights = contract.weights_of(plan, cores, OPS)

    def run() -> None:
        if purpose == "inference":
            contract.sweep(plan, weights, inputs, OPS)
        else:
            contract.forward(plan, cores, inputs, OPS)
        if purpose == "training":
            contract.backward(plan, cores, inputs, slopes, OPS)

    return run


PLANNER = Planner("numpy", versions, runner)
