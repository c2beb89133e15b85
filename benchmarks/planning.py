"""How long plans take to make, and what the first call of a layer takes, by number of sites.

    python benchmarks/planning.py --json docs/measured/planning.json
    python benchmarks/planning.py --show docs/measured/planning.json

A layer of ``n`` sites has factors of 2 on either side and a bond of 4; the batch has 64 rows.  For
every framework, in a process of its own: the time to choose the plans of a layer when nothing is
known of it, and those for another batch size; and how much longer the first call of a new layer
takes than the second, plans and compilation included, in inference and in a training step (the
gradients of a loss).  PyTorch runs eagerly, JAX and TensorFlow compile.  The last row is a dense
layer of 64 x 64.  Figures are milliseconds of a processor, which other work on the machine changes
little: the median of five, of compiled calls one.  Every one starts with empty caches of mponet and
of the framework's compiler.
"""

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

SITES, BOND, BATCH, OTHER, ROUNDS = range(2, 17), 4, 64, 200, 5
FRAMEWORKS = ("torch", "jax", "tensorflow")
COLUMNS = ("plans", "plans, other batch", "first inference", "first step")


def forget() -> None:
    """Empty every cache of mponet and its adapters."""
    for name, module in list(sys.modules.items()):
        if name.startswith("mponet"):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def timed(call: Callable[[], Any]) -> float:
    """Processor seconds of one call, in all threads, without the collection of old garbage."""
    gc.collect()
    gc.disable()
    began = process_time()
    call()
    seconds = process_time() - began
    gc.enable()
    return seconds


def plans(context: Any, sites: int, batch: int) -> Callable[[], Any]:
    """The choice of plans for a layer."""
    from mponet.contraction.planner import plans_for
    from mponet.operators.shape import MPOShape

    shape = MPOShape.from_factors((2,) * sites, (2,) * sites, BOND)
    return lambda: plans_for(shape, batch, "float32", context)


def torch_calls(sites: int) -> tuple[Any, Callable[[], Any], Callable[[], Any]]:
    """The planning context, a call in inference and a training step of a new layer."""
    import torch

    from mponet_torch import MPOLinear
    from mponet_torch.ops.planning import planner

    torch.set_num_threads(1)
    dims = (2,) * sites
    layer = MPOLinear(dims, dims, BOND, seed=0) if sites else torch.nn.Linear(64, 64)
    x = torch.randn(BATCH, layer.in_features)

    def inference() -> None:
        layer.eval()
        with torch.no_grad():
            layer(x)

    return planner(), inference, lambda: layer.train()(x).square().sum().backward()


def jax_calls(sites: int) -> tuple[Any, Callable[[], Any], Callable[[], Any]]:
    """As `torch_calls`, in compiled functions."""
    import jax
    from flax import nnx

    from mponet_jax import MPOLinear
    from mponet_jax.ops.planning import planner

    jax.clear_caches()
    dims = (2,) * sites
    layer = MPOLinear(dims, dims, BOND, rngs=nnx.Rngs(0)) if sites else nnx.Linear(64, 64, rngs=nnx.Rngs(0))
    x = jax.block_until_ready(jax.random.normal(jax.random.key(0), (BATCH, layer.in_features)))
    graph, state = nnx.split(layer)
    jax.block_until_ready(state)  # its random numbers would count as the time of plans

    def call(state: Any, x: Any) -> Any:
        return nnx.merge(graph, state)(x)

    def loss(state: Any, x: Any) -> Any:
        return (call(state, x) ** 2).sum()

    inference, step = jax.jit(call), jax.jit(jax.grad(loss))
    return (
        planner(),
        lambda: jax.block_until_ready(inference(state, x)),
        lambda: jax.block_until_ready(step(state, x)),
    )


def tensorflow_calls(sites: int) -> tuple[Any, Callable[[], Any], Callable[[], Any]]:
    """As `torch_calls`, in a `tf.function` each."""
    import keras
    import tensorflow as tf

    from mponet_tensorflow import MPODense
    from mponet_tensorflow.ops.planning import planner

    keras.backend.clear_session()
    dims = (2,) * sites
    layer = MPODense(dims, BOND, input_dims=dims, seed=0) if sites else keras.layers.Dense(64)
    width = 2**sites if sites else 64
    layer.build((None, width))
    x = tf.random.normal((BATCH, width), seed=0)

    def loss(x: Any) -> Any:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(x, training=True) ** 2) if sites else tf.reduce_sum(layer(x) ** 2)
        return tape.gradient(total, layer.trainable_variables)

    inference, step = tf.function(layer), tf.function(loss)
    return planner(), lambda: inference(x).numpy(), lambda: [one.numpy() for one in step(x)]


CALLS = {"torch": torch_calls, "jax": jax_calls, "tensorflow": tensorflow_calls}


def rows(framework: str) -> list[dict[str, Any]]:
    """Seconds of every column for each number of sites; 0 sites are the dense layer."""
    found = []
    for call in CALLS[framework](2)[1:]:  # what the framework does once
        call()
    for sites in (*SITES, 0):
        times: dict[str, list[float]] = {name: [] for name in COLUMNS}
        for _ in range(ROUNDS):
            if sites:
                context = CALLS[framework](sites)[0]
                forget()
                for name, batch in zip(COLUMNS, (BATCH, OTHER), strict=False):
                    times[name].append(timed(plans(context, sites, batch)))
        for place, name in enumerate(COLUMNS[2:], start=1):
            for _ in range(ROUNDS if framework == "torch" else 1):  # compilers take long
                call = CALLS[framework](sites)[place]
                forget()
                times[name].append(timed(call) - timed(call))
        row = {name: median(seconds) for name, seconds in times.items() if seconds}
        found.append({"backend": framework, "sites": sites, **row})
        print(json.dumps(found[-1]), flush=True)
    return found


def table(found: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of the table in docs/performance.md."""
    yield "| sites | PyTorch: plans, again, first inference, step | JAX: the same | TensorFlow: the same |"
    yield "| --- | --- | --- | --- |"
    for sites in (*SITES, 0):
        rows = {row["backend"]: row for row in found if row["sites"] == sites}
        cells = (", ".join(milliseconds(rows[name].get(column)) for column in COLUMNS) for name in FRAMEWORKS)
        yield f"| {sites or 'dense layer'} | {' | '.join(cells)} |"


def milliseconds(seconds: float | None) -> str:
    """Three digits, and one after the point at most."""
    return "-" if seconds is None else f"{1e3 * seconds:.1f}" if seconds < 0.0995 else f"{1e3 * seconds:.0f}"


def main() -> None:
    """Run every framework in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="Write the figures into this file.")
    parser.add_argument("--framework", choices=FRAMEWORKS, help="One framework, in this process.")
    parser.add_argument("--show", type=Path, help="Print the table of a file; nothing is measured.")
    options = parser.parse_args()
    if options.show:
        print("\n".join(table(json.loads(options.show.read_text(encoding="utf-8"))["rows"])))
        return
    if options.framework:
        rows(options.framework)
        return
    found = []
    for framework in FRAMEWORKS:
        command = [sys.executable, __file__, "--framework", framework]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found += [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    print("\n".join(table(found)))
    if options.json:
        options.json.write_text(json.dumps({"rows": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
