"""Compare lowered dense networks with the same networks written by hand.

    python benchmarks/plumbing.py --backends torch,jax,tensorflow --models
    vgg16,resnet20,densenet40-12 --batch 16

Both train by Nesterov momentum 0.9 with L2 on everything, on the same batch, in one process, a step
of one after a step of the other: plain, lowered, lowered, plain.  Random masks of dropouts are part
of the lowered step.  On a machine with other work, the ratio of processor times is the steadiest.

Each `plain_<backend>.py` has a function ``trainer(name)``: a callable ``step(images, labels)`` that
gives the loss and has the number of its network's ``parameters``.  Memory is what training adds to
a process that has loaded the framework and the data; each network has a process of its own.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from itertools import count
from math import isfinite
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from mponet.backend import TRAINABLE, load
from mponet.models import build
from mponet.models.dropout import dropout_layers, sample_masks
from mponet.models.init import start
from mponet.models.shapes import parameter_count
from mponet.recipe import Recipe

MODELS = ("vgg16", "resnet20", "densenet40-12")
WARM_UP = 3  # steps before the clock starts: compilers, allocators, caches
ROUND = ("plain", "lowered", "lowered", "plain")
RATE = 1e-3  # takes as long as any other, and nothing diverges, from whatever start
Step = Callable[[Any, Any], Any]


def plain(backend: str, name: str) -> Step:
    """The step of the network written by hand.

    Raises:
        SystemExit: it has other parameters than the lowered one, so the comparison would mean
            nothing.
    """
    step: Step = import_module(f"plain_{backend}").trainer(name)
    ours, theirs = parameter_count(build(name, "dense")), getattr(step, "parameters", None)
    if theirs != ours:
        raise SystemExit(
            f"plain_{backend}.trainer({name!r}).parameters is {theirs}; expected {ours}, as many as mponet's {name} has"
        )
    return step


def lowered(backend: str, name: str, batch: int) -> Step:
    """The step of the lowered network, masks of dropouts drawn as in a training run."""
    model, adapter = build(name, "dense"), load(backend)
    recipe = Recipe("plumbing", 1, batch, RATE, momentum=0.9, nesterov=True, weight_decay=2e-4)
    trainer = adapter.trainer(adapter.build(model, start(model, 0)), recipe)
    numbers, dropouts = count(), dropout_layers(model)
    return lambda images, labels: trainer.step(
        images, labels, RATE, masks=sample_masks(dropouts, batch, 0, next(numbers))
    )


def examples(batch: int) -> tuple[Any, Any]:
    """Images like normalised CIFAR-10, and labels."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, 32, 32, 3)).astype(np.float32), rng.integers(0, 10, batch)


def finish(step: Step, images: Any, labels: Any) -> float:
    """The loss of one step, read, so that nothing is left to be computed.

    Raises:
        SystemExit: it is not finite.
    """
    loss = float(step(images, labels))
    if not isfinite(loss):
        raise SystemExit(f"the loss is {loss}; expected a finite number; what is not a number takes no honest time")
    return loss


def times(backend: str, name: str, batch: int, rounds: int) -> dict[str, Any]:
    """Seconds of each step by the clock and of the processor, by network, and where it was."""
    images, labels = examples(batch)
    steps = {"plain": plain(backend, name), "lowered": lowered(backend, name, batch)}
    for step in steps.values():
        for _ in range(WARM_UP):
            finish(step, images, labels)
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    processor: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(rounds):
        for kind in ROUND:
            began, used = perf_counter(), process_time()
            finish(steps[kind], images, labels)
            seconds[kind].append(perf_counter() - began)
            processor[kind].append(process_time() - used)
    adapter = load(backend)
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "versions": adapter.versions(),
        "device": adapter.devices()[0],
    }


def memory(backend: str, name: str, batch: int, kind: str) -> int:
    """Bytes that a few steps of one network add at their peak."""
    images, labels = examples(batch)
    load(backend)
    import_module(f"plain_{backend}")
    before = peak(backend)
    step = plain(backend, name) if kind == "plain" else lowered(backend, name, batch)
    for _ in range(WARM_UP):
        finish(step, images, labels)
    return peak(backend) - before


