"""``mponet crosscheck``: do the frameworks compute the same numbers?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

from mponet import models
from mponet.cli.grid import print_grid
from mponet.cli.output import bond_option, error_console, json_option, people, print_json
from mponet.crosscheck import Report, crosschecks, markdown
from mponet.crosscheck.case import DTYPES, RECIPES
from mponet.crosscheck.check import BATCH, participants
from mponet.models import PAPER_VARIANTS, VARIANTS, Model, miniatures
from mponet.recipe import Recipe

SMALL_BATCH = 8
FULL_BATCH = 4
#: What ``--full`` compares when no network is named: each wiring of each family at a published
#: size.
FULL = (
    *("fc2", "lenet5", "vgg16", "vgg19", "resnet20", "resnet56", "resnet56-unit"),
    *("densenet40-12", "densenet40-12-conv"),
)


@dataclass(frozen=True, slots=True)
class Group:
    """Networks that go through the processes together.

    Attributes:
        networks: the networks.
        batch: number of images.
        recipes: what each is trained with.
    """

    networks: Sequence[Model]
    batch: int
    recipes: Sequence[Sequence[Recipe]]


@click.command(
    epilog="""\b
Examples:
  mponet crosscheck                  a small instance of each network of the paper
  mponet crosscheck fc2 lenet5 --dtype float64
  mponet crosscheck fc2 --variant mpo --bond 4 --backends torch,jax
  mponet crosscheck --full           the published sizes, half an hour on two cores
  mponet crosscheck vgg16 --full --dtype float32 --json
"""
)
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--variant",
    type=click.Choice([*VARIANTS, "both"]),
    default="both",
    show_default=True,
    help="Network variant.",
)
@bond_option
@click.option("--full", is_flag=True, help="Published sizes, on a few images: forward pass and gradients only.")
@click.option("--backends", metavar="A,B,...", help="Frameworks to compare.  Default: all that are installed.")
@click.option(
    "--dtype", type=click.Choice([*DTYPES, "both"]), default="both", show_default=True, help="Floating-point type."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of parameters and batch."
)
@click.option(
    "--batch",
    type=click.IntRange(min=2),
    help=f"Number of images.  Default: {BATCH}; {SMALL_BATCH} without a MODEL; {FULL_BATCH} with --full.",
)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print one Markdown table of the largest errors.")
@json_option
@click.pass_context
def crosscheck(
    context: click.Context,
    names: tuple[str, ...],
    variant: str,
    bond: int | None,
    full: bool,
    backends: str | None,
    dtype: str,
    seed: int,
    batch: int | None,
    as_markdown: bool,
    as_json: bool,
) -> None:
    """Prove that the frameworks compute the same numbers.

    Same parameters and same batch through every framework, each in a process of its own: logits,
    with dropout masks as well, loss in training mode, running statistics, the gradient of every
    parameter, and training with three optimisers (20 steps on end in float64, single steps in
    float32).  The numpy reference, which contracts the tensor network itself, takes part in all
    that needs no gradient.  Exit status 1 when an error is beyond its bound.

    Without a MODEL: a small instance of each network of the paper, trained with the optimiser that
    has everything, FC2 with all three.
    """
    variants = PAPER_VARIANTS if variant == "both" else (variant,)
    groups = list(_groups(names, variants, bond, full, batch))
    taking_part = participants(None if backends is None else [name for name in backends.split(",") if name.strip()])
    reports: list[Report] = []
    for group in groups:
        for kind in DTYPES if dtype == "both" else (dtype,):
            what = ", ".join(dict.fromkeys(network.name for network in group.networks))
            with error_console().status(f"{what} in {kind}: {', '.join(taking_part)}, each in its own process"):
                found = crosschecks(
                    group.networks,
                    backends=taking_part,
                    dtype=kind,
                    seed=seed,
                    batch=group.batch,
                    recipes=group.recipes,
                )
            reports += found
            for report in () if as_json or as_markdown else found:
                _show(report)
    ok = all(report.ok for report in reports)
    if as_json:
        print_json({"ok": ok, "reports": [report.as_dict() for report in reports]})
    elif as_markdown:
        click.echo(markdown(reports))
    context.exit(0 if ok else 1)


def _groups(
    names: Sequence[str], variants: Sequence[str], bond: int | None, full: bool, batch: int | None
) -> Iterator[Group]:
    """What is compared; published sizes one by one, because they are large and take long."""
    if not names and bond is not None:
        raise click.UsageError("--bond is for a MODEL; name one.")
    if full:
        for name in names or FULL:
            networks = _built(name, variants, bond)
            yield Group(networks, batch or FULL_BATCH, [()] * len(networks))
    elif names:
        networks = [network for name in names for network in _built(name, variants, bond)]
        yield Group(networks, batch or BATCH, [RECIPES] * len(networks))
    else:
        networks = [network for kind in variants for network in miniatures.networks(kind)]
        yield Group(networks, batch or SMALL_BATCH, small_recipes(networks))


def small_recipes(networks: Sequence[Model]) -> list[Sequence[Recipe]]:
    """An optimiser sees tensors, not networks.

    One network is enough for those of which the last has everything.
    """
    return [RECIPES if network.name == "fc2" else RECIPES[-1:] for network in networks]


def _built(name: str, variants: Sequence[str], bond: int | None) -> list[Model]:
    return [models.build(name, kind, None if kind == "dense" and len(variants) > 1 else bond) for kind in variants]


def _show(report: Report) -> None:
    rows, styles = [], {}
    for index, comparison in enumerate(report.comparisons):
        numbers = f"{comparison.error:.1e}", f"{comparison.bound:.1e}"
        pair, worst = f"{comparison.first}, {comparison.second}", f"{comparison.worst}{comparison.measured}"
        rows.append(("✓" if comparison.ok else "✗", comparison.quantity, pair, *numbers, worst))
        styles[index] = "" if comparison.ok else "red"
    console = people()
    console.print(report.title, style="bold")
    headings = ("", "quantity", "between", "error", "bound", "worst in")
    print_grid(console, headings, rows, words={"", "quantity", "between", "worst in"}, keys=3, styles=styles)
    console.print(f"{report.verdict}\n")
