"""How `mponet.contraction.planner` knows numpy.

By its version, and by passes made ready to be timed.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from mponet.contraction import execute
from mponet.contraction.cost import Purpose
from mponet.contraction.planner import PlanningContext
from mponet.contraction.program import BasePlan
from mponet.errors import BackendError
from mponet_numpy.ops.arrays import OPS

DTYPES = ("float64", "float32", "float16")


def versions() -> dict[str, str]:
    """Versions of the packages underneath."""
    return {"numpy": np.__version__}


def runner(plan: BasePlan, batch: int, purpose: Purpose, dtype: str) -> Callable[[], None]:
    """A pass by ``plan`` on random numbers.

    Raises:
        BackendError: numpy has no such numbers.
    """
    if dtype not in DTYPES:
        raise BackendError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}: numpy has no other")
    program, rng = plan.program, np.random.default_rng(0)
    sizes = ((batch, program.in_features), (batch, program.out_features), *program.tensor_shapes)
    inputs, gradient, *tensors = (rng.normal(size=size).astype(dtype) for size in sizes)
    weights = execute.weights_of(plan, tensors, OPS)

    def run() -> None:
        if purpose == "inference":
            execute.sweep(plan, weights, inputs, OPS)
        elif purpose == "training":
            _, saved = execute.forward_saving(plan, tensors, inputs, OPS)
            execute.backward(plan, tensors, inputs, gradient, OPS, saved=saved)
        else:
            execute.forward(plan, tensors, inputs, OPS)

    return run


@cache
def planner() -> PlanningContext:
    """What plans are chosen by."""
    return PlanningContext("numpy", versions, runner)
