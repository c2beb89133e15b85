"""Prints docs/measurements.md from the files of `mponet bench` in docs/measured, or those named.

A file is that of ``mponet bench layers``, ``memory``, ``models``, ``growth`` or ``crossover``, or
of ``benchmarks/plumbing.py``, with ``--json``; or a part of the page as it is (``.md``).  The
tables come in the order of the files.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

from mponet.bench import growth, inference, verdict
from mponet.bench.implementation import DENSE, OURS
from mponet.bench.layers import PASSES


def layers(found: dict[str, Any]) -> Iterator[str]:
    """By framework: ours over dense and the best peer, every implementation, the summary."""
    for backend, rows in by_backend(found["rows"]):
        yield from where(backend, rows)
        yield from head(
            "layer", "operator", "batch", "pass", "dense ms", "ours ms", "ours / dense", "of minima", "target"
        )
        operators = {row["row"]: row for row in rows}
        for line in verdict.lines(rows):
            row = operators[line.row]
            cells = (f"`{line.row}`", f"`{row['notation']}`", row["batch"]) if line.which == PASSES[0] else ("", "", "")
            target = "" if line.target is None else f"{line.target:.2f} {line.mark}"
            times = milliseconds(line.dense), milliseconds(line.ours), ratio(line.ratio), ratio(line.least)
            yield cells_of(*cells, line.which, *times, target)
        yield ""
        names = [name for name in verdict.spreads(rows) if name != DENSE]
        yield from head("layer", *names)
        for row in rows:
            yield cells_of(f"`{row['row']}`", *(beside_dense(row, name) for name in names))
        noise = verdict.spreads(rows)
        yield cells_of("spread", *("" if noise[name] is None else f"{noise[name]:.0%}" for name in names))
        yield ""
        yield from peers(rows, found["over_peers"][backend])
    yield quiet(found)


def peers(rows: list[dict[str, Any]], over: dict[str, Any]) -> Iterator[str]:
    """The best peer over ours, faster peers, those that could not take part, versions."""
    for which in PASSES:
        one = over[which]
        if one["mean"] is not None:
            target = f"(geometric mean; target {one['target']})"
            yield f"- {which}: the best peer takes {one['mean']:.2f} times as long {target}"
        for faster in one["faster"]:
            yield f"- {which}, `{faster['row']}`: {faster['name']} is faster, {faster['ours_over_peer']:.2f} times"
    for name, reasons in verdict.unsupported(rows).items():
        for reason in dict.fromkeys(reason for _, reason in reasons):
            names = ", ".join(f"`{row}`" for row, given in reasons if given == reason)
            yield item(f"{name} cannot take {names}: {reason}")
    packages = {p: v for row in rows for entry in row["contenders"] for p, v in entry["versions"].items()}
    if packages:
        yield item(f"versions: {', '.join(f'{package} {version}' for package, version in packages.items())}")
    yield ""


def inferred(found: dict[str, Any]) -> Iterator[str]:
    """Frozen layers over the dense layer, and what they keep."""
    for backend, rows in by_backend(found["rows"]):
        yield from where(backend, rows)
        yield from head(
            "layer", "mode", "rows", "dense ms", "ours", "frozen", "low rank", "spread", "kept MB", "dense MB"
        )
        for row in rows:
            kept = row["kept"]
            sizes = f"{kept['bytes'] / 1e6:.2f}", f"{kept['dense bytes'] / 1e6:.2f}"
            for number, cell in enumerate(row["cells"]):
                times = cell["times"]
                over = (ratio(inference.ratio(cell, name)) for name in (OURS, inference.FROZEN, "low rank"))
                spread = f"{max(time['spread'] for time in times.values()):.0%}"
                name, *last = (f"`{row['row']}`", *sizes) if number == 0 else ("", "", "")
                yield cells_of(
                    name, cell["mode"], cell["batch"], milliseconds(times[DENSE]["median"]), *over, spread, *last
                )
    yield ""
    yield goal_met(found["rows"])
    yield ""
    yield quiet(found)


def goal_met(rows: list[dict[str, Any]]) -> str:
    """How many compiled cells are within the goal."""
    over = [
        inference.ratio(cell, inference.FROZEN)
        for row in rows
        if not row["row"].startswith("embedding")
        for cell in row["cells"]
        if cell["mode"] != "eager"
    ]
    met = sum(value is not None and value <= INFERENCE_GOAL for value in over)
    return f"Compiled, without the embedding: {met} of {len(over)} cells within {INFERENCE_GOAL} of dense."


def memory(found: dict[str, Any]) -> Iterator[str]:
    """Megabytes at the peak of a step."""
    for backend, rows in by_backend(found["rows"]):
        yield from where(backend, rows)
        names = list(dict.fromkeys(one["name"] for row in rows for one in row["contenders"]))
        names.sort(key=lambda name: name != OURS)
        yield from head("layer", "limit of ours, MB", *names)
        for row in rows:
            totals = {one["name"]: one.get("total") for one in row["contenders"]}
            cells = [f"{totals[name] / 1e6:.2f}" if totals.get(name) else "-" for name in names]
            yield cells_of(f"`{row['row']}`", f"{row['limit'] / 1e6:.2f}", *cells)
        yield ""


def models(found: dict[str, Any]) -> Iterator[str]:
    """Whole networks."""
    for backend, rows in by_backend(found["rows"]):
        yield from where(backend, rows)
        yield from head(
            "network", "batch", "pass", "dense ms", "mpo ms", "mpo / dense", "of minima", "target", "spread"
        )
        for row in rows:
            for which, target in row["targets"].items():
                one = row[which]
                yield cells_of(
                    f"`{row['network']}`",
                    row["batch"],
                    which,
                    milliseconds(one["dense"]["median"]),
                    milliseconds(one["mpo"]["median"]),
                    ratio(one["ratio"]),
                    ratio(one["ratio_of_minima"]),
                    "" if target is None else f"{target:.2f} {one['mark']}",
                    f"{one['spread']:.0%}",
                )
        yield ""
    yield quiet(found)


def grown(found: dict[str, Any]) -> Iterator[str]:
    """Exponents along each axis, measured and of the multiplications."""
    several = len(found["backends"]) > 1  # then `mponet bench growth --chart` draws one for each
    for one in found["backends"]:
        chart = f"performance/growth-{one['backend']}.svg" if several else "performance/growth.svg"
        yield from ("", f"**{one['backend']}**", "", f"![Time against width, bond and batch]({chart})", "")
        yield from head("grows", "from", "to", "of", "forward", "step", "multiplications")
        for curve in one["curves"]:
            for name in (OURS, DENSE):
                side = curve[name]
                powers = *(side["measured"][which] for which in PASSES), side["theory"]
                ends = curve["sizes"][0], curve["sizes"][-1]
                yield cells_of(curve["axis"], *ends, name, *(ratio(power) for power in powers))
        yield ""
    yield quiet(found)


def crossed(found: dict[str, Any]) -> Iterator[str]:
    """Ours over dense in a training step, by batch, bond and width."""
    for backend, rows in by_backend(found["rows"]):
        yield from where(backend, rows)
        ratios = growth.ratios(rows, "step")
        batches, widths, bonds = (sorted({key[k] for key in ratios}) for k in range(3))
        yield from head("batch", "bond", *(f"width {width}" for width in widths))
        for batch in batches:
            for bond in bonds:
                yield cells_of(batch, bond, *(ratio(ratios.get((batch, width, bond))) for width in widths))
        yield ""
    yield quiet(found)


def plumbing(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Dense networks lowered by mponet, over the same networks written by hand."""
    versions = {row["backend"]: row["versions"] for row in rows}
    named = (", ".join(f"{p} {v}" for p, v in packages.items()) for packages in versions.values())
    yield from ("", paragraph(f"{rows[0]['batch']} images a step; {'; '.join(named)}; on {rows[0]['device']}."), "")
    yield from head(
        "framework", "network", "lowered / by hand", "of minima", "of processor time", "images/s", "by hand", "spread",
        "memory, MB", "by hand",
    )  # fmt: skip
    for row in rows:
        speed, noise, used = row["images_per_second"], row["spread"], row["memory"]
        ratios = (f"{row[key]:.3f}" for key in ("ratio", "ratio_of_minima", "ratio_of_processor"))
        speeds = (f"{speed[kind]:.1f}" for kind in ("lowered", "plain"))
        memories = (f"{used[kind] / 1e6:.0f}" for kind in ("lowered", "plain"))
        spread = f"{max(noise.values()):.0%}"
        yield cells_of(row["backend"], f"`{row['model']}`", *ratios, *speeds, spread, *memories)


