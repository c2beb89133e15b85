"""Writes docs/paper.md to standard output from what docs/paper.sh leaves in a folder: ``paper.py RUNS``.

A part of the page is there when its files are; a training that is not finished is shown as far as
it is.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mponet.training.loop import Record
from mponet.training.run import metrics

HEAD = """# The paper's experiments, repeated

`docs/paper.sh` makes this page: it trains, then writes the tables below from the files of the trainings.  All is on
CPUs but what says otherwise; accuracy is on the test set, *best* over all evaluations (which is what the paper reports)
and *last*."""
MNIST = """
## MNIST, preset `paper`

    mponet suite --preset paper --models fc2:2,fc2:4,fc2:8,fc2:16,fc2:22 --seeds 1

The authors' recipe: 300 000 steps of 100 images (500 epochs), plain SGD, 0.99 per epoch, L2 on everything.  Where a
bond is asked for, gradients are clipped to a norm of 1, for the reason given further down; nothing else differs.
"""
FRAMEWORKS = """
## FC2 at bond 16 on every framework

    mponet run fc2 --variant mpo --bond 16 --data mnist --preset paper --backend BACKEND

Seed 0, so the same start and the same batches; trajectories part by rounding, and their ends by what chance does.
"""
BONDS = """
## Why FC2 is clipped

    python docs/small_bonds.py

"""
LENET_RUNS = """
## LeNet-5 on MNIST, preset `paper`

    mponet run lenet5 --variant VARIANT --data mnist --preset paper --backend tensorflow

The paper has 99.17% ± 0.04 for the normal network and 99.17% ± 0.08 for the other (Table I).  The preset is the recipe
of FC2 with gradients clipped to 1; why, is below.
"""
LENET = """
## Why LeNet-5 trains at FC2's rate

    python docs/lenet5.py FOLDER

The paper's text says "stochastic gradient descent with momentum"; its code has a rate of 0.01 and no momentum.  With
that neither network comes near Table I, and with a momentum of 0.9 both stay below it.  What counts is the rate: at ten
times the code's with momentum, or at FC2's without, both reach it.

"""
CIFAR = """
## CIFAR-10, preset `short`

    mponet suite --preset short --models NETWORK --seeds 1

The preset has 4 epochs for the authors' 325; fewer where there was no time for more, which the notes under the tables
say.  ResNet-20 has `k = 1` where two cores trained it, because the paper's 4 would take sixteen times as long.  What
`cuda:0` trained was on one NVIDIA H200, for as long as there was one.  The same seed, so the same batches, crops and
mirrors for the normal network and the other.
"""


def course(folder: Path) -> tuple[dict[str, Any], str, list[Record]]:
    """Configuration, variant and records of a run folder with one variant."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (path,) = folder.glob(f"*/{metrics.NAME}")
    return config, path.parent.name, metrics.read(path)


def started(folders: list[Path]) -> str:
    """What trained, and how far, if it was stopped."""
    configs = [course(folder)[0] for folder in folders]
    where = {
        f"{one['backend']} {one['versions'][one['backend']]}, {one['device']}" for c in configs for one in c["starts"]
    }
    ends = [
        (course(folder)[2][-1].step, config["settings"]["recipe"]["steps"])
        for folder, config in zip(folders, configs, strict=True)
    ]
    stopped = [f"{done} of {steps} steps" for done, steps in ends if done < steps]
    return f"Trained by {' and '.join(sorted(where))}{'; stopped after ' + ' and '.join(stopped) if stopped else ''}."


def accuracies(records: list[Record]) -> list[Record]:
    """The records at which the test set was measured."""
    return [record for record in records if record.accuracy is not None]


def run_rows(folders: list[Path]) -> Iterator[str]:
    """A table of run folders."""
    yield "| network | variant | bond | framework | rate | momentum | clip | epochs | best | last |"
    yield "|---|---|---:|---|---:|---:|---:|---:|---:|---:|"
    for folder in folders:
        config, variant, records = course(folder)
        settings, recipe = config["settings"], config["settings"]["recipe"]
        measured = accuracies(records)
        cells = [settings["model"], variant, settings["bond"] or "published", config["starts"][-1]["backend"]]
        cells += [recipe["learning_rate"], recipe["momentum"], recipe.get("clip", 0.0), f"{measured[-1].epoch:.0f}"]
        cells += [f"{max(r.accuracy or 0.0 for r in measured):.2%}", f"{measured[-1].accuracy:.2%}"]
        yield f"| {' | '.join(map(str, cells))} |"


def curves(folders: list[Path]) -> Iterator[str]:
    """Test accuracy and training loss by epoch, a column pair for each folder."""
    found = {folder.name: accuracies(course(folder)[2]) for folder in folders}
    yield "| epoch | " + " | ".join(f"{name}: accuracy | loss" for name in found) + " |"
    yield "|---:|" + "---:|---:|" * len(found)
    for row in zip(*found.values(), strict=False):
        yield f"| {row[0].epoch:g} | " + " | ".join(f"{r.accuracy:.2%} | {r.loss:.3f}" for r in row) + " |"


def page(home: Path) -> Iterator[str]:
    """The page, line by line."""
    yield HEAD
    if (tables := home / "mnist" / "tables.md").exists():
        yield MNIST + "\n" + tables.read_text(encoding="utf-8").rstrip()
    if folders := sorted(path.parent for path in (home / "frameworks").glob("*/config.json")):
        yield FRAMEWORKS
        yield from run_rows(folders)
    if (tables := home / "small_bonds.md").exists():
        yield BONDS + tables.read_text(encoding="utf-8").rstrip()
    if folders := sorted(path.parent for path in (home / "lenet5-full").glob("*/config.json")):
        yield LENET_RUNS
        yield from run_rows(folders)
    if (tables := home / "lenet5.md").exists():
        yield LENET + tables.read_text(encoding="utf-8").rstrip()
    if networks := sorted({path.parents[1] for path in (home / "cifar10").glob("*/*/config.json")}):
        yield CIFAR
        for network in networks:
            yield f"### {network.name}\n"
            if (tables := network / "tables.md").exists():
                yield f"{tables.read_text(encoding='utf-8').rstrip()}\n"
            folders = sorted(path.parent for path in network.glob("*/config.json"))
            yield from (f"{started(folders)}\n", *curves(folders), "")


if __name__ == "__main__":
    print("\n".join(page(Path(sys.argv[1]))))
