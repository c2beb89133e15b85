"""Call layers very often, and print what went wrong and what memory grew.

    python benchmarks/layer_endurance.py --json docs/measured/endurance.json
    python benchmarks/layer_endurance.py --framework torch --share 0.01

For every kind of layer of the contract (tests/contract), each framework in a process of its own:
eight threads call one layer 100 000 times with batches of six sizes in any order, and every result
is compared with the dense layer's.  Then one layer sees 20 000 sizes of batch, and 2 000 layers are
made and called; the resident memory is taken after each quarter.  PyTorch runs eagerly.  JAX and
Keras run compiled functions, as they are served; their compilers keep what they compiled for every
size of batch, so 20 000 sizes ask for plans and 64 compiled sizes.  One compiled function calls the
2 000 layers of JAX; those of Keras run eagerly.  A dense layer of the framework is the control.
Exit status 1 if a result was wrong, a call raised, or memory grew by 20 MB more than the control's
between the first quarter and the last; over layers, the control's for as many parameters, because
Keras does not free about 36 kB of each `keras.Variable`.  Rows that the file has are kept.
"""

import argparse
import gc
import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np

FRAMEWORKS = ("torch", "jax", "tensorflow")
THREADS, CALLS, SIZES, LAYERS, MEGABYTES = 8, 100_000, 20_000, 2_000, 20.0
BATCHES = (1, 2, 3, 5, 17, 33)


class Torch:
    """How layers of a framework are called."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.torch = torch

    def scope(self) -> Any:
        """What each thread works in."""
        return self.torch.no_grad()

    def served(self, layer: Any) -> Callable[[Any], Any]:
        """The layer in inference."""
        return layer.eval()  # type: ignore[no-any-return]

    def one_layer(self, layer: Any, x: Any) -> None:
        """A training step and a call in inference of a layer that is dropped."""
        layer(x).sum().backward()
        with self.scope():
            layer.eval()(x)

    def arrays(self, layer: Any) -> int:
        """How many parameters it has."""
        return len(list(layer.parameters()))

    def dense(self) -> tuple[Callable[[int], Any], Callable[[int], Any]]:
        """A maker of dense layers by seed, and of batches."""
        torch = self.torch
        return lambda _: torch.nn.Linear(16, 12).double(), lambda size: torch.randn(size, 16).double()


class Jax:
    """As `Torch`."""

    def __init__(self) -> None:
        import jax
        from flax import nnx

        jax.config.update("jax_enable_x64", True)
        self.jax, self.nnx = jax, nnx
        self.call = jax.jit(lambda graph, state, x: nnx.merge(graph, state)(x), static_argnums=0)
        self.slopes = jax.jit(
            jax.grad(lambda state, graph, x: nnx.merge(graph, state)(x).sum()), static_argnums=1
        )  # fmt: skip

    def scope(self) -> Any:
        """What each thread works in."""
        return self.jax.enable_x64(True)

    def served(self, layer: Any) -> Callable[[Any], Any]:
        """The layer in inference, compiled."""
        graph, state = self.nnx.split(layer)
        return lambda x: self.call(graph, state, x)

    def one_layer(self, layer: Any, x: Any) -> None:
        """A training step and a call in inference of a layer that is dropped."""
        graph, state = self.nnx.split(layer)
        self.slopes(state, graph, x)
        self.call(graph, state, x)

    def arrays(self, layer: Any) -> int:
        """How many parameters it has."""
        return len(self.jax.tree.leaves(self.nnx.state(layer, self.nnx.Param)))

    def dense(self) -> tuple[Callable[[int], Any], Callable[[int], Any]]:
        """A maker of dense layers by seed, and of batches."""
        jax, nnx = self.jax, self.nnx
        return (
            lambda seed: nnx.Linear(16, 12, param_dtype="float64", rngs=nnx.Rngs(seed)),
            lambda size: jax.random.normal(jax.random.key(size), (size, 16), "float64"),
        )


class Tensorflow:
    """As `Torch`."""

    def __init__(self) -> None:
        import keras
        import tensorflow as tf

        self.tf, self.keras = tf, keras

    def scope(self) -> Any:
        """What each thread works in."""
        return ExitStack()

    def served(self, layer: Any) -> Callable[[Any], Any]:
        """The layer in inference, compiled for any batch."""
        return self.tf.function(lambda x: layer(x, training=False), reduce_retracing=True)  # type: ignore[no-any-return]

    def one_layer(self, layer: Any, x: Any) -> None:
        """A training step and a call in inference of a layer that is dropped."""
        with self.tf.GradientTape() as tape:
            total = self.tf.reduce_sum(layer(x, training=True))
        tape.gradient(total, layer.trainable_variables)
        layer(x, training=False)

    def arrays(self, layer: Any) -> int:
        """How many parameters it has."""
        return len(layer.weights)

    def dense(self) -> tuple[Callable[[int], Any], Callable[[int], Any]]:
        """A maker of dense layers by seed, and of batches."""

        def make(_: int) -> Any:
            layer = self.keras.layers.Dense(12, dtype="float64")
            layer.build((None, 16))
            return layer

        return make, lambda size: self.tf.random.normal((size, 16), dtype="float64")


HOW = {"torch": Torch, "jax": Jax, "tensorflow": Tensorflow}


def called(how: Any, layer: Any, reference: Any, inputs: Callable[[int], Any], calls: int) -> list[str]:
    """What went wrong in so many calls of one layer by all threads."""
    faults: list[str] = []
    run = how.served(layer)
    with how.scope():
        batches = [inputs(batch) for batch in BATCHES]
        expected = [np.asarray(reference(x)) for x in batches]

    def work(number: int) -> None:
        order = random.Random(number)
        try:
            with how.scope():
                for _ in range(calls // THREADS):
                    place = order.randrange(len(batches))
                    if not np.allclose(np.asarray(run(batches[place])), expected[place], rtol=1e-10, atol=1e-10):
                        faults.append("wrong outputs")
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error}")

    workers = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return faults


def batches(how: Any, layer: Any, inputs: Callable[[int], Any], count: int) -> Iterator[float]:
    """Resident memory after each quarter of so many sizes of batch through one layer."""
    run, planned = how.served(layer), getattr(layer, "embedding", getattr(layer, "embed", layer))
    whole = inputs(64)
    for quarter in range(4):
        with how.scope():
            for size in range(quarter * count // 4, (quarter + 1) * count // 4):
                run(whole[: 1 + size % 64])
                if hasattr(planned, "plans"):
                    planned.plans(1 + size)
        yield resident()


def layers(how: Any, make: Callable[[int], Any], inputs: Callable[[int], Any], count: int) -> Iterator[float]:
    """Resident memory after each quarter of so many layers, each made, called and dropped."""
    x = inputs(3)
    for quarter in range(4):
        for seed in range(count // 4):
            how.one_layer(make(1 + quarter * count + seed), x)
        yield resident()


def resident() -> float:
    """Resident memory in MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def contenders(framework: str, how: Any) -> Iterator[tuple[str, Any, Any, Any]]:
    """Name, maker by seed, reference of a layer, and maker of batches; the dense control first."""
    make, inputs = how.dense()
    yield "dense layer of the framework", make, lambda layer: layer, inputs
    for kind in import_module(f"contract.{framework}_uses").kinds():
        example = kind.make()

        def inputs_of(size: int, kind: Any = kind, example: Any = example) -> Any:
            return kind.inputs(example, size)

        yield kind.name, lambda seed, kind=kind: kind.make(seed=seed), kind.reference, inputs_of