PAGES: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "layers": layers,
    "inference": inferred,
    "memory": memory,
    "models": models,
    "growth": grown,
    "crossover": crossed,
}


def by_backend(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The rows of each framework, in the order in which they were measured."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["backend"], []).append(row)
    yield from found.items()


def where(backend: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Framework, versions, device and threads."""
    versions = ", ".join(f"{package} {version}" for package, version in rows[0]["versions"].items())
    yield from ("", f"**{backend}** ({versions}; {rows[0]['device']}, {rows[0]['threads']} threads)", "")


def quiet(found: dict[str, Any]) -> str:
    """The machine and its load."""
    before, after = found["before"], found["after"]
    loads = " and ".join("unknown" if one["load"] is None else f"{one['load']:.2f}" for one in (before, after))
    return paragraph(
        f"{before['processor']}, {before['cores']} cores, Python {before['python']}; load before and after: {loads}."
    )


def beside_dense(row: dict[str, Any], name: str) -> str:
    """``forward / step`` over the dense layer; milliseconds where there is no dense layer."""
    times = [verdict.seconds(row, name, which) for which in PASSES]
    ratios = [verdict.ratio(row, name, which) for which in PASSES]
    if None in times:
        return "cannot"
    if None in ratios:
        return f"{' / '.join(map(milliseconds, times))} ms"
    return " / ".join(map(ratio, ratios))


def item(text: str) -> str:
    """An item of a list, at most 100 columns wide."""
    return fill(f"- {text}", 100, subsequent_indent="  ", break_on_hyphens=False)


def paragraph(text: str) -> str:
    """Text, at most 100 columns wide."""
    return fill(text, 100, break_on_hyphens=False)


def head(*headings: str) -> tuple[str, str]:
    """The head of a table."""
    return cells_of(*headings), f"|{'---|' * len(headings)}"


def cells_of(*cells: Any) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def milliseconds(seconds: float | None) -> str:
    """To three digits."""
    return "-" if seconds is None else f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def ratio(value: float | None) -> str:
    """To two decimals."""
    return "-" if value is None else f"{value:.2f}"


#: The text above each table.
HEADS = {
    "layers": """Milliseconds are medians; ours / dense is their ratio, *of minima* the ratio of the shortest
samples. The second table has `forward / step` of every implementation over the dense layer.
`low rank` is another map with the same number of parameters, for orientation.""",
    "inference": """Time of a forward pass over that of the dense layer, medians of interleaved calls: our layer in
eval mode, the same after `freeze`, and low rank with the same number of parameters. *Kept* is what
the frozen layer holds in addition to its cores. The goal is 1.05 in a jitted or compiled model.
*Spread* is the largest interquartile range over the median: where it is large, other processes
disturbed the row.""",
    "memory": "Megabytes at the peak of a training step, with inputs, gradients and parameters.",
    "models": """A training step, and logits in inference mode: the mpo variant of a network over its dense variant.
`compiled step` is under `torch.compile` (JAX and TensorFlow always compile), `frozen inference`
after `freeze`.""",
    "growth": """Exponents: how the time grows with the size, from the smallest to the largest, and how the number
of multiplications grows.""",
    "crossover": """Ours over the dense layer in a training step. Above 1 the dense layer is faster.

![Ours over dense by width and bond, a panel for each batch](performance/crossover.svg)""",
}
DENSE_NETWORKS = """A training step of a dense network as mponet lowers it, over the same network written by hand in
`benchmarks/plain_*.py`. The dropout masks, which a training draws ahead of time, are part of the
lowered step. Memory is what training adds to the process."""
BACKENDS = ("torch", "jax", "tensorflow")
#: Time of a frozen layer over that of the dense one, at most (docs/performance.md).
INFERENCE_GOAL = 1.05
#: What docs/performance.sh measures, in the order of the page.
PUBLISHED = [
    Path(__file__).parent / "measured" / name
    for name in (
        *(f"layers-{backend}.json" for backend in BACKENDS),
        *(f"inference-{backend}.json" for backend in BACKENDS),
        "memory.json",
        *(f"models-{backend}.json" for backend in BACKENDS),
        "vgg16.json",
        "growth.json",
        "crossover.json",
        "plumbing.json",
        "parts.md",
    )
]
PAGE = """# Measurements

`docs/performance.sh` makes this page on two cores without an accelerator.
[Performance](performance.md) explains the method and the conclusions."""


def page(files: Iterable[str | Path]) -> Iterator[str]:
    """The page with the tables of these files, in their order."""
    yield PAGE
    last = ""
    for file in files:
        text = Path(file).read_text(encoding="utf-8")
        if Path(file).suffix == ".md":
            yield f"\n{text.strip()}"
            continue
        found = json.loads(text)
        if isinstance(found, list) and found and "images_per_second" in found[0]:
            yield f"\n## Dense networks\n\n    python benchmarks/plumbing.py\n\n{DENSE_NETWORKS}"
            yield from plumbing(found)
            continue
        if not isinstance(found, dict) or found.get("bench") not in PAGES:
            sys.exit(f"{file} was not written by mponet bench; expected a file written with --json")
        if found["bench"] != last:
            last = found["bench"]
            yield f"\n## {last.capitalize()}\n\n    mponet bench {last}\n\n{HEADS[last]}"
        yield from PAGES[found["bench"]](found)


if __name__ == "__main__":
    print("\n".join(page(sys.argv[1:] or PUBLISHED)))
