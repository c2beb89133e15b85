"""``mponet draw``: a network as a text diagram."""

from dataclasses import asdict

import click

from mponet import models
from mponet.cli.output import bond_option, emit, json_option, model_argument, variant_option
from mponet.draw import sheet
from mponet.draw.text import sites
from mponet.models import infer
from mponet.models.layers import Model


@click.command(
    epilog="""\b
Examples:
  mponet draw fc2
  mponet draw fc2 --bond 4
  mponet draw resnet20 --k 2 --unit
  mponet draw lenet5 --variant dense
"""
)
@model_argument
@variant_option
@bond_option
@json_option
def draw(model: str, variant: str, bond: int | None, as_json: bool) -> None:
    """Draw a network, its operators as tensor diagrams.

    A box is a core; its leg up is a factor of the outputs, its leg down one of the inputs, and the bonds between boxes
    carry their dimensions.  Blocks that are alike are drawn once.  At most 80 columns.
    """
    network = models.build(model, variant, bond)
    if as_json:
        named = {"model": network.name, "variant": variant, "bond": bond}
        emit({**named, "operators": _operators(network), "text": sheet(network)})
    else:
        click.echo(sheet(network))


def _operators(model: Model) -> dict[str, list[dict[str, str | int | None]]]:
    """The boxes of every operator by the layer's name."""
    return {
        getattr(info.layer, "name", ""): [asdict(site) for site in sites(info.mpo)]
        for info in infer.leaves(model)
        if info.mpo is not None
    }
