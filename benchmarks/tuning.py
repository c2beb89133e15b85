"""How well the cost model predicts, with the built-in constants and with those of `mponet tune`.

    python benchmarks/tuning.py --backend torch --json docs/measured/tuning-torch.json

Measures the constants as `mponet tune` does, without keeping them.  Then the passes of 50 layers at
random (one to four sites, 64 to 2048 features, batches of 1 to 1024) are timed by plans at random,
and compared with what the model predicts: the rank correlation (Spearman's), and the typical factor
between a predicted and a measured time.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import mponet
from mponet.contraction.calibrate import Sample, off, tune
from mponet.contraction.cost import Purpose, predict
from mponet.contraction.machine import Machine
from mponet.contraction.planner import timed
from mponet.contraction.search import ranked
from mponet.operators.factors import factorize
from mponet.operators.shape import MPOShape

COUNT = 50
PURPOSES: tuple[Purpose, ...] = ("forward", "training")


def samples(count: int, machine: Machine, seed: int = 0) -> Iterator[Sample]:
    """Layers, batches and passes at random, by one of the six best plans or any other."""
    choose = random.Random(seed)
    for number in range(count):
        sites = choose.randint(1, 4)
        sizes = [1 << choose.randint(6, 11) for _ in range(2)]
        factors = [factorize(size, sites) for size in sizes]
        shape = MPOShape.from_factors(*factors, choose.choice((2, 4, 8, 16, 32)))
        batch, purpose = 1 << choose.randint(0, 10), choose.choice(PURPOSES)
        plans = ranked(shape, batch, purpose=purpose, machine=machine, top=6 if number % 2 else 60)
        yield Sample(choose.choice(plans), batch, purpose)


def ranks(values: Sequence[float]) -> Any:
    """Ranks of numbers that differ."""
    return np.argsort(np.argsort(values))


def verdict(chosen: Sequence[Sample], seconds: Sequence[float], machine: Machine) -> dict[str, float]:
    """How well these constants predict the times."""
    predicted = [predict(one.plan, one.batch, purpose=one.purpose, machine=machine) for one in chosen]
    correlation = float(np.corrcoef(ranks(predicted), ranks(seconds))[0, 1])
    return {"rank correlation": correlation, "typical factor": off(chosen, seconds, machine)}


def main() -> None:
    """Measure, and print both verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default=None, help="Framework; the default one if not given.")
    parser.add_argument("--json", type=Path, help="Write the figures into this file.")
    options = parser.parse_args()
    backend = mponet.load(options.backend)
    context = backend.planner
    start = context.machine("float32")
    began = perf_counter()
    tuning = tune(context.runner, start)
    took = perf_counter() - began
    chosen = list(samples(COUNT, start))
    seconds = [timed([s.plan], s.batch, s.purpose, "float32", context.runner)[s.plan] for s in chosen]
    found = {
        name: verdict(chosen, seconds, machine) for name, machine in (("built-in", start), ("tuned", tuning.machine))
    }
    print(f"{backend.name}: tuning took {took:.1f} s")
    for name, numbers in found.items():
        words = ", ".join(f"{key} {number:.3f}" for key, number in numbers.items())
        print(f"  {name} constants, {COUNT} layers at random: {words}")
    if options.json:
        rows = [
            {"shape": str(s.plan.shape), "batch": s.batch, "purpose": s.purpose, "plan": str(s.plan), "seconds": t}
            for s, t in zip(chosen, seconds, strict=True)
        ]
        content = {"backend": backend.name, "seconds of tuning": took, **found, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
