"""How `mponet.contraction.planner` knows numpy: by its version, and by passes made ready to be timed."""

from collections.abc import Callable

import numpy as np

from mponet.contraction import execute
from mponet.contraction.cost import Purpose
from mponet.contraction.plan import Plan
from mponet.contraction.planner import PlanningContext
from mponet.errors import BackendError
from mponet_numpy.ops.arrays import OPS

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
    weights = execute.weights_of(plan, cores, OPS)

    def run() -> None:
        if purpose == "inference":
            execute.sweep(plan, weights, inputs, OPS)
        else:
            execute.forward(plan, cores, inputs, OPS)
        if purpose == "training":
            execute.backward(plan, cores, inputs, slopes, OPS)

    return run


PLANNER = PlanningContext("numpy", versions, runner)
