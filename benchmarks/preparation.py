"""Measure the time to make a batch, and how long training steps wait for batches.

    python benchmarks/preparation.py --backend torch --models fc2,resnet20-k1,resnet20,vgg16 --steps
    20

Batches are those of the preset ``paper`` (CIFAR-10: crops, mirrors, per-pixel normalisation,
dropout masks), of random pixels of the right shape, since no network is needed for that.  *make* is
the median time to make one alone; *step* the median time from one step to the next with the batches
made ahead; *wait* the share of it in which the step stood still for want of a batch.
"""

import argparse
import statistics
from time import perf_counter

import numpy as np

from mponet.backend import choose, load
from mponet.models import build
from mponet.models.init import start
from mponet.recipe import preset
from mponet.training.data import Arrays, Dataset, batches
from mponet.training.data.stream import generate_batches

IMAGES = 10_000
ALONE = 30  # batches made without a step
WARM_UP = 3


def pixels(shape: tuple[int, int, int]) -> Dataset:
    """Random images, as many as matter."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (IMAGES, *shape), dtype=np.uint8), rng.integers(0, 10, IMAGES)
    return Dataset("noise", images, labels, images[:10], labels[:10], tuple("abcdefghij"), "random")


def measure(backend_name: str, name: str, steps: int) -> tuple[float, float, float]:
    """Milliseconds to make a batch and of a step, and the share that it waits."""
    model, recipe = build(name, "dense"), preset(name, "paper")
    arrays = Arrays.of(pixels(model.input_shape), model.input_shape, recipe)
    alone = []
    stream = generate_batches(arrays, model, recipe, seed=0)
    for _ in range(ALONE):
        began = perf_counter()
        next(stream)
        alone.append(perf_counter() - began)
    backend = load(backend_name)
    trainer = backend.trainer(backend.build(model, start(model, 0)), recipe)
    stream = batches(arrays, model, recipe, seed=0)
    waits, whole = [], []
    for step in range(WARM_UP + steps):
        began = perf_counter()
        batch = next(stream)
        waited = perf_counter() - began
        float(trainer.step(batch.images, batch.labels, 1e-4, masks=batch.masks, share=0.5))
        if step >= WARM_UP:
            waits.append(waited)
            whole.append(perf_counter() - began)
    return 1e3 * statistics.median(alone), 1e3 * statistics.median(whole), sum(waits) / sum(whole)


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", help="torch, jax or tensorflow; else as MPONET_BACKEND says")
    parser.add_argument("--models", default="fc2,resnet20-k1,resnet20,vgg16", help="separated by commas")
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    backend = choose(asked.backend).name
    print(f"{backend}, batches of 100\n{'model':<15}{'make ms':>9}{'step ms':>9}{'wait':>8}")
    for name in asked.models.split(","):
        make, step, wait = measure(backend, name, asked.steps)
        print(f"{name:<15}{make:>9.2f}{step:>9.1f}{wait:>8.2%}", flush=True)


if __name__ == "__main__":
    main()
