"""Writes docs/paper.md to standard output from the folder of docs/paper.sh: ``paper.py RUNS``.

A part of the page appears if its files exist. An unfinished training is shown as far as it is.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

from mponet.training.loop import Record
from mponet.training.run import metrics

HEAD = """# The experiments of the paper, repeated

`docs/paper.sh` makes this page: it trains, then writes the tables below from the files of the
trainings. Everything ran on CPUs unless a table says otherwise. Accuracy is on the test set:
*best* over all evaluations, which is what the paper reports, and *last*."""
MNIST = """
## MNIST, preset `paper`

    mponet suite --preset paper --models fc2:2,fc2:4,fc2:8,fc2:16,fc2:22 --seeds 1

The recipe of the authors: 300 000 steps of 100 images (500 epochs), plain SGD, a learning rate
that falls by 0.99 per epoch, L2 on all parameters. If a bond is given, gradients are clipped to a
norm of 1, for the reason given below. Nothing else differs.
"""
FRAMEWORKS = """
## FC2 at bond 16 in every framework

    mponet run fc2 --variant mpo --bond 16 --data mnist --preset paper --backend BACKEND

Seed 0 in all frameworks, so the initial values and the batches are the same. Rounding makes the
trajectories separate, and the results differ by chance.
"""
BONDS = """
## Why FC2 is clipped

    python docs/small_bonds.py

"""
LENET_RUNS = """
## LeNet-5 on MNIST, preset `paper`

    mponet run lenet5 --variant VARIANT --data mnist --preset paper --backend tensorflow

The paper has 99.17% ± 0.04 for the dense network and 99.17% ± 0.08 for the mpo network (Table I).
The preset is the recipe of FC2 with gradients clipped to 1. The next section gives the reason.
"""
LENET = """
## Why LeNet-5 trains at the learning rate of FC2

    python docs/lenet5.py FOLDER

The text of the paper says "stochastic gradient descent with momentum". The authors' code has a
learning rate of 0.01 and no momentum. With these values neither variant comes near Table I, and
with a momentum of 0.9 both stay below it. The learning rate decides: ten times that of the code
with momentum, or that of FC2 without, reaches Table I in both variants.

"""
CIFAR = """
## CIFAR-10, preset `short`

    mponet suite --preset short --models NETWORK --seeds 1

The preset has 4 epochs where the authors have 325. Some trainings have fewer, as the notes under
the tables say. ResNet-20 has `k = 1` where two cores trained it, because the paper's 4 would take
sixteen times as long. The trainings on `cuda:0` used one NVIDIA H200, which was available for a
limited time. Both variants have the same seed, so the same batches, crops and mirrors.
"""


def course(folder: Path) -> tuple[dict[str, Any], str, list[Record]]:
    """Configuration, variant and records of a run folder with one variant."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (path,) = folder.glob(f"*/{metrics.NAME}")
    return config, path.parent.name, metrics.read(path)


def started(folders: list[Path]) -> str:
    """The frameworks and devices that trained, and the last steps of stopped trainings."""
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


def wrapped(text: str) -> str:
    """Text with lines of at most 100 columns; tables stay as they are."""
    lines = (line if line.startswith("|") else fill(line, 100, break_on_hyphens=False) for line in text.splitlines())
    return "\n".join(lines).rstrip()


def page(home: Path) -> Iterator[str]:
    """The page, line by line."""
    yield HEAD
    if (tables := home / "mnist" / "tables.md").exists():
        yield MNIST + "\n" + wrapped(tables.read_text(encoding="utf-8"))
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
                yield f"{wrapped(tables.read_text(encoding='utf-8'))}\n"
            folders = sorted(path.parent for path in network.glob("*/config.json"))
            yield from (f"{started(folders)}\n", *curves(folders), "")


if __name__ == "__main__":
    print("\n".join(page(Path(sys.argv[1]))))
