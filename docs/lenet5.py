"""How LeNet-5's accuracy depends on how it is trained: as in the authors' code, and by other rates and momentums.

Usage: ``python docs/lenet5.py [EPOCHS]`` (12 if left out) with MPONET_DATA naming the folder of MNIST.  Each cell is
the test accuracy after the first epochs of a recipe of 500.
"""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from small_bonds import EPOCH, SEEDS, cell

import mponet
from mponet.data import load
from mponet.recipe import PRESETS
from mponet.run import Settings, run

VARIANTS = {"dense": "normal", "mpo": "MPO"}
CODE = PRESETS["lenet5"]["code"]
TRIED = {
    "rate 0.01, plain, as the code": CODE,
    "rate 0.01, momentum 0.9, as the text": PRESETS["lenet5"]["paper"],
    "rate 0.1, plain": replace(CODE, learning_rate=0.1),
    "rate 0.1, momentum 0.9, clipped to 1": replace(CODE, learning_rate=0.1, momentum=0.9, clip=1.0),
    "rate 0.8, plain, clipped to 1": replace(CODE, learning_rate=0.8, clip=1.0),
}


def main(epochs: int) -> None:
    """Run all cells and print the table as it goes."""
    backend, dataset = mponet.load(), load("mnist")
    print(f"LeNet-5, {backend.name}, {epochs} epochs, seeds {', '.join(map(str, SEEDS))}\n")
    print(f"| | {' | '.join(VARIANTS.values())} |\n|---|{'---|' * len(VARIANTS)}")
    for words, tried in TRIED.items():
        recipe = replace(tried, steps=epochs * EPOCH, evaluate_every=EPOCH)
        found: dict[str, list[str]] = {variant: [] for variant in VARIANTS}
        for seed in SEEDS:
            with TemporaryDirectory() as folder:
                settings = Settings("lenet5", None, "mnist", recipe, seed)
                results = run(settings, backend, dataset, Path(folder), variants=tuple(VARIANTS))
            for variant, result in results.items():
                found[variant].append(cell(result))
        print(f"| {words} | {' | '.join(', '.join(cells) for cells in found.values())} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
