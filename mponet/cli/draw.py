"""``mponet draw``: a network as a picture, on the terminal or in a file."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import click
from click.core import ParameterSource

from mponet import models
from mponet.cli.evaluate import find
from mponet.cli.output import (
    WritableFile,
    bond_option,
    count,
    is_path,
    json_option,
    model_or_path_argument,
    print_json,
    print_status,
    variant_option,
)
from mponet.draw import FORMATS, DrawOptions, line, operators, render, save
from mponet.draw.overlay import KINDS, Kind
from mponet.draw.text import sites
from mponet.draw.theme import Theme
from mponet.errors import CheckpointError, InputError, ModelError
from mponet.models import shapes
from mponet.models.spec import Model
from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape
from mponet.training.checkpoint import load as read
from mponet.training.loop import evaluated

COLOURED = ("svg", "png", "html")


@click.command(
    epilog="""\b
Examples:
  mponet draw fc2
  mponet draw resnet20 --k 2 --unit -o resnet20.html
  mponet draw runs/fc2-digits-torch-short-seed0 -o trained.html --colour entropy
  mponet draw fc2 --layer fc1 -o fc1.png
  mponet draw lenet5 --line
"""
)
@model_or_path_argument
@click.option("-o", "--output", type=WritableFile(), metavar="FILE", help="Output file.")
@click.option("--layer", metavar="NAME", help="Draw only the operator of this layer.")
@click.option("--line", "as_line", is_flag=True, help="Print one line per operator: bonds, gauge and factors.")
@click.option(
    "--colour", type=click.Choice(KINDS), help="Quantity that the shades show; entropy and error need a CHECKPOINT."
)
@click.option("--cut", type=int, metavar="D", help="Bond dimension to truncate to for --colour error.")
@click.option(
    "--theme",
    type=click.Choice(["auto", "light", "dark"]),
    default="auto",
    show_default=True,
    help="Background of SVG and PNG; auto follows the screen in SVG and is light in PNG.",
)
@variant_option
@bond_option
@json_option
@click.pass_context
def draw(
    context: click.Context,
    model: str,
    variant: str,
    bond: int | None,
    output: Path | None,
    layer: str | None,
    as_line: bool,
    colour: Kind | None,
    cut: int | None,
    theme: Theme,
    as_json: bool,
) -> None:
    """Draw a network, its operators as tensor diagrams.

    A box is a core; its leg up is a factor of the outputs, its leg down one of the inputs, and the
    bonds between boxes carry their dimensions.  Blocks that are alike are drawn once.

    Without -o, text of at most 80 columns.  FILE ends in .txt, .svg, .png, .html or .dot: a page
    folds, unfolds and searches, works without a network and from a folder.  CHECKPOINT is a file,
    or the folder of a run: then arrows show which cores are isometries.
    """
    ending = "" if output is None else output.suffix.removeprefix(".").lower()
    if output is not None and ending not in FORMATS:
        raise InputError(f"{output} has the ending {ending!r}; expected one of .{', .'.join(FORMATS)}; rename it")
    if colour is not None and ending not in COLOURED:
        raise click.UsageError(f"--colour is for a FILE that ends in .{', .'.join(COLOURED)}.")
    if is_path(model):
        if context.get_parameter_source("bond") != ParameterSource.DEFAULT:
            raise click.UsageError("--bond is for a MODEL; a CHECKPOINT has its own.")
        network, cores = _trained(Path(model), variant)
    else:
        network, cores = models.build(model, variant, bond), {}
    options = DrawOptions(colour, cut, cores)
    thing = network if layer is None else _operator(network, layer, cores)
    name = "" if layer is None else f"{layer} of {network}"
    text = _lines(network, options, layer) if as_line else _text(thing, name)
    if output is not None:
        start = perf_counter()
        save(thing, output, options=options, theme=theme, name=name)
        print_status(f"wrote {output}: {count(output.stat().st_size)} bytes in {perf_counter() - start:.2f} s")
    if as_json:
        named = {"model": network.name, "variant": network.variant, "bond": network.bond}
        written = {} if output is None else {"file": str(output)}
        print_json({**named, **written, "operators": _operators(network), "text": text})
    elif output is None:
        click.echo(text)


def _trained(path: Path, variant: str) -> tuple[Model, dict[str, MPO]]:
    """The network of a checkpoint and its operators; of a run with several, that of the variant.

    Raises:
        CheckpointError: there is none.
    """
    found = [read(one) for one in find(path)]
    fitting = [one for one in found if one.model.variant == variant] if len(found) > 1 else found
    if not fitting:
        raise CheckpointError(
            f"{path} holds the variants {', '.join(one.model.variant for one in found)}; expected {variant}; name one "
            "with --variant"
        )
    checkpoint = fitting[0]
    return checkpoint.model, operators(checkpoint.model, evaluated(checkpoint.parameters, checkpoint.optimizer))


def _operator(model: Model, layer: str, cores: Mapping[str, MPO]) -> MPO | MPOShape:
    """The operator of one layer, with its cores where there are any.

    Raises:
        ModelError: the network has no operator of that name.
    """
    found = {operator.name: operator.shape for operator in shapes.operators(model)}
    if layer not in found:
        known = ", ".join(found) or "there is none"
        raise ModelError(f"layer is {layer!r}; expected a layer of {model} with an operator: {known}")
    return cores.get(layer, found[layer])


def _text(thing: Model | MPO | MPOShape, name: str) -> str:
    return str(render(thing, "txt", name=name)).removesuffix("\n")


def _lines(model: Model, options: DrawOptions, layer: str | None) -> str:
    """Every operator in one line of its own."""
    named = {operator.name: options.network(operator)[0] for operator in shapes.operators(model)}
    return "\n".join(f"{name}: {line(graph)}" for name, graph in named.items() if layer in (None, name))


def _operators(model: Model) -> dict[str, list[dict[str, str | int | None]]]:
    """The boxes of every operator by the layer's name."""
    return {operator.name: [asdict(site) for site in sites(operator.shape)] for operator in shapes.operators(model)}
