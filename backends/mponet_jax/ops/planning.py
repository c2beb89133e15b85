"""How `mponet.contraction.planner` knows this framework: by its versions, and by passes made ready to be timed."""

from collections.abc import Callable

import flax
import jax
import numpy as np
import optax  # type: ignore[import-untyped]

from mponet.contraction import execute
from mponet.contraction.cost import Purpose
from mponet.contraction.plan import Plan
from mponet.contraction.planner import PlanningContext
from mponet_jax.ops.arrays import OPS, Array, dtype_of, from_numpy


def versions() -> dict[str, str]:
    """Versions of the packages underneath."""
    return {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__}


def runner(plan: Plan, batch: int, purpose: Purpose, dtype: str) -> Callable[[], None]:
    """A pass by ``plan`` on random numbers, on the default device; it waits for the result."""
    shape, rng = plan.shape, np.random.default_rng(0)
    sizes = ((batch, shape.in_features), (batch, shape.out_features), *shape.core_shapes)

    def both(inputs: Array, slopes: Array, *cores: Array) -> object:
        outputs = execute.forward(plan, cores, inputs, OPS)
        return outputs, execute.backward(plan, cores, inputs, slopes, OPS) if purpose == "training" else None

    def sweep(inputs: Array, *weights: Array) -> object:
        return execute.sweep(plan, weights, inputs, OPS)

    with jax.ensure_compile_time_eval():  # layers ask while they are traced
        inputs, slopes, *cores = (from_numpy(rng.normal(size=size), dtype_of(dtype)) for size in sizes)
        kept = purpose == "inference"
        arrays = (inputs, *execute.weights_of(plan, cores, OPS)) if kept else (inputs, slopes, *cores)
        compiled = jax.jit(sweep if kept else both).lower(*arrays).compile()

    def run() -> None:
        with jax.ensure_compile_time_eval():
            jax.block_until_ready(compiled(*arrays))

    return run


def _with_device() -> dict[str, str]:
    return {**versions(), "device": jax.devices()[0].device_kind}


def _planner() -> PlanningContext:
    if jax.default_backend() == "gpu":
        return PlanningContext("jax", _with_device, runner, "gpu")
    return PlanningContext("jax", versions, runner)


PLANNER = _planner()
