"""The tables of ``mponet bench``, which fit terminals of any width."""

from collections.abc import Mapping, Sequence
from typing import Any

from mponet.bench import verdict
from mponet.bench.implementation import DENSE, OURS
from mponet.bench.inference import FROZEN, ratio
from mponet.bench.layers import PASSES
from mponet.bench.memory import mark as memory_mark
from mponet.cli.grid import print_grid
from mponet.cli.output import people

WORDS = {"layer", "pass", "best peer", "network"}  # headings of columns that are not numbers


def layers(backend: str, rows: Sequence[dict[str, Any]], *, peers: bool) -> None:
    """Ours, the dense layer, targets and best peers; then all implementations.

    Then the means over the rows.
    """
    console = people()
    console.print(f"\n{_where(backend, rows)}\n", style="bold")
    headings = ["layer", "pass", "dense ms", "ours ms", "ours/dense", "of minima", "target", "met", "spread"]
    cells = []
    for line in verdict.lines(rows):
        times = [_ms(line.dense), _ms(line.ours), _times(line.ratio), _times(line.least), _times(line.target)]
        peer = [line.peer or "-", _times(line.over_peer)] if peers else []
        cells.append([line.row, line.which, *times, line.mark, f"{line.spread:.0%}", *peer])
    headings += ["best peer", "peer/ours"] if peers else []
    print_grid(console, headings, cells, words=WORDS, keys=2, group=True)
    for row in rows:
        if not any(entry["name"] == DENSE for entry in row["contenders"]):
            console.print(f"\n{_speed(row)}")
    if peers:
        console.print()
        _print_implementations(rows)
        console.print()
        _print_peers(rows)


def inference(backend: str, rows: Sequence[dict[str, Any]]) -> None:
    """Times over those of the dense layer, and what frozen layers keep."""
    console = people()
    console.print(f"\n{_where(backend, rows)}: inference, time over that of the dense layer\n", style="bold")
    names = [OURS, FROZEN, "low rank"]
    cells = [
        [row["row"], cell["mode"], str(cell["batch"]), _ms(cell["times"][DENSE]["median"])]
        + [_times(ratio(cell, name)) for name in names]
        for row in rows
        for cell in row["cells"]
    ]
    print_grid(console, ["layer", "mode", "batch", "dense ms", *names], cells, words={*WORDS, "mode"}, keys=2)
    for row in rows:
        kept = row["kept"]
        sizes = f"{kept['bytes'] / 1e6:.2f} MB, the dense weight {kept['dense bytes'] / 1e6:.2f} MB"
        console.print(f"{row['row']} keeps {kept['plan']}: {sizes}")


def memory(backend: str, rows: Sequence[dict[str, Any]]) -> None:
    """Megabytes in use at the peak of a step, by implementation, and the limit of ours."""
    console = people()
    console.print(f"\n{_where(backend, rows)}: megabytes at the peak of a step\n", style="bold")
    names = list(dict.fromkeys(entry["name"] for row in rows for entry in row["contenders"]))
    names.sort(key=lambda name: name != OURS)
    cells = []
    for row in rows:
        entries = {entry["name"]: entry for entry in row["contenders"]}
        numbers = [_megabytes(entries.get(name)) for name in names]
        cells.append([row["row"], f"{row['limit'] / 1e6:.2f}", memory_mark(row), *numbers])
    print_grid(console, ["layer", "limit", "kept", *names], cells, words=WORDS)
    _print_unsupported(rows)


def networks(backend: str, rows: Sequence[dict[str, Any]]) -> None:
    """Times of both variants of networks."""
    console = people()
    console.print(f"\n{_where(backend, rows)}\n", style="bold")
    headings = ["network", "pass", "batch", "dense ms", "mpo ms", "mpo/dense", "of minima", "target", "met", "spread"]
    cells = [
        [
            row["network"],
            which,
            str(row["batch"]),
            _ms(row[which]["dense"]["median"]),
            _ms(row[which]["mpo"]["median"]),
            _times(row[which]["ratio"]),
            _times(row[which]["ratio_of_minima"]),
            _times(row["targets"][which]),
            row[which]["mark"],
            f"{row[which]['spread']:.0%}",
        ]
        for row in rows
        for which in row["targets"]
    ]
    print_grid(console, headings, cells, words=WORDS, keys=2, group=True)


