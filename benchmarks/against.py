"""This checkout against another: time of a training step, and of reading a suite of 100 cells.

Both are measured by the command line, side by side, round by round.  A step is the difference of
two lengths of one training, reading is a finished suite that is given again, less one of two cells.
Run from the root of the repository, with the root of the other checkout::

    git worktree add ../before COMMIT
    python benchmarks/against.py ../before --json docs/measured/against.json
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from mponet.files import write_json

HERE = Path(__file__).resolve().parents[1]
STEPS, CELLS = (200, 3200), (1, 50)


def seconds(tree, *words):
    """Wall time of a command of a checkout."""
    path = os.pathsep.join(map(str, (tree, tree / "backends")))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    began = perf_counter()
    command = [sys.executable, "-m", "mponet", *map(str, words), "--data", "digits", "--backend", "torch"]
    subprocess.run(command, env=environment, cwd=tree, check=True, capture_output=True)
    return perf_counter() - began


def step(tree, folder, number):
    """Milliseconds of a step of FC2, both variants together."""
    times = [
        seconds(tree, "run", "fc2", "--bond", 4, "--steps", count, "--out", folder / f"run-{number}-{count}")
        for count in STEPS
    ]
    return 1000 * (times[1] - times[0]) / (STEPS[1] - STEPS[0])


def reading(tree, folder, number):
    """Milliseconds of reading 98 finished cells."""
    times = []
    for seeds in CELLS:
        words = ("suite", "--models", "fc2:2", "--steps", 1, "--seeds", seeds, "--out", folder / f"suite-{seeds}")
        if number == 0:
            seconds(tree, *words)
        times.append(seconds(tree, *words))
    return 1000 * (times[1] - times[0])


def main():
    """Print medians of both checkouts and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="root of the other checkout")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file of the figures")
    options = parser.parse_args()
    trees = {"this": HERE, "other": options.other.resolve()}
    found = {measure: {name: [] for name in trees} for measure in ("step", "reading")}
    with TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for measure, function in (("step", step), ("reading", reading)):
                for name in sorted(trees, reverse=number % 2 == 1):
                    (own := Path(folder) / name).mkdir(exist_ok=True)
                    found[measure][name].append(function(trees[name], own, number))
    medians = {
        measure: {name: median(values) for name, values in rows.items()}
        | {"ratio": median(a / b for a, b in zip(rows["this"], rows["other"], strict=True))}
        for measure, rows in found.items()
    }
    for measure, row in medians.items():
        print(f"{measure}: this {row['this']:.2f} ms, other {row['other']:.2f} ms, median of ratios {row['ratio']:.3f}")
    if options.json:
        write_json(options.json, {"rounds": options.rounds, **medians})


if __name__ == "__main__":
    main()
