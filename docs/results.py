"""Writes docs/results.md from the folder of docs/results.sh: ``results.py RUNS``."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODELS = {"fc2": "FC2", "lenet5": "LeNet-5"}
BACKENDS = ("torch", "jax", "tensorflow")
QUANTITIES = ("forward", "loss", "gradients", "sgd", "momentum", "nesterov")
HEAD = """# Results

`docs/results.sh` makes this page. The tables come from the files that its commands write.

## MNIST, preset `short`

    mponet run MODEL --variant both --data mnist --preset short --backend BACKEND

Epochs of 600 steps (FC2: 15; LeNet-5: 10), seed 0, the published bonds (FC2: 16; LeNet-5: 4, 4,
2). Accuracy on the 10 000 test images, of the last epoch and of the best one. Biases count in
*parameters* but not in rho (Eq. 9 of the paper). *Ratio* is the number of parameters over that of
the dense variant. *Step* is the time of a training step of the mpo variant over that of the dense
variant, in the same run of the same framework on two CPU cores; it is noisy.

| network | framework | variant | last | best | parameters | rho | ratio | step |
|---|---|---|---|---|---|---|---|---|"""
MOVED = """
## One checkpoint, every framework

    mponet evaluate RUN --backend BACKEND

Test accuracy of the networks above. One framework trained each network, all frameworks evaluate
it.

| network | variant | trained by | torch | jax | tensorflow |
|---|---|---|---|---|---|"""
AGREE = """
## Agreement of the frameworks

    mponet crosscheck MODEL --variant both --dtype DTYPE

The worst error over all pairs of frameworks, and of the NumPy reference for forward and loss, and
its bound. [Numerics](numerics.md) explains them.

| network | variant | dtype | """


def training(runs: Path) -> Iterator[str]:
    """Rows of the first table."""
    for model, title in MODELS.items():
        for backend in BACKENDS:
            found = read(runs / f"{model}-{backend}" / "result.json")["variants"]
            ratio = found["mpo"]["step_ms"] / found["dense"]["step_ms"]
            for variant, row in found.items():
                rho = "" if row["rho"] is None else f"{row['rho']:.4f}"
                step = f"{ratio:.2f}" if variant == "mpo" else "1"
                yield (
                    f"| {title} | {backend} | {variant} | {row['accuracy']:.2%} | {row['best_accuracy']:.2%} "
                    f"| {row['parameters']:,} | {rho} | {row['parameter_ratio']:.4f} | {step} |"
                )


def moved(runs: Path) -> Iterator[str]:
    """Rows of the second table."""
    for model, title in MODELS.items():
        for backend in BACKENDS:
            run = runs / f"{model}-{backend}"
            files = [read(run / f"evaluated-{other}.json")["checkpoints"] for other in BACKENDS]
            for rows in zip(*files, strict=True):
                cells = " | ".join(f"{row['accuracy']:.2%}" for row in rows)
                yield f"| {title} | {rows[0]['variant']} | {backend} | {cells} |"


def agreement(runs: Path) -> Iterator[str]:
    """Rows of the third table, its head's columns first."""
    yield " | ".join(QUANTITIES) + " |"
    yield "|---" * (len(QUANTITIES) + 3) + "|"
    for model, title in MODELS.items():
        for dtype in ("float64", "float32"):
            for report in read(runs / f"crosscheck-{model}-{dtype}.json")["reports"]:
                cells = " | ".join(worst(report["comparisons"], quantity) for quantity in QUANTITIES)
                yield f"| {title} | {report['variant']} | {dtype} | {cells} |"


def worst(comparisons: list[dict[str, Any]], quantity: str) -> str:
    """``error of bound`` of the worst pair."""
    found = max((c for c in comparisons if c["quantity"] == quantity), key=lambda c: c["error"])
    return f"{found['error']:.1e} of {found['bound']:.0e}"


def read(path: Path) -> Any:
    """The object in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    lines = [HEAD, *training(folder), MOVED, *moved(folder)]
    first, *others = agreement(folder)
    print("\n".join([*lines, AGREE + first, *others]))
