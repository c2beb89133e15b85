"""Prints docs/gpu.md from what `benchmarks/gpu.py` wrote on a GPU, and draws its chart: ``python docs/gpu.py``.

The files lie in docs/measured: whoever has no GPU at hand can make the page again.
"""

import json
from collections.abc import Iterator
from math import nan
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from mponet.bench import chart

HERE = Path(__file__).parent
MEASURED, CHART = HERE / "measured", HERE / "performance" / "gpu.svg"
DENSE, OURS = "dense", "ours"
PASSES = ("forward", "step")
HEAD = """# On a GPU

Layers in PyTorch on one {gpu} (torch {torch}): ours beside the dense layer and beside other packages, in interleaved
rounds.  `python docs/gpu.py` makes this page from the files in `docs/measured`, which a machine with a GPU wrote by

    python benchmarks/gpu.py --dtypes bfloat16 --peers --json docs/measured/gpu.json
    python benchmarks/gpu.py --dtypes bfloat16 --batches 4096 --json docs/measured/gpu-peers.json
    python benchmarks/gpu.py --dtypes bfloat16 --widths 4096 --sites 3 --bonds 4 16 --batches 4096 512 \\
        --json docs/measured/gpu-three-sites.json
    python benchmarks/gpu.py --dtypes float32 --widths 4096 1024 --bonds 4 16 --batches 4096 512 --peers \\
        --json docs/measured/gpu-float32.json

Every pass is captured in a CUDA graph and replayed, so that times are those of the device; *eager* is a step called
from Python, where for small layers Python and the starts of kernels are all that counts.  Milliseconds are medians;
ratios are of medians in the same run; memory is the peak of a step, results included.  The outputs of every contender
but the dense layer, which holds another matrix, were checked against float64.  Two figures of the dense layer's memory
are too low, 42 MB in the first table and 2 MB in that of float32, where the same layer shows 52 and 8 elsewhere: what
an earlier layer had held was freed while they were taken, which `benchmarks/gpu.py` prevents since."""
SECTIONS = {
    "gpu": """
## bfloat16

Sweeps of two and three groups run as one Triton kernel each, which keeps the states on the chip
(`backends/mponet_triton`); the plan says where the matrix was rebuilt instead.

![Time of a step over the dense layer's, by width and bond, a map for each batch](performance/gpu.svg)
""",
    "gpu-three-sites": """
## Three sites, bfloat16
""",
    "gpu-float32": """
## float32

TF32 is off.  No kernel of ours takes part: products of cuBLAS as on a CPU, planned with constants of a GPU.
""",
}
PEERS = """
## Beside other packages

bfloat16, two sites; `forward / step` over the dense layer, and megabytes of a step.
"""


def read(name: str) -> dict[str, Any]:
    """What was measured; its rows by layer and contender."""
    found: dict[str, Any] = json.loads((MEASURED / f"{name}.json").read_text(encoding="utf-8"))
    layers: dict[str, dict[str, Any]] = {}
    for entry in found["rows"]:
        layers.setdefault(entry["row"], {})[entry["contender"]] = entry
    return found | {"layers": layers}


def ratio(layer: dict[str, Any], which: str, name: str = OURS, beside: str = DENSE) -> float:
    """Of medians; not a number where one could not take part."""
    if name not in layer or which not in layer[name]:
        return nan
    return float(layer[name][which]["median"] / layer[beside][which]["median"])


def order(row: str) -> list[int]:
    """By batch, width and bond."""
    width, bond, batch = (int(part.lstrip("db")) for part in row.split("-"))
    return [batch, width, bond]


def ours(layers: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Ours beside dense."""
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
    """Everybody over dense, and what the best of the others takes over ours."""
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
        yield (
            f"- {which}: the best other package takes {geometric_mean(best.values()):.2f} times our time "
            f"(geometric mean over {len(best)} layers){'; less than ours at ' + ', '.join(faster) if faster else ''}"
        )


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
    """The map of steps."""
    found = read("gpu")
    ratios = {tuple(order(row)): ratio(layer, "step") for row, layer in found["layers"].items()}
    chart.crossover(CHART, ratios, f"Training step in bfloat16 on one {found['gpu']}, PyTorch")


if __name__ == "__main__":
    draw()
    print("\n".join(page()))
