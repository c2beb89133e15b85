"""This checkout against another: time of a training step, and of reading a suite of 100 cells.

Both are measured by the command line, side by side, round by round; the least time of each command
counts.  A step is the difference of two lengths of one training.  Reading is the whole command of a
finished suite that is given again, Python's start included.
Run from the root of the repository, with the root of the other checkout::

    git worktree add ../before COMMIT
    python benchmarks/against.py ../before --json docs/measured/against.json
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from mponet.files import write_json

HERE = Path(__file__).resolve().parents[1]
STEPS, SEEDS = (200, 3200), 50


def seconds(tree, *words):
    """Wall time of a command of a checkout."""
    path = os.pathsep.join(map(str, (tree, tree / "backends")))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    # An installed package has its byte code beside it.
    environment = {key: value for key, value in environment.items() if key != "PYTHONDONTWRITEBYTECODE"}
    began = perf_counter()
    command = [sys.executable, "-m", "mponet", *map(str, words), "--data", "digits", "--backend", "torch"]
    subprocess.run(command, env=environment, cwd=tree, check=True, capture_output=True)
    return perf_counter() - began


def commands(folder, number):
    """The commands of a round by name: two lengths of a run, and a finished suite."""
    made = {
        f"run {count}": ("run", "fc2", "--bond", 4, "--steps", count, "--out", folder / f"run-{number}-{count}")
        for count in STEPS
    }
    return made | {f"suite {SEEDS}": suite(folder)}


def suite(folder):
    """A suite of two cells for each seed."""
    return "suite", "--models", "fc2:2", "--steps", 1, "--seeds", SEEDS, "--out", folder / "suite"


def figures(least):
    """Milliseconds of a step, and of giving a finished suite again, from the least times."""
    return {
        "step": 1000 * (least[f"run {STEPS[1]}"] - least[f"run {STEPS[0]}"]) / (STEPS[1] - STEPS[0]),
        "reading": 1000 * least[f"suite {SEEDS}"],
    }


def main():
    """Print the figures of both checkouts and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="root of the other checkout")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file of the figures")
    options = parser.parse_args()
    trees = {"this": HERE, "other": options.other.resolve()}
    least = {name: {} for name in trees}
    with TemporaryDirectory() as top:
        folders = {name: Path(top) / name for name in trees}
        for name, folder in folders.items():
            folder.mkdir()
            seconds(trees[name], *suite(folder))  # trains it; the rounds below read it
        for number in range(options.rounds):
            for key in commands(folders["this"], number):
                for name in sorted(trees, reverse=number % 2 == 1):
                    taken = seconds(trees[name], *commands(folders[name], number)[key])
                    least[name][key] = min(taken, least[name].get(key, taken))
    found = {name: figures(times) for name, times in least.items()}
    for measure in found["this"]:
        this, other = (found[name][measure] for name in ("this", "other"))
        print(f"{measure}: this {this:.2f} ms, other {other:.2f} ms, ratio {this / other:.3f}")
    if options.json:
        write_json(options.json, {"rounds": options.rounds, "seconds": least, **found})


if __name__ == "__main__":
    main()
