"""Prints docs/gpu.md from the files of `benchmarks/gpu.py` and draws its chart.

The files are in docs/measured, so no GPU is needed to make the page again.
"""

import json
from collections.abc import Iterator
from math import nan
from pathlib import Path
from statistics import geometric_mean
from textwrap import fill
from typing import Any

from mponet.bench import chart

HERE = Path(__file__).parent
MEASURED, CHART = HERE / "measured", HERE / "performance" / "gpu.svg"
DENSE, OURS = "dense", "ours"
PASSES = ("forward", "step")
HEAD = """# On a GPU

PyTorch layers on one {gpu} (torch {torch}):
ours compared with the dense layer and with other packages, in interleaved rounds.
`python docs/gpu.py` makes this page from the files in `docs/measured`, which a machine with a GPU
wrote with

    python benchmarks/gpu.py --dtypes bfloat16 --peers --json docs/measured/gpu.json
    python benchmarks/gpu.py --dtypes bfloat16 --batches 4096 --json docs/measured/gpu-peers.json
    python benchmarks/gpu.py --dtypes bfloat16 --widths 4096 --sites 3 --bonds 4 16 --batches 4096 512 \\
        --json docs/measured/gpu-three-sites.json
    python benchmarks/gpu.py --dtypes float32 --widths 4096 1024 --bonds 4 16 --batches 4096 512 --peers \\
        --json docs/measured/gpu-float32.json

Every pass is captured in a CUDA graph and replayed, so the times are those of the device. *Eager*
is a step called from Python, where small layers are limited by Python and by kernel launches.
Milliseconds are medians; ratios are of medians in the same run; memory is the peak of a step,
results included. The outputs of every implementation were compared with float64, except those of
the dense layer, which holds another matrix. Two figures for the memory of the dense layer are too
low: 42 MB in the first table and 2 MB in the table of float32, where the same layer shows 52 and
8 elsewhere. Memory that an earlier layer had held was freed during the measurement;
`benchmarks/gpu.py` now prevents this."""
SECTIONS = {
    "gpu": """
## bfloat16

Sweeps of two and three groups run as one Triton kernel each, which keeps the states in registers
(`backends/mponet_triton`). The plan shows where the matrix was rebuilt instead.

![Time of a step over the dense layer's, by width and bond, a map for each batch](performance/gpu.svg)
""",
    "gpu-three-sites": """
## Three sites, bfloat16
""",
    "gpu-float32": """
## float32

TF32 is off. The Triton kernels are not used: all products are those of cuBLAS, planned with the
constants of a GPU.
""",
}
PEERS = """
## Compared with other packages

bfloat16, two sites; `forward / step` over the dense layer, and megabytes of a step.
"""


def read(name: str) -> dict[str, Any]:
    """A file of measurements, with its rows by layer and implementation."""
    found: dict[str, Any] = json.loads((MEASURED / f"{name}.json").read_text(encoding="utf-8"))
    layers: dict[str, dict[str, Any]] = {}
    for entry in found["rows"]:
        layers.setdefault(entry["row"], {})[entry["contender"]] = entry
    return found | {"layers": layers}


def ratio(layer: dict[str, Any], which: str, name: str = OURS, over: str = DENSE) -> float:
    """The ratio of the medians; not a number if one of the two was not measured."""
    if name not in layer or which not in layer[name]:
        return nan
    return float(layer[name][which]["median"] / layer[over][which]["median"])


def order(row: str) -> list[int]:
    """Batch, width and bond of a row, from its name."""
    width, bond, batch = (int(part.lstrip("db")) for part in row.split("-"))
    return [batch, width, bond]


def ours(layers: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The table of ours and dense."""
    yield "| layer | batch | dense ms | ours ms | forward | step | eager step | dense MB | ours MB | plan |"
    yield "|---|---:|---|---|---:|---:|---:|---:|---:|---|"
    for row in sorted(layers, key=order):
        layer = layers[row]
        times = (" / ".join(f"{layer[one][which]['median']:.3f}" for which in PASSES) for one in (DENSE, OURS))
        ratios = (f"{ratio(layer, which):.2f}" for which in (*PASSES, "eager step"))
        memory = (f"{layer[one]['bytes'] / 1e6:.0f}" for one in (DENSE, OURS))
        operator = f"`{layer[OURS]['shape']}`"
        yield f"| {' | '.join((operator, str(order(row)[0]), *times, *ratios, *memory, layer[OURS]['plan']))} |"


def peers(layers: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The table of every implementation over dense, and the best of the others over ours."""
    names = [name for name in next(iter(layers.values())) if name != DENSE]
    yield f"| layer | {' | '.join(names)} |"
    yield f"|---{'|---' * len(names)}|"
    for row in sorted(layers, key=order):
        layer = layers[row]
        cells = []
        for name in names:
            taken = layer.get(name, {"cannot": ""})
            ratios = " / ".join(f"{ratio(layer, which, name):.2f}" for which in PASSES)
            cells.append("cannot" if "cannot" in taken else f"{ratios}, {taken['bytes'] / 1e6:.0f} MB")
        yield f"| `{layer[OURS]['shape']}` | {' | '.join(cells)} |"
    yield ""
    for which in PASSES:
        best = {row: min(ratio(layer, which, n, OURS) for n in names if n != OURS) for row, layer in layers.items()}
        faster = [f"`{layers[row][OURS]['shape']}` ({value:.2f})" for row, value in best.items() if value < 1]
        text = (
            f"- {which}: the best other package takes {geometric_mean(best.values()):.2f} times our time "
            f"(geometric mean over {len(best)} layers){'; less than ours at ' + ', '.join(faster) if faster else ''}"
        )
        yield fill(text, 100, subsequent_indent="  ", break_on_hyphens=False)


def page() -> Iterator[str]:
    """The page, line by line."""
    first = read("gpu")
    yield HEAD.format(**first)
    for name, head in SECTIONS.items():
        yield head
        yield from ours(read(name)["layers"])
    yield PEERS
    yield from peers(read("gpu-peers")["layers"])


def draw() -> None:
    """Draw the map of training steps."""
    found = read("gpu")
    ratios = {tuple(order(row)): ratio(layer, "step") for row, layer in found["layers"].items()}
    chart.crossover(CHART, ratios, f"Training step in bfloat16 on one {found['gpu']}, PyTorch")


if __name__ == "__main__":
    draw()
    print("\n".join(page()))
