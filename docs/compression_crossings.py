"""The section of docs/compression.md on where operators and low rank cross, and its chart."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from compression_parts import Figures, cells, table

from mponet.bench import chart

CHARTS = Path(__file__).parent / "compression"


def structures(found: Figures) -> Iterator[str]:
    """Where low rank and MPOs cross."""
    measured = found["cells"]
    networks = [name.removesuffix(" dense") for name in measured if name.endswith(" dense")]
    yield """## Where genuine MPOs win

    python benchmarks/compress_structures.py

Each network is compressed to a share of the weights of its layers by low rank, and by balanced
operators of two and three sites, all fitted to the covariance of their inputs, every layer to the
same share. Then it is healed for the same number of steps (*steps*), or for as many as take the
processor time of low rank's (*time*). Layers below 4096 weights stay dense. *Plan* is what a config
with `heal=True` chooses and allocates; its rule was made on FC2 from scratch, that for convolutions
on LeNet-5 at 0.03, so the other networks try it.
"""
    for network in networks:
        what, form = JUDGED[network]
        yield f"**{network}**, {what}; dense {form(measured[f'{network} dense']['quality'])}.\n"
        yield from table("keep", "structure", "one shot", "healed, steps", "healed, time", "steps in that time")
        for name, row in measured.items():
            if not name.startswith(network + " ") or name.endswith(" dense"):
                continue
            _, keep, structure = name.split(" ", 2)
            timed = row.get("time") or (row["steps"] if structure == "low-rank" else None)
            yield cells(
                keep,
                structure if structure != "plan" else f"plan: {chosen(row)}",
                form(row["one_shot"]),
                form(row["steps"]["quality"]),
                form(timed["quality"]) if timed else "",
                timed["steps"] if timed else "",
            )
        yield ""
    CHARTS.mkdir(exist_ok=True)
    chart.crossings(CHARTS / "crossings.svg", curves(measured, networks), "Loss after healing over that of low rank")
    yield "![Loss after healing over that of low rank, by share of the weights](compression/crossings.svg)"
    yield RULE


RULE = """
The chart shows the distillation loss after equal steps, divided by that of low rank: below 1 the
operator is nearer to the original."""


def chosen(row: Figures) -> str:
    """How many layers a plan gave each structure."""
    return ", ".join(f"{count} {name}" for name, count in row["structures"].items())


def _share(value: float) -> str:
    return f"{100 * value:.2f} %"


def _nats(value: float) -> str:
    return f"{-value:.3f}"


def _correlation(value: float) -> str:
    return f"{value:.3f}"


JUDGED = {
    "lenet5": ("accuracy on MNIST", _share),
    "fc2": ("accuracy on MNIST", _share),
    "transformer": ("nats per byte of held-out text", _nats),
    "minilm": ("Pearson's correlation with Lee's documents", _correlation),
}


def curves(measured: Figures, networks: Iterable[str]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Loss after equal steps over low rank's, by network and structure, ``(keep, ratio)``."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for network in networks:
        for name, row in measured.items():
            if name.startswith(network + " ") and not name.endswith((" dense", " low-rank", " plan")):
                _, keep, structure = name.split(" ", 2)
                base = measured.get(f"{network} {keep} low-rank")
                if base:
                    ratio = row["steps"]["loss"] / base["steps"]["loss"]
                    found.setdefault(network, {}).setdefault(structure, []).append((float(keep), ratio))
    return found
