"""The tables of ``mponet info``, at home in 80 columns."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich import box
from rich.table import Table

from mponet import models
from mponet.cli.output import count, people
from mponet.models import shapes
from mponet.models.cost import multiplications, operator_plan
from mponet.models.outline import TIMES, Line, joined, outline
from mponet.models.spec import PAPER, Model

WORDS = {"network", "data", "source", "layer", "kind"}  # headings of columns that are not numbers


def networks(rows: Sequence[dict[str, Any]]) -> None:
    """Every network in one line, a rule between families."""
    table = _table("network", "data", "parameters", "MPO network", "ratio", "rho", "source")
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        table.add_row(
            row["model"],
            row["data"],
            count(row["dense_parameters"]),
            count(row["parameters"]),
            f"{row['parameter_ratio']:.4f}",
            f"{row['rho']:.3g}",
            row["source"],
            end_section=following is not None and following["title"] != row["title"],
        )
    console = people()
    console.print(table)
    console.print()
    console.print("ratio: parameters of the MPO network over those of the dense network, biases included.")
    console.print("rho (Eq. 9): weights of the operators over weights of the layers that they replace.")
    console.print(f"Names are made like this: {models.spellings()}.")
    console.print(f"Source: {PAPER}", style="dim")


def network(model: Model, facts: dict[str, Any]) -> None:
    """The layers, operators and totals of a network."""
    lines, batch = outline(model), facts["batch"]
    table = _table("layer", "kind", "output", "parameters", "products")
    for row in _rows(lines, batch, ""):
        table.add_row(*row)
    bond = "" if model.bond is None else f", bond {model.bond}"
    console = people()
    console.print(f"{model.name} ({model.variant}{bond})\n", style="bold")
    console.print(table)
    console.print()
    if facts["rho"] is not None:
        console.print(_operators(model, batch))
        console.print()
    console.print(_totals(facts))
    console.print()
    plans = "" if facts["rho"] is None else f"; plans are for {batch} at a time"
    console.print(f"Products are multiplications for one image{plans}.", style="dim")
    if any(len(line.infos) > 1 for line in lines):
        console.print(f"{TIMES}N: blocks that are alike, counted together.", style="dim")
    console.print(f"Source: {model.source}", style="dim")


def _table(*headings: str) -> Table:
    """A table with a rule under its headings, words on the left and numbers on the right."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="left" if heading in WORDS else "right", no_wrap=True)
    return table


def _rows(lines: Iterable[Line], batch: int, indent: str) -> Iterator[tuple[str, ...]]:
    """A row for each line, and those inside under it."""
    for line, *activations in joined(lines):
        products = sum(multiplications(info, batch) for info in line.infos)
        yield (
            indent + line.name,
            ", ".join(one.title for one in (line, *activations)),
            line.output,
            count(line.parameters) if line.parameters else "",
            count(products) if products else "",
        )
        for branch, mark in zip(line.branches, ("  ", "+ "), strict=False):
            yield from _rows(branch, batch, indent + mark)


def _operators(model: Model, batch: int) -> Table:
    table = _aligned("left", "left")
    for operator in shapes.operators(model):
        kept, replaced = count(operator.shape.parameters), count(operator.replaced_weights)
        plan = operator_plan(operator, batch)
        table.add_row(operator.name, f"{operator.shape}\n{kept} weights for {replaced}\n{plan}")
    return table


def _totals(facts: dict[str, Any]) -> Table:
    """What it all comes to, and what that is compared with."""
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
        table.add_column(justify=side)
    return table