def peak(backend: str) -> int:
    """Peak memory so far in bytes: of the accelerator if there is one, else of the process."""
    return _peak_of_device(backend) or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _unit_of_maxrss()


def _peak_of_device(backend: str) -> int:
    if not load(backend).devices()[0].startswith(("cuda", "gpu")):
        return 0
    framework: Any = import_module(backend)
    if backend == "torch":
        return int(framework.cuda.max_memory_allocated())
    if backend == "jax":
        return int(framework.devices()[0].memory_stats()["peak_bytes_in_use"])
    return int(framework.config.experimental.get_memory_info("GPU:0")["peak"])


def _unit_of_maxrss() -> int:
    return 1 if sys.platform == "darwin" else 1024


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def compare(backend: str, name: str, batch: int, rounds: int) -> dict[str, Any]:
    """One row of the table, as numbers."""
    found = alone(times, backend, name, batch, rounds)
    row = {"backend": backend, "model": name, "batch": batch, "rounds": rounds, **found}
    row["parameters"] = parameter_count(build(name, "dense"))
    row["memory"] = {kind: alone(memory, backend, name, batch, kind) for kind in ("plain", "lowered")}
    seconds = found["seconds"]
    row["ratio"] = statistics.median(seconds["lowered"]) / statistics.median(seconds["plain"])
    row["ratio_of_minima"] = min(seconds["lowered"]) / min(seconds["plain"])
    used = found["processor_seconds"]
    row["ratio_of_processor"] = statistics.median(used["lowered"]) / statistics.median(used["plain"])
    row["images_per_second"] = {kind: batch / statistics.median(values) for kind, values in seconds.items()}
    row["spread"] = {kind: spread(values) for kind, values in seconds.items()}
    return row


def spread(values: list[float]) -> float:
    """Interquartile range over the median: the noise of the machine."""
    first, median, third = statistics.quantiles(values, n=4)
    return (third - first) / median


HEAD = (
    f"{'backend':<11}{'model':<15}{'parameters':>11}{'ratio':>8}{'of min':>8}{'of cpu':>8}"
    f"{'images/s plain':>16}{'lowered':>9}{'spread plain':>14}{'lowered':>9}{'MB plain':>10}{'lowered':>9}"
)


def line(row: dict[str, Any]) -> str:
    """One row of the table, for people."""
    speed, noise, used = row["images_per_second"], row["spread"], row["memory"]
    return (
        f"{row['backend']:<11}{row['model']:<15}{row['parameters']:>11}{row['ratio']:>8.3f}"
        f"{row['ratio_of_minima']:>8.3f}{row['ratio_of_processor']:>8.3f}{speed['plain']:>16.1f}{speed['lowered']:>9.1f}{noise['plain']:>14.1%}"
        f"{noise['lowered']:>9.1%}{used['plain'] / 1e6:>10.0f}{used['lowered'] / 1e6:>9.0f}"
    )


def where(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Versions and devices."""
    yield f"python {platform.python_version()}, numpy {np.__version__}, {multiprocessing.cpu_count()} cores"
    for row in {row["backend"]: row for row in rows}.values():
        versions = ", ".join(f"{package} {version}" for package, version in row["versions"].items())
        yield f"{row['backend']}: {versions} on {row['device']}"


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backends", default=",".join(TRAINABLE), help="separated by commas")
    parser.add_argument("--models", default=",".join(MODELS), help=f"of {', '.join(MODELS)}, separated by commas")
    parser.add_argument("--batch", type=int, default=16, help="images per step")
    parser.add_argument("--rounds", type=int, default=15, help="of four steps, two of each network")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    asked = parser.parse_args()
    for option, given, known in (("backends", asked.backends, TRAINABLE), ("models", asked.models, MODELS)):
        if unknown := sorted(set(given.split(",")) - set(known)):
            parser.error(f"--{option} names {', '.join(unknown)}; expected some of {', '.join(known)}")
    return asked


def main() -> None:
    """Measure, print, and write if asked."""
    asked = arguments()
    print(HEAD, flush=True)
    rows = []
    for backend in asked.backends.split(","):
        for name in asked.models.split(","):
            rows.append(compare(backend, name, asked.batch, asked.rounds))
            print(line(rows[-1]), flush=True)
    print(*where(rows), sep="\n")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
