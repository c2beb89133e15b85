"""Time the parts of a layer's forward pass and step, each alone, and the dense product.

    python benchmarks/parts.py --backends torch,jax,tensorflow --rows fc2-d16,4096-n4-d8

*products* are those of the plan that the layer takes, one by one, on whole batches; *merging* makes
weights of the cores; *forward* and *step* are the whole layer's, with tiles and calls.  Everything
takes turns; GFLOP/s counts two operations a multiplication.
"""

import argparse
import statistics
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from mponet.bench.rounds import interleave
from mponet.bench.rows import ROWS, Row
from mponet.contraction import execute
from mponet.contraction.plan import Plan, Step
from mponet.contraction.planner import plans_for
from mponet.operators.initialize import exact_variance

Call = Callable[[], Any]


def ready(backend: str, run: Callable[..., Any], *arrays: np.ndarray) -> Call:
    """``run`` of arrays of the framework, as people run it, waiting for the result."""
    if backend == "torch":
        import torch

        tensors = [torch.tensor(array) for array in arrays]
        return torch.no_grad()(lambda: run(*tensors))
    if backend == "jax":
        import jax

        compiled, inputs = jax.jit(run), [jax.numpy.asarray(array) for array in arrays]
        return lambda: jax.block_until_ready(compiled(*inputs))
    import tensorflow as tf

    traced, constants = tf.function(run), [tf.constant(array) for array in arrays]
    return lambda: traced(*constants)


def product(ops: Any, step: Step, batch: int) -> tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...]]:
    """A step's product, and the shapes of its state and its weight."""
    rows = batch * step.prefix
    if step.suffix == 1:
        return lambda state, weight: ops.matmul(state, weight), (rows, step.inner), (step.inner, step.rows)
    return lambda state, weight: ops.matmul(weight, state), (rows, step.inner, step.suffix), (step.rows, step.inner)


def parts(backend: str, row: Row) -> tuple[dict[str, Call], dict[str, int], Plan]:
    """What is timed, how many multiplications each is, and the plan."""
    arrays = import_module(f"mponet_{backend}.ops.arrays")
    ops = arrays.IN_PLACE if backend == "torch" else arrays.OPS
    planner = import_module(f"mponet_{backend}.ops.planning").planner()
    shape, batch, rng = row.shape, row.batch, np.random.default_rng(0)

    def numbers(*size: int) -> np.ndarray:
        return rng.normal(size=size).astype(np.float32)

    plan = plans_for(shape, batch, "float32", planner).training
    cores = [core.astype(np.float32) for core in exact_variance(shape, rng).cores]
    calls: dict[str, Call] = {}
    counts: dict[str, int] = {}
    if row.compared:
        sizes = (batch, shape.in_features), (shape.in_features, shape.out_features)
        calls["dense product"] = ready(backend, lambda x, w: ops.matmul(x, w), *(numbers(*size) for size in sizes))
        counts["dense product"] = batch * shape.dense_parameters
    calls["merging"] = ready(backend, lambda *cores: execute.weights_of(plan, cores, ops), *cores)
    counts["merging"] = plan.merge_multiplications
    for k, step in enumerate(plan.steps, start=1):
        run, *sizes = product(ops, step, batch)
        name = f"product {k}: {step.rows} x {step.inner}, {batch * step.prefix} times {step.suffix}"
        calls[name], counts[name] = (
            ready(backend, run, *(numbers(*size) for size in sizes)),
            batch * step.multiplications,
        )
    x, slope = numbers(batch, shape.in_features), numbers(batch, shape.out_features)
    calls["forward"] = ready(backend, lambda x, *cores: execute.forward(plan, cores, x, ops), x, *cores)
    counts["forward"] = plan.multiplications(batch)

    def both(x: Any, slope: Any, *cores: Any) -> Any:
        return execute.forward(plan, cores, x, ops), execute.backward(plan, cores, x, slope, ops)

    if backend == "jax":  # which differentiates the forward pass itself
        both = differentiated(plan)
    calls["step"] = ready(backend, both, x, slope, *cores)
    counts["step"] = 3 * counts["forward"]
    return calls, counts, plan


def differentiated(plan: Any) -> Any:
    """A step of JAX: outputs, and gradients of inputs and cores."""
    import jax

    from mponet_jax.ops.contraction import differentiable

    def both(x: Any, slope: Any, *cores: Any) -> Any:
        outputs, pull_back = jax.vjp(lambda x, *cores: differentiable(plan, x, cores, None), x, *cores)
        return outputs, pull_back(slope)

    return both


def main() -> None:
    """Print a table for each row and framework."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default="torch,jax,tensorflow")
    parser.add_argument("--rows", default="4096-n4-d8,fc2-d16")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rows = {row.name: row for row in ROWS}
    for backend in options.backends.split(","):
        for name in options.rows.split(","):
            calls, counts, plan = parts(backend, rows[name])
            samples = interleave(calls, options.rounds)
            print(f"\n{backend}, `{name}`, batch {rows[name].batch}: {plan}\n")
            print("| part | ms | GFLOP | GFLOP/s |\n|---|---:|---:|---:|")
            for part, seconds in samples.items():
                time, work = statistics.median(seconds), 2 * counts[part] / 1e9
                print(f"| {part} | {1e3 * time:.3g} | {work:.3g} | {work / time:.0f} |")


if __name__ == "__main__":
    main()
