"""``mponet merge``: a compressed checkpoint back to dense matrices."""

from pathlib import Path

import click

from mponet.cli.output import json_option, print_json, refusing
from mponet.compress.stream.merge import merge as merge_files


@click.command(
    epilog="""\b
Examples:
  mponet merge small dense
  mponet merge small dense --json
"""
)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@json_option
def merge(source: Path, out: Path, as_json: bool) -> None:
    """Multiply the operators of a compressed checkpoint out again.

    IN is what `mponet compress` wrote.  OUT is a new folder, which loads as the network did before.
    The products are formed in float64.
    """
    with refusing():
        plan = merge_files(source, out)
    if as_json:
        print_json({"merged": [layer.name for layer in plan.replaced], "out": str(out)})
    else:
        click.echo(f"{len(plan.replaced)} operators merged, written to {out}")