def rows(framework: str, share: float, only: str, skip: Container[str]) -> Iterator[dict[str, Any]]:
    """One row of figures for every kind of layer; the control's always."""
    how = HOW[framework]()
    calls, sizes, count = (max(int(share * number), 8) for number in (CALLS, SIZES, LAYERS))
    control: list[float] = []
    for name, make, reference, inputs in contenders(framework, how):
        control_row = name.startswith("dense")
        if not control_row and (name in skip or (only and not name.startswith(tuple(only.split(","))))):
            continue
        layer = make(1)
        faults = called(how, layer, reference(layer), inputs, calls)
        memory = [list(batches(how, layer, inputs, sizes)), list(layers(how, make, inputs, count))]
        grown = [series[-1] - series[0] for series in memory]
        arrays = how.arrays(layer)
        control = control or [max(more, 0.0) for more in (grown[0], grown[1] / arrays)]
        limits = [control[0] + MEGABYTES, control[1] * arrays + MEGABYTES]
        yield {
            "backend": framework,
            "layer": name,
            "calls": calls,
            "threads": THREADS,
            "faults": len(faults),
            "kinds of faults": list(dict.fromkeys(faults))[:5],
            "sizes": sizes,
            "megabytes over sizes": memory[0],
            "layers": count,
            "megabytes over layers": memory[1],
            "arrays": arrays,
            "grew": any(more > limit for more, limit in zip(grown, limits, strict=True)),
        }


def main() -> None:
    """Print a line for every kind, each framework in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="Share of the full numbers, 0 to 1.")
    parser.add_argument("--only", default="", help="Kinds of layers, by name and separated by commas; all by default.")
    parser.add_argument("--framework", choices=FRAMEWORKS, help="One framework, in this process.")
    parser.add_argument("--json", type=Path, help="Write the figures into this file, after each row.")
    parser.add_argument("--skip", default="", help="Kinds of layers that are not called, separated by semicolons.")
    options = parser.parse_args()
    if options.framework:
        for row in rows(options.framework, options.share, options.only, options.skip.split(";")):
            print(json.dumps(row), flush=True)
        return
    found: list[dict[str, Any]] = []
    if options.json and options.json.exists():  # goes on where it stopped
        found = json.loads(options.json.read_text(encoding="utf-8"))["rows"]
    for framework in FRAMEWORKS:
        known = [row["layer"] for row in found if row["backend"] == framework]
        command = [sys.executable, __file__, "--framework", framework, "--share", str(options.share)]
        command += ["--only", options.only, "--skip", ";".join(known)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in process.stdout or ():
            if line.startswith("{") and (row := json.loads(line))["layer"] not in known:
                found.append(row)
                print(line_of(row), flush=True)
                if options.json:
                    options.json.write_text(json.dumps({"rows": found}, indent=1) + "\n", encoding="utf-8")
        if process.wait():
            sys.exit(f"{framework} ended with status {process.returncode}")
    sys.exit(any(row["faults"] or row["grew"] for row in found))


def line_of(row: dict[str, Any]) -> str:
    """A row of figures in words."""
    over = (
        f"MB over {row[name]} {name} {' '.join(f'{mb:.0f}' for mb in row[f'megabytes over {name}'])}"
        for name in ("sizes", "layers")
    )
    return f"{row['backend']} {row['layer']}: {row['calls']} calls, {row['faults']} faults; {'; '.join(over)}"


if __name__ == "__main__":
    main()
