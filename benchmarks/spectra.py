"""Compare the time to measure spectra with the time of training between two measurements.

    python benchmarks/spectra.py --backend torch --models fc2:16,lenet5

A training measures its operators at every evaluation (`mponet.training.run.spectra`).  Here:
processor time of one measurement, writing included, of one training step, and of the evaluations'
interval, as many steps as the recipe has between two.
"""

import argparse
import json
from collections.abc import Callable
from statistics import median
from tempfile import TemporaryFile
from time import process_time
from typing import Any

import numpy as np

from mponet.backend import choose, load
from mponet.models import build, family
from mponet.models.dropout import dropout_layers, sample_masks
from mponet.models.init import start
from mponet.recipe import preset
from mponet.training.loop import evaluation_interval
from mponet.training.run import spectra
from mponet.training.run.lines import line
from mponet.training.run.settings import PUBLISHED

MODELS = "fc2:4,fc2:16,fc2:22,lenet5,vgg16,resnet20-k1,densenet40-12"
WARM_UP = 3  # steps, which compile


def seconds(call: Callable[[], Any], rounds: int) -> float:
    """Median processor time of a call."""
    times = []
    for _ in range(rounds):
        began = process_time()
        call()
        times.append(process_time() - began)
    return median(times)


def measured(entry: str, backend: str, rounds: int) -> dict[str, Any]:
    """One row of the table, as numbers."""
    name, _, bond = entry.partition(":")
    model = build(name, "mpo", int(bond) if bond else None)
    recipe, images = preset(name, "paper", model.bond), PUBLISHED[family(name).data]
    parameters = {key: value.astype(np.float32) for key, value in start(model, 0).items()}
    with TemporaryFile("w") as stream:
        once = seconds(lambda: stream.write(line(spectra.measure(model, parameters, 0, 0.0).as_dict())), 10 * rounds)
    adapter, rng = load(backend), np.random.default_rng(0)
    trainer = adapter.trainer(adapter.build(model, parameters), recipe)
    batch = rng.normal(size=(recipe.batch, *model.input_shape)).astype(np.float32), rng.integers(0, 10, recipe.batch)
    masks = sample_masks(dropout_layers(model), recipe.batch, 0, 0)

    def step() -> None:
        float(trainer.step(*batch, 1e-4, masks=masks))

    for _ in range(WARM_UP):
        step()
    interval = evaluation_interval(recipe, images // recipe.batch)
    row = {"network": entry, "measurement": once, "step": seconds(step, rounds), "interval": interval}
    return {**row, "share": once / (interval * row["step"])}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", help="torch, jax or tensorflow; else MPONET_BACKEND, else the first installed")
    parser.add_argument("--models", default=MODELS, help="NAME[:BOND],...")
    parser.add_argument("--rounds", type=int, default=5, help="steps that are timed, and a tenth of the measurements")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    asked = parser.parse_args()
    backend = choose(asked.backend).name
    rows = [measured(entry, backend, asked.rounds) for entry in asked.models.split(",")]
    if asked.json:
        print(json.dumps({"backend": backend, "rows": rows}, indent=2))
        return
    print(f"{backend}\n{'network':<16}{'measurement':>12}{'step':>12}{'steps between':>15}{'share':>10}")
    for row in rows:
        times = f"{1e3 * row['measurement']:>9.2f} ms{1e3 * row['step']:>9.1f} ms"
        print(f"{row['network']:<16}{times}{row['interval']:>15}{row['share']:>10.4%}")


if __name__ == "__main__":
    main()
