"""What the subcommands share: their common options, and the two ways to speak, to people and to programs."""

import json
import re
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.text import Text

from mponet.models import FAMILIES, VARIANTS, full_name
from mponet.models.outline import count as count
from mponet.models.resnet import K

F = TypeVar("F", bound=Callable[..., Any])


def model_argument(command: F) -> F:
    """MODEL and the options that complete its name; the command gets one ``model``, the full name."""
    return _model(command, required=True)


def optional_model_argument(command: F) -> F:
    """The same for a command that goes without: then ``model`` is None."""
    return _model(command, required=False)


def model_or_path_argument(command: F) -> F:
    """The same for a command that takes a file or a folder, too; ``model`` is then its path, as it was given."""
    return _model(command, required=True, paths=True)


def is_path(model: str) -> bool:
    """Whether a command that takes both means a file or a folder: one that is there, and no name of a network."""
    return Path(model).exists() and not any(re.fullmatch(family.pattern, model) for family in FAMILIES.values())


def _model(command: F, required: bool, paths: bool = False) -> F:
    @wraps(command)
    def complete(*args: Any, model: str | None, k: int | None, unit: bool, conv: bool, **others: Any) -> Any:
        if model is not None and not (paths and is_path(model)):
            model = full_name(model, k, unit=unit, conv=conv)
        elif k is not None or unit or conv:
            raise click.UsageError("--k, --unit and --conv complete a MODEL; name one.")
        return command(*args, model=model, **others)

    for parameter in (
        click.option("--conv", is_flag=True, help="DenseNet: also replace the last convolution (name: -conv)."),
        click.option("--unit", is_flag=True, help="ResNet: also replace the last block (name: -unit)."),
        click.option("--k", type=int, metavar="K", help=f"ResNet: widening factor (name: -k<K>).  Default: {K}."),
        click.argument("model", metavar=f"MODEL{'|CHECKPOINT' * paths}" if required else "[MODEL]", required=required),
    ):
        parameter(complete)
    return complete  # type: ignore[return-value]


variant_option = click.option(
    "--variant",
    type=click.Choice(VARIANTS),
    default="mpo",
    show_default=True,
    help="Network variant.",
)
bond_option = click.option(
    "--bond",
    type=int,
    metavar="D",
    help="Bond dimension.  Default: the published one.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")

#: For docstrings of commands that take a model.
MODELS = ", ".join(f"{family.spelling} ({family.title})" for family in FAMILIES.values())


def people() -> Console:
    """Standard output for people: colours on a terminal only, ``NO_COLOR`` respected, brackets left as they are."""
    return Console(highlight=False, markup=False)


def print_status(message: str) -> None:
    """One line on standard error, where it never mixes with results."""
    Console(stderr=True, highlight=False).print(Text(message), soft_wrap=True)


def fail(message: str) -> None:
    """One red line on standard error."""
    Console(stderr=True, highlight=False).print(Text(f"error: {message}", style="red"), soft_wrap=True)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output, ASCII; no NaN or infinity, which JSON does not have."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))
