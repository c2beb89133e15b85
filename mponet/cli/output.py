"""What the subcommands share: their common options, and the two ways to speak, to people and to programs."""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.text import Text

from mponet.models import TABLE, VARIANTS

F = TypeVar("F", bound=Callable[..., Any])

model_argument = click.argument("model", metavar="MODEL")
variant_option = click.option(
    "--variant",
    type=click.Choice(VARIANTS),
    default="mpo",
    show_default=True,
    help="The normal network, or the one with operators.",
)
bond_option = click.option(
    "--bond",
    type=int,
    metavar="D",
    help="Bond dimension of the operators; the published one if left out.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")

#: For docstrings of commands that take a model.
MODELS = ", ".join(f"{name} ({family.title})" for name, family in TABLE.items())


def people() -> Console:
    """Standard output for people: colours on a terminal only, ``NO_COLOR`` respected, brackets left as they are."""
    return Console(highlight=False, markup=False)


def notice(message: str) -> None:
    """One line on standard error, where it never mixes with results."""
    Console(stderr=True, highlight=False).print(Text(message), soft_wrap=True)


def fail(message: str) -> None:
    """One red line on standard error."""
    Console(stderr=True, highlight=False).print(Text(f"error: {message}", style="red"), soft_wrap=True)


def emit(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output, ASCII; no NaN or infinity, which JSON does not have."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def count(number: int) -> str:
    """A whole number with its thousands apart: ``15 104``."""
    return f"{number:,}".replace(",", " ")


def dimensions(shape: tuple[int, ...]) -> str:
    """A shape as ``28x28x1``."""
    return "x".join(map(str, shape))
