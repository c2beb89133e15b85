"""``mponet info``: what a network is made of, or which networks there are."""

import click
from click.core import ParameterSource

from mponet import models
from mponet.cli import tables
from mponet.cli.facts import describe, listed
from mponet.cli.output import bond_option, json_option, optional_model_argument, print_json, variant_option
from mponet.cli.plan import MAX_BATCH
from mponet.contraction.program import DEFAULT_BATCH


@click.command(
    epilog="""\b
Examples:
  mponet info                        every network of the paper in one table
  mponet info fc2 --bond 8           another bond dimension
  mponet info resnet20 --k 2 --unit
  mponet info lenet5 --variant dense --json
"""
)
@optional_model_argument
@variant_option
@bond_option
@click.option(
    "--batch",
    type=click.IntRange(1, MAX_BATCH),
    default=DEFAULT_BATCH,
    show_default=True,
    help="Batch size to plan for.",
)
@json_option
@click.pass_context
def info(context: click.Context, model: str | None, variant: str, bond: int | None, batch: int, as_json: bool) -> None:
    """Show the layers, counts and compression ratios of a network.

    Without a MODEL: one line for each network of the paper.

    Counts of parameters include biases.  rho is the compression ratio of the paper (Eq. 9): weights
    of the operators over weights of the layers that they replace, biases left out; a convolution
    counts its kernel.  The whole ratio is parameters of the network over those of the dense one.
    Plans are made with the default constants of PyTorch on a CPU; a layer chooses its own plans.
    """
    if model is None:
        for option in ("variant", "bond", "batch"):
            if context.get_parameter_source(option) != ParameterSource.DEFAULT:
                raise click.UsageError(f"--{option} is for one MODEL; name it.")
        rows = [listed(name) for name in models.published()]
        print_json({"models": rows}) if as_json else tables.networks(rows)
    else:
        network = models.build(model, variant, bond)
        facts = describe(network, batch)
        print_json(facts) if as_json else tables.network(network, facts)
