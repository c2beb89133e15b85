"""How `mponet.contraction.planner` knows this framework.

By its versions, and by passes made ready to be timed.
"""

from collections.abc import Callable
from functools import cache

import flax
import jax
import numpy as np
import optax  # type: ignore[import-untyped]

from mponet.contraction import execute
from mponet.contraction.cost import Purpose
from mponet.contraction.planner import PlanningContext
from mponet.contraction.program import BasePlan
from mponet_jax.ops.arrays import OPS, Array, dtype_of, from_numpy
from mponet_jax.ops.contraction import differentiable

#: Weights are merged in every call of a compiled function; a pass that is not differentiated is
#: known.
PURPOSES: tuple[Purpose, ...] = ("forward", "training")


def versions() -> dict[str, str]:
    """Versions of the packages underneath."""
    return {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__}


def runner(plan: BasePlan, batch: int, purpose: Purpose, dtype: str) -> Callable[[], None]:
    """A pass by ``plan`` on random numbers, on the default device; it waits for the result."""
    program, rng = plan.program, np.random.default_rng(0)
    sizes = ((batch, program.in_features), (batch, program.out_features), *program.tensor_shapes)

    def both(inputs: Array, gradient: Array, *tensors: Array) -> object:
        if purpose != "training":
            return execute.forward(plan, tensors, inputs, OPS)
        outputs, pull_back = jax.vjp(
            lambda inputs, tensors: differentiable(plan, inputs, tensors, None), inputs, tensors
        )
        return outputs, pull_back(gradient)

    def sweep(inputs: Array, *weights: Array) -> object:
        return execute.sweep(plan, weights, inputs, OPS)

    with jax.ensure_compile_time_eval():  # layers ask while they are traced
        inputs, gradient, *tensors = (from_numpy(rng.normal(size=size), dtype_of(dtype)) for size in sizes)
        kept = purpose == "inference"
        arrays = (inputs, *execute.weights_of(plan, tensors, OPS)) if kept else (inputs, gradient, *tensors)
        compiled = jax.jit(sweep if kept else both).lower(*arrays).compile()

    def run() -> None:
        with jax.ensure_compile_time_eval():
            jax.block_until_ready(compiled(*arrays))

    return run


def _with_device() -> dict[str, str]:
    return {**versions(), "device": jax.devices()[0].device_kind}


@cache
def planner() -> PlanningContext:
    """What plans are chosen by; asked for with the first layer, because it starts JAX's devices."""
    if jax.default_backend() == "gpu":
        return PlanningContext("jax", _with_device, runner, "gpu", purposes=PURPOSES)
    return PlanningContext("jax", versions, runner, purposes=PURPOSES)
