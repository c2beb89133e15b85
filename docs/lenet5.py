"""The accuracy of LeNet-5 with the authors' recipe, with momentum, and with higher rates.

Usage: ``python docs/lenet5.py FOLDER``, where MPONET_DATA names the folder of MNIST.  Unfinished
trainings in FOLDER are continued.  Each cell is the best test accuracy, as in the paper.  The
recipes have 20 epochs instead of 500; the learning rate falls to the same end, 25 times as fast.
"""

import sys
from dataclasses import replace
from pathlib import Path

import mponet
from mponet.recipe import CLIP, EPOCH, PRESETS
from mponet.training.data import load
from mponet.training.run import Settings, metrics, run

VARIANTS = ("dense", "mpo")
SEEDS = (0, 1)
FASTER = 25
CODE = PRESETS["lenet5"]["code"]
TRIED = {
    "rate 0.01, as in the code": CODE,
    "rate 0.01, momentum 0.9": replace(CODE, momentum=0.9),
    f"rate 0.1, momentum 0.9, clipped to {CLIP:g}": replace(CODE, learning_rate=0.1, momentum=0.9, clip=CLIP),
    f"rate 0.8, as FC2, clipped to {CLIP:g}": PRESETS["lenet5"]["paper"],
}


def best(folder: Path) -> str:
    """The best accuracy of a training, as a cell."""
    found = [record.accuracy for record in metrics.read(folder / metrics.NAME) if record.accuracy is not None]
    return f"{max(found):.2%}" if found else "none"


def main(home: Path) -> None:
    """Run all cells and print the table as it goes."""
    backend, dataset = mponet.load(), load("mnist")
    print(f"LeNet-5, {backend.name}, {CODE.steps // FASTER // EPOCH} epochs, seeds {', '.join(map(str, SEEDS))}\n")
    print(f"| | {' | '.join(VARIANTS)} |\n|---|{'---|' * len(VARIANTS)}")
    for number, (words, tried) in enumerate(TRIED.items()):
        recipe = replace(
            tried, steps=tried.steps // FASTER, decay_steps=tried.decay_steps // FASTER, evaluate_every=EPOCH
        )
        found: dict[str, list[str]] = {variant: [] for variant in VARIANTS}
        for seed in SEEDS:
            folder = home / f"{number}-seed{seed}"
            run(
                Settings("lenet5", None, "mnist", recipe, seed),
                backend,
                dataset,
                folder,
                variants=VARIANTS,
                resume=folder.exists(),
            )
            for variant, cells in found.items():
                cells.append(best(folder / variant))
        print(f"| {words} | {' | '.join(', '.join(cells) for cells in found.values())} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
