"""``mponet crosscheck``: do the frameworks compute the same numbers?"""

import click
from rich.console import Console
from rich.table import Table

from mponet import models
from mponet.cli.output import bond_option, emit, json_option, model_argument, people
from mponet.crosscheck import Report, crosschecks
from mponet.crosscheck.case import DTYPES
from mponet.crosscheck.check import BATCH, participants
from mponet.models import VARIANTS


@click.command(
    epilog="""\b
Examples:
  mponet crosscheck fc2
  mponet crosscheck lenet5 --backends torch,jax --dtype float32
  mponet crosscheck fc2 --variant mpo --bond 4 --json
"""
)
@model_argument
@click.option(
    "--variant",
    type=click.Choice([*VARIANTS, "both"]),
    default="both",
    show_default=True,
    help="The normal network, the one with operators, or both.",
)
@bond_option
@click.option("--backends", metavar="A,B,...", help="Frameworks to compare; all that are installed if left out.")
@click.option("--dtype", type=click.Choice(DTYPES), default=DTYPES[0], show_default=True, help="What to compute in.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of parameters and batch.")
@click.option("--batch", type=click.IntRange(min=1), default=BATCH, show_default=True, help="Number of images.")
@json_option
@click.pass_context
def crosscheck(
    context: click.Context,
    model: str,
    variant: str,
    bond: int | None,
    backends: str | None,
    dtype: str,
    seed: int,
    batch: int,
    as_json: bool,
) -> None:
    """Prove that the frameworks compute the same numbers.

    Same parameters and same batch through every framework, each in a process of its own: logits, loss, the gradient of
    every parameter, and training with three optimisers (20 steps on end in float64, single steps in float32).  The
    numpy reference, which contracts the tensor network itself, takes part in logits and loss.  Exit status 1 when an
    error is beyond its bound.
    """
    wanted = VARIANTS if variant == "both" else (variant,)
    networks = [models.build(model, kind, bond if kind == "mpo" or variant == "dense" else None) for kind in wanted]
    names = participants(None if backends is None else [name for name in backends.split(",") if name.strip()])
    with Console(stderr=True).status(f"{', '.join(names)}: computing, each in a process of its own"):
        reports = crosschecks(networks, backends=names, dtype=dtype, seed=seed, batch=batch)
    ok = all(report.ok for report in reports)
    if as_json:
        emit({"ok": ok, "reports": [report.as_dict() for report in reports]})
    else:
        for report in reports:
            _show(report)
    context.exit(0 if ok else 1)


def _show(report: Report) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "quantity", "between", "error", "bound", "worst in"):
        table.add_column(heading, justify="right" if heading in ("error", "bound") else "left", no_wrap=True)
    for found in report.comparisons:
        numbers = f"{found.error:.1e}", f"{found.bound:.1e}"
        row = (found.quantity, f"{found.first}, {found.second}", *numbers, found.worst)
        table.add_row("✓" if found.ok else "✗", *row, style="" if found.ok else "red")
    console = people()
    console.print(report.title, style="bold")
    console.print(table)
    console.print(f"{report.verdict}\n")
