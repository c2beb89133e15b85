"""``mponet inspect``: what a checkpoint holds, and what compression would gain."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from mponet.cli.output import json_option, print_json, refusing
from mponet.compress.stream.rules import matrices, targets
from mponet.compress.stream.sources import Source, open_source, read_json

#: Relative errors for which the rank is shown.
ERRORS = (0.1, 0.3)


@click.command(
    epilog="""\b
Examples:
  mponet inspect model.safetensors
  mponet inspect model --spectra
"""
)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--spectra", is_flag=True, help="Also read the matrices, and show the rank that an error needs.")
@json_option
def inspect(path: Path, spectra: bool, as_json: bool) -> None:
    """Show what a checkpoint holds, and how well its matrices compress.

    Without --spectra only headers are read.
    """
    with refusing():
        source = open_source(path)
        facts = _facts(source, spectra)
    if as_json:
        print_json(facts)
        return
    click.echo(f"{path}: {facts['tensors']} tensors, {facts['weights']:,} weights, {facts['bytes'] / 1e6:.1f} MB")
    for row in facts["matrices"]:
        ranks = "".join(f"  rank {rank} at error {error}" for error, rank in row.get("ranks", {}).items())
        why = f"  ({row['why_not']})" if row["why_not"] else ""
        click.echo(f"  {row['name']}\n    {row['rows']} x {row['columns']} {row['kind']}, {row['dtype']}{ranks}{why}")


def _facts(source: Source, spectra: bool) -> dict[str, Any]:
    config = {file.name: file for file in source.carried}.get("config.json")
    found = matrices(source, {} if config is None else read_json(config))
    rows = []
    for matrix, target in zip(found, targets(source, found), strict=True):
        row: dict[str, Any] = {
            "name": matrix.module,
            "kind": matrix.kind,
            "rows": target.in_features,
            "columns": target.out_features,
            "dtype": source.entries[matrix.tensor].dtype,
            "why_not": matrix.why_not,
        }
        if spectra and not matrix.why_not:
            row["ranks"] = _ranks(target.load())
        rows.append(row)
    entries = source.entries.values()
    return {
        "tensors": len(source.entries),
        "weights": sum(entry.size for entry in entries),
        "bytes": sum(entry.nbytes for entry in entries),
        "matrices": rows,
    }


def _ranks(matrix: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, int]:
    """The rank that each relative error needs."""
    values = np.linalg.svd(matrix, compute_uv=False)
    energy = np.cumsum((values**2)[::-1])[::-1]
    norm = energy[0] if len(energy) else 0.0
    return {str(error): int((energy > error**2 * norm).sum()) for error in ERRORS}
