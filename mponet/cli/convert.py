"""``mponet convert``: a checkpoint as the state dict of a framework, and back."""

from pathlib import Path

import click

from mponet.backend import TRAINABLE
from mponet.cli.evaluate import find
from mponet.cli.output import json_option, print_json, refusing
from mponet.errors import CheckpointError
from mponet.export.native import CANONICAL, to_canonical, to_native


@click.command(
    epilog="""\b
Examples:
  mponet convert runs/fc2-digits-torch-short-seed0/mpo fc2.safetensors --to torch
  mponet convert fc2.safetensors checkpoint.safetensors --to canonical
"""
)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--to", required=True, type=click.Choice([*TRAINABLE, CANONICAL]), help="Names and layouts of the result."
)
@json_option
def convert(source: Path, out: Path, to: str, as_json: bool) -> None:
    """Write a checkpoint in the names and layouts of a framework, and back.

    IN is a checkpoint or the folder of a run, or with --to canonical what this command wrote.  The
    numbers stay the same, bit for bit.  OUT is a safetensors file; torch's load_state_dict takes
    its tensors as they are.
    """
    with refusing():
        if to == CANONICAL:
            names = list(to_canonical(source, out).parameters)
        else:
            found = find(source)
            if len(found) > 1:
                raise CheckpointError(f"{source} holds {len(found)} networks; expected one; name {found[0].parent}")
            names = to_native(found[0], out, to)
    print_json({"out": str(out), "to": to, "tensors": names}) if as_json else click.echo(
        f"{len(names)} tensors written to {out}"
    )
