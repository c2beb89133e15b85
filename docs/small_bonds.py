"""Train FC2 with small bonds at the published learning rate of 0.8, with and without clipping.

Usage: ``python docs/small_bonds.py [EPOCHS]`` (12 if left out) with MPONET_DATA naming the folder
of MNIST.  Each cell is the preset ``paper`` but for one change, run for its first epochs; an
accuracy is the last one on the test set.
"""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import mponet
from mponet.recipe import CLIP, PRESETS, Recipe
from mponet.training.data import load
from mponet.training.run import Result, Settings, run

BONDS = (2, 4, 8, 16, 22)
SEEDS = (0, 1)
PAPER = PRESETS["fc2"]["paper"]
EPOCH = PAPER.decay_steps


def changes(epochs: int) -> dict[str, Recipe]:
    """What is tried, by what the table calls it; a recipe keeps its schedule and stops early."""
    short = replace(PAPER, steps=epochs * EPOCH, evaluate_every=EPOCH)
    return {
        "as published": short,
        "warm-up over half of these epochs": replace(short, warm_up=0.5),
        "exact variance": replace(short, initializer="exact"),
        "rate 0.4": replace(short, learning_rate=0.4),
        f"clipped to {CLIP:g}": replace(short, clip=CLIP),
    }


def cell(result: Result) -> str:
    """An accuracy, or the step that was the last."""
    return f"diverged at {result.steps}" if result.accuracy is None else f"{result.accuracy:.2%}"


def main(epochs: int) -> None:
    """Run all cells and print the table as it goes."""
    backend, dataset, tried = mponet.load(), load("mnist"), changes(epochs)
    print(f"FC2, MPO, {backend.name}, {epochs} epochs, seeds {', '.join(map(str, SEEDS))}\n")
    print("| bond | " + " | ".join(tried) + " |\n|---|" + "---|" * len(tried))
    for bond in BONDS:
        cells = []
        for recipe in tried.values():
            outcomes = []
            for seed in SEEDS:
                with TemporaryDirectory() as folder:
                    settings = Settings("fc2", bond, "mnist", recipe, seed)
                    outcomes.append(run(settings, backend, dataset, Path(folder), variants=("mpo",))["mpo"])
            cells.append(", ".join(map(cell, outcomes)))
        print(f"| {bond} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
