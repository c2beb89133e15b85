"""``mponet inspect``: what a checkpoint holds."""

from pathlib import Path
from typing import Any

import click

from mponet.cli.output import json_option, print_json, refusing
from mponet.compress.stream.rules import matrices, targets
from mponet.compress.stream.sources import Source, open_source, read_json


@click.command(
    epilog="""\b
Examples:
  mponet inspect model.safetensors
  mponet inspect model --json
"""
)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@json_option
def inspect(path: Path, as_json: bool) -> None:
    """Show what a checkpoint holds.

    Only headers are read.  `mponet spectrum` shows how well each matrix compresses.
    """
    with refusing():
        source = open_source(path)
        facts = _facts(source)
    if as_json:
        print_json(facts)
        return
    click.echo(f"{path}: {facts['tensors']} tensors, {facts['weights']:,} weights, {facts['bytes'] / 1e6:.1f} MB")
    for row in facts["matrices"]:
        why = f"  ({row['why_not']})" if row["why_not"] else ""
        click.echo(f"  {row['name']}\n    {row['rows']} x {row['columns']} {row['kind']}, {row['dtype']}{why}")


def _facts(source: Source) -> dict[str, Any]:
    config = {file.name: file for file in source.carried}.get("config.json")
    found = matrices(source, {} if config is None else read_json(config))
    rows = []
    for matrix, target in zip(found, targets(source, found), strict=True):
        rows.append(
            {
                "name": matrix.module,
                "kind": matrix.kind,
                "rows": target.in_features,
                "columns": target.out_features,
                "dtype": source.entries[matrix.tensor].dtype,
                "why_not": matrix.why_not,
            }
        )
    entries = source.entries.values()
    return {
        "tensors": len(source.entries),
        "weights": sum(entry.size for entry in entries),
        "bytes": sum(entry.nbytes for entry in entries),
        "matrices": rows,
    }
