"""The tables of ``mponet bench``."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from mponet.bench import verdict
from mponet.bench.contender import DENSE, OURS
from mponet.bench.layers import PASSES
from mponet.bench.memory import mark as of_memory
from mponet.cli.output import people

WORDS = {"layer", "pass", "best peer", "network"}  # headings of columns that are not numbers


def layers(backend: str, rows: Sequence[dict[str, Any]], *, peers: bool) -> None:
    """Ours beside dense, targets and best peers; then everybody beside dense; then what it comes to."""
    console = people()
    console.print(f"\n{_where(backend, rows)}\n", style="bold")
    headings = ["layer", "pass", "dense ms", "ours ms", "ours/dense", "of minima", "target", "", "spread"]
    table = _table(*headings, *(("best peer", "peer/ours") if peers else ()))
    found = list(verdict.lines(rows))
    for line in found:
        cells = [
            line.row if line.which == PASSES[0] else "",
            line.which,
            _ms(line.dense),
            _ms(line.ours),
            _times(line.ratio),
            _times(line.least),
            _times(line.target),
            line.mark,
            f"{line.spread:.0%}",
        ]
        table.add_row(*cells, *((line.peer or "-", _times(line.over_peer)) if peers else ()))
    console.print(table)
    for row in rows:
        if not any(entry["name"] == DENSE for entry in row["contenders"]):
            console.print(f"\n{_speed(row)}")
    if peers:
        console.print()
        console.print(_everybody(rows))
        console.print()
        _peers(rows)


def memory(backend: str, rows: Sequence[dict[str, Any]]) -> None:
    """Megabytes in use at the peak of a step, by contender, and the limit of ours."""
    console = people()
    console.print(f"\n{_where(backend, rows)}: megabytes at the peak of a step\n", style="bold")
    names = list(dict.fromkeys(one["name"] for row in rows for one in row["contenders"]))
    table = _table("layer", "limit", "", *sorted(names, key=lambda name: name != OURS))
    for row in rows:
        found = {one["name"]: one for one in row["contenders"]}
        cells = [_megabytes(found.get(name)) for name in sorted(names, key=lambda name: name != OURS)]
        table.add_row(row["row"], f"{row['limit'] / 1e6:.2f}", of_memory(row), *cells)
    console.print(table)
    _cannot(rows)


def networks(backend: str, rows: Sequence[dict[str, Any]]) -> None:
    """Networks with operators over normal ones."""
    console = people()
    console.print(f"\n{_where(backend, rows)}\n", style="bold")
    table = _table("network", "batch", "pass", "normal ms", "MPO ms", "MPO/normal", "of minima", "target", "", "spread")
    for row in rows:
        for which in ("step", "inference"):
            found = row[which]
            table.add_row(
                *((row["network"], str(row["batch"])) if which == "step" else ("", "")),
                which,
                _ms(found["dense"]["median"]),
                _ms(found["mpo"]["median"]),
                _times(found["ratio"]),
                _times(found["ratio_of_minima"]),
                _times(row["targets"][which]),
                found["mark"],
                f"{found['spread']:.0%}",
            )
    console.print(table)


def growth(backend: str, curves: Sequence[dict[str, Any]]) -> None:
    """Times along each axis, and the exponents."""
    console = people()
    for curve in curves:
        console.print(f"\n{backend}: milliseconds by {curve['axis']}\n", style="bold")
        table = _table(curve["axis"], *(f"{name} {which}" for name in (OURS, DENSE) for which in PASSES))
        for k, size in enumerate(curve["sizes"]):
            table.add_row(str(size), *(_ms(curve[name][which][k]) for name in (OURS, DENSE) for which in PASSES))
        measured = [curve[name]["measured"][which] for name in (OURS, DENSE) for which in PASSES]
        table.add_row("power", *map(_times, measured), style="bold")
        theory = [_times(curve[name]["theory"]) for name in (OURS, DENSE)]
        table.add_row("of the products", theory[0], "", theory[1], "", style="dim")
        console.print(table)


def crossover(backend: str, ratios: Mapping[tuple[int, int, int], float]) -> None:
    """Ours over dense, a table for each batch."""
    console = people()
    batches, widths, bonds = (sorted({key[k] for key in ratios}) for k in range(3))
    for batch in batches:
        console.print(f"\n{backend}: ours over dense, training step, batch {batch}\n", style="bold")
        table = _table("bond", *(f"width {width}" for width in widths))
        for bond in bonds:
            table.add_row(str(bond), *(_times(ratios.get((batch, width, bond))) for width in widths))
        console.print(table)


def machine(before: dict[str, Any], after: dict[str, Any]) -> None:
    """How quiet the machine was."""
    loads = " and ".join("unknown" if one["load"] is None else f"{one['load']:.2f}" for one in (before, after))
    people().print(
        f"\nPython {before['python']}, {before['processor']}, {before['cores']} cores; processes that wanted to run "
        f"before and after: {loads}.  Spread: interquartile range over median; ?: noise decides, as medians and minima "
        f"disagree, or the spread is above {verdict.NOISY:.0%}.",
        style="dim",
    )


def _where(backend: str, rows: Sequence[dict[str, Any]]) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in rows[0]["versions"].items())
    return f"{backend}: {versions}, {rows[0]['device']}, {rows[0]['threads']} threads, float32"


def _everybody(rows: Sequence[dict[str, Any]]) -> Table:
    """Every contender's time over the dense layer's, forward / step; milliseconds where there is no dense layer."""
    names = [name for name in verdict.spreads(rows) if name != DENSE]
    table = _table("layer", *names)
    for row in rows:
        table.add_row(row["row"], *(_cell(row, name) for name in names))
    noise = verdict.spreads(rows)
    table.add_row("spread", *("-" if noise[name] is None else f"{noise[name]:.0%}" for name in names), style="dim")
    return table


def _cell(row: dict[str, Any], name: str) -> str:
    times = [verdict.seconds(row, name, which) for which in PASSES]
    if None in times:
        return "cannot"
    ratios = [verdict.ratio(row, name, which) for which in PASSES]
    if None in ratios:
        return f"{_ms(times[0])} / {_ms(times[1])} ms"
    return f"{_times(ratios[0])} / {_times(ratios[1])}"


def _peers(rows: Sequence[dict[str, Any]]) -> None:
    """How much faster than the best peer, where not, and who could not take part."""
    console = people()
    for which, found in verdict.over_peers(rows).items():
        if found["mean"] is not None:
            console.print(f"{which}: best peer over ours, geometric mean {found['mean']:.2f}; target {found['target']}")
        for one in found["faster"]:
            console.print(f"  {one['row']}: {one['name']} is faster, {one['ours_over_peer']:.2f} times")
    _cannot(rows)
    packages = {p: v for row in rows for entry in row["contenders"] for p, v in entry["versions"].items()}
    if packages:
        console.print(f"peers: {', '.join(f'{package} {version}' for package, version in packages.items())}")


def _cannot(rows: Sequence[dict[str, Any]]) -> None:
    """Who could not take part, and why."""
    for name, reasons in verdict.absent(rows).items():
        for reason in dict.fromkeys(reason for _, reason in reasons):
            where = ", ".join(row for row, given in reasons if given == reason)
            people().print(f"{name} cannot take {where}: {reason}")


def _megabytes(found: dict[str, Any] | None) -> str:
    return "-" if found is None else f"{found['total'] / 1e6:.2f}" if "total" in found else "cannot"


def _speed(row: dict[str, Any]) -> str:
    """Of a layer that has no dense one beside it: how fast it computes."""
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


def _table(*headings: str) -> Table:
    """A table with a rule under its headings, words on the left and numbers on the right."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="left" if heading in WORDS else "right")
    return table