def growth(backend: str, curves: Sequence[dict[str, Any]]) -> None:
    """Times along each axis, and the exponents of their growth."""
    console = people()
    columns = [(name, which) for name in (OURS, DENSE) for which in PASSES]
    for curve in curves:
        console.print(f"\n{backend}: milliseconds by {curve['axis']}\n", style="bold")
        cells = [
            [str(size), *(_ms(curve[name][which][k]) for name, which in columns)]
            for k, size in enumerate(curve["sizes"])
        ]
        cells.append(["power", *(_times(curve[name]["measured"][which]) for name, which in columns)])
        theory = (_times(curve[name]["theory"]) if which == PASSES[0] else "" for name, which in columns)
        cells.append(["of products", *theory])
        styles = {len(cells) - 2: "bold", len(cells) - 1: "dim"}
        headings = [curve["axis"], *(f"{name} {which}" for name, which in columns)]
        print_grid(console, headings, cells, words=WORDS, styles=styles)


def crossover(backend: str, ratios: Mapping[tuple[int, int, int], float]) -> None:
    """Ours over dense, a table for each batch."""
    console = people()
    batches, widths, bonds = (sorted({key[k] for key in ratios}) for k in range(3))
    for batch in batches:
        console.print(f"\n{backend}: ours over dense, training step, batch {batch}\n", style="bold")
        cells = [[str(bond), *(_times(ratios.get((batch, width, bond))) for width in widths)] for bond in bonds]
        print_grid(console, ["bond", *(f"width {width}" for width in widths)], cells, words=WORDS)


def machine(before: dict[str, Any], after: dict[str, Any]) -> None:
    """How quiet the machine was."""
    loads = " and ".join("unknown" if one["load"] is None else f"{one['load']:.2f}" for one in (before, after))
    waits = f", OMP_WAIT_POLICY={before['wait_policy']}" if before["wait_policy"] else ""
    people().print(
        f"\nPython {before['python']}, {before['processor']}, {before['cores']} cores{waits}; processes that wanted to "
        f"run before and after: {loads}.  Spread: interquartile range over median; ?: noise decides, as medians and "
        f"minima disagree, or the spread is above {verdict.NOISY:.0%}.",
        style="dim",
    )


def _where(backend: str, rows: Sequence[dict[str, Any]]) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in rows[0]["versions"].items())
    return f"{backend}: {versions}, {rows[0]['device']}, {rows[0]['threads']} threads, float32"


def _print_implementations(rows: Sequence[dict[str, Any]]) -> None:
    """Time over that of the dense layer, forward / step.

    Milliseconds where no dense layer is measured.
    """
    noise = verdict.spreads(rows)
    names = [name for name in noise if name != DENSE]
    cells = [[row["row"], *(_cell(row, name) for name in names)] for row in rows]
    cells.append(["spread", *("-" if noise[name] is None else f"{noise[name]:.0%}" for name in names)])
    print_grid(people(), ["layer", *names], cells, words=WORDS, styles={len(cells) - 1: "dim"})


def _cell(row: dict[str, Any], name: str) -> str:
    times = [verdict.seconds(row, name, which) for which in PASSES]
    if None in times:
        return "cannot"
    ratios = [verdict.ratio(row, name, which) for which in PASSES]
    if None in ratios:
        return f"{_ms(times[0])} / {_ms(times[1])} ms"
    return f"{_times(ratios[0])} / {_times(ratios[1])}"


def _print_peers(rows: Sequence[dict[str, Any]]) -> None:
    """Our speed over the best peer, the peers that are faster, and those left out."""
    console = people()
    for which, result in verdict.over_peers(rows).items():
        if result["mean"] is not None:
            mean = f"geometric mean {result['mean']:.2f}; target {result['target']}"
            console.print(f"{which}: best peer over ours, {mean}")
        for faster in result["faster"]:
            console.print(f"  {faster['row']}: {faster['name']} is faster, {faster['ours_over_peer']:.2f} times")
    _print_unsupported(rows)
    packages = {p: v for row in rows for entry in row["contenders"] for p, v in entry["versions"].items()}
    if packages:
        console.print(f"peers: {', '.join(f'{package} {version}' for package, version in packages.items())}")


def _print_unsupported(rows: Sequence[dict[str, Any]]) -> None:
    """Implementations that do not support a row, and why."""
    for name, reasons in verdict.unsupported(rows).items():
        for reason in dict.fromkeys(reason for _, reason in reasons):
            where = ", ".join(row for row, given in reasons if given == reason)
            people().print(f"{name} cannot take {where}: {reason}")


def _megabytes(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None else f"{entry['total'] / 1e6:.2f}" if "total" in entry else "cannot"


def _speed(row: dict[str, Any]) -> str:
    """Speed of a layer that is not compared with a dense one."""
    forward, step = (verdict.seconds(row, OURS, which) for which in PASSES)
    flops = 2e-9 * row["plans"]["multiplications"]
    assert forward is not None and step is not None
    return (
        f"{row['row']}: no dense layer of this size is measured; ours runs at {flops / forward:.1f} GFLOP/s forward, "
        f"{3 * flops / step:.1f} in a step (three times the products of forward counted)"
    )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
