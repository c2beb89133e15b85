"""The tables of ``mponet info``, which fit terminals of any width."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Table

from mponet import models
from mponet.cli.grid import print_grid
from mponet.cli.output import count, people
from mponet.models import shapes
from mponet.models.cost import multiplications, operator_plan
from mponet.models.outline import TIMES, Line, joined, outline
from mponet.models.spec import PAPER, Model

NARROW = 60  # terminals below this many columns have names on lines of their own
WORDS = {"network", "data", "source", "layer", "kind"}  # headings of columns that are not numbers


def networks(rows: Sequence[dict[str, Any]]) -> None:
    """Every network in one line, a rule between families."""
    cells = [
        [
            row["model"],
            row["data"],
            count(row["dense_parameters"]),
            count(row["parameters"]),
            f"{row['parameter_ratio']:.4f}",
            f"{row['rho']:.3g}",
            row["source"],
        ]
        for row in rows
    ]
    headings = ["network", "data", "parameters", "mpo variant", "ratio", "rho", "source"]
    ends = {k for k, (row, after) in enumerate(pairwise(rows)) if row["title"] != after["title"]}
    console = people()
    print_grid(console, headings, cells, words=WORDS, sections=ends)
    console.print()
    console.print("ratio: parameters of the MPO network over those of the dense network, biases included.")
    console.print("rho (Eq. 9): weights of the operators over weights of the layers that they replace.")
    console.print(f"Names are made like this: {models.spellings()}.")
    console.print(f"Source: {PAPER}", style="dim")


def network(model: Model, facts: dict[str, Any]) -> None:
    """The layers, operators and totals of a network."""
    lines, batch = outline(model), facts["batch"]
    bond = "" if model.bond is None else f", bond {model.bond}"
    console = people()
    console.print(f"{model.name} ({model.variant}{bond})\n", style="bold")
    headings = ["layer", "kind", "output", "parameters", "products"]
    print_grid(console, headings, list(_rows(lines, batch, "")), words=WORDS)
    console.print()
    if facts["rho"] is not None:
        _print_operators(console, model, batch)
        console.print()
    console.print(_totals(facts))
    console.print()
    plans = "" if facts["rho"] is None else f"; plans: batch {batch}, {facts['plan_machine']}"
    console.print(f"Products: multiplications for one image{plans}.", style="dim")
    if any(len(line.infos) > 1 for line in lines):
        console.print(f"{TIMES}N: blocks that are alike, counted together.", style="dim")
    console.print(f"Source: {model.source}", style="dim")


def _rows(lines: Iterable[Line], batch: int, indent: str) -> Iterator[tuple[str, ...]]:
    """A row for each line, followed by rows for the lines inside."""
    for line, *activations in joined(lines):
        products = sum(multiplications(info, batch) for info in line.infos)
        yield (
            indent + line.name,
            ", ".join(part.title for part in (line, *activations)),
            line.output,
            count(line.parameters) if line.parameters else "",
            count(products) if products else "",
        )
        for branch, mark in zip(line.branches, ("  ", "+ "), strict=False):
            yield from _rows(branch, batch, indent + mark)


def _print_operators(console: Console, model: Model, batch: int) -> None:
    """Notation, weights and plan of every operator.

    They are beside its name, or below it on a narrow terminal.
    """
    table = _aligned("left", "left")
    for operator in shapes.operators(model):
        kept, replaced = count(operator.shape.parameters), count(operator.replaced_weights)
        lines = (str(operator.shape), f"{kept} weights for {replaced}", str(operator_plan(operator, batch)))
        if console.width >= NARROW:
            table.add_row(operator.name, "\n".join(lines))
        else:
            console.print(operator.name, *lines, sep="\n", overflow="fold")
    if table.row_count:
        console.print(table)


def _totals(facts: dict[str, Any]) -> Table:
    """Totals of the network, and the dense variant that they are compared with."""
    numbers = {key: count(value) for key, value in facts.items() if isinstance(value, int)}
    replaced = facts["rho"] is not None
    dense = f"of {numbers['dense_parameters']}: whole ratio {facts['parameter_ratio']:.5f}"
    table = _aligned("left", "right", "left")
    table.add_row("parameters", numbers["parameters"], dense if replaced else "")
    table.add_row("  weights", numbers["weights"])
    table.add_row("  biases", numbers["biases"])
    if facts["norms"]:
        table.add_row("  batch norms", numbers["norms"], f"and {numbers['statistics']} running statistics besides")
    table.add_row(
        "products", numbers["plan_multiplications"], f"of {numbers['dense_multiplications']}" if replaced else ""
    )
    if replaced:
        kept = f"Eq. 9: {numbers['mpo_weights']} weights for {numbers['replaced_weights']}"
        table.add_row("rho", f"{facts['rho']:.4g}", kept)
    else:
        table.add_row("rho", "none", "nothing is replaced")
    return table


def _aligned(*sides: Any) -> Table:
    """Columns without headings and rules."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for side in sides:
        table.add_column(justify=side, overflow="fold")
    return table
