"""What the subcommands share.

Their common options, and the two ways to speak, to people and to programs.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.text import Text

from mponet.errors import CheckpointError, MPONetError
from mponet.files import check_writable, to_json
from mponet.models import FAMILIES, VARIANTS, full_name
from mponet.models.outline import count as count
from mponet.models.resnet import K

F = TypeVar("F", bound=Callable[..., Any])


def model_argument(command: F) -> F:
    """MODEL and the options that complete its name.

    The command gets one ``model``, the full name.
    """
    return _model(command, required=True)


def optional_model_argument(command: F) -> F:
    """The same for a command that goes without: then ``model`` is None."""
    return _model(command, required=False)


def model_or_path_argument(command: F) -> F:
    """The same for a command that takes a file or a folder, too.

    ``model`` is then the path as the user gave it.
    """
    return _model(command, required=True, paths=True)


def is_path(model: str) -> bool:
    """Whether a command that takes both means a file or a folder.

    One that is there, and no name of a network.
    """
    # os.path.exists: unlike Path.exists it raises nothing, whatever the name is
    known = any(re.fullmatch(family.pattern, model) for family in FAMILIES.values())
    return not known and os.path.exists(model)  # noqa: PTH110


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


variant_option: Callable[[F], F] = click.option(
    "--variant",
    type=click.Choice(VARIANTS),
    default="mpo",
    show_default=True,
    help="Network variant.",
)
bond_option: Callable[[F], F] = click.option(
    "--bond",
    type=int,
    metavar="D",
    help="Bond dimension.  Default: the published one.",
)
json_option: Callable[[F], F] = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else."
)

#: For docstrings of commands that take a model.
MODELS = ", ".join(f"{family.spelling} ({family.title})" for family in FAMILIES.values())


class WritableFile(click.Path):
    """A file to write: refused at once where it could not be written after the work."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path."""
        path = Path(value)
        try:
            check_writable(path)
        except CheckpointError as error:
            self.fail(str(error), param, ctx)
        return path


class _ErrorConsole(Console):
    """Standard error; rich would end the process where its reader is gone."""

    def on_broken_pipe(self) -> None:
        """Say nothing more."""
        discard_errors()


def people() -> Console:
    """Standard output for people.

    Colours on a terminal only, ``NO_COLOR`` respected, brackets left as they are.
    """
    return Console(highlight=False, markup=False)


def error_console() -> Console:
    """Standard error for status lines and the live view."""
    return _ErrorConsole(stderr=True, highlight=False)


def print_status(message: str) -> None:
    """One line on standard error, where it never mixes with results."""
    _print_error(Text(message))


def fail(message: str) -> None:
    """One red line on standard error."""
    _print_error(Text(f"error: {message}", style="red"))


@contextmanager
def refusing() -> Iterator[None]:
    """Files and arguments that cannot be used.

    One line and exit status 2 (``MPONET_DEBUG=1``: with its traceback).
    """
    try:
        yield
    except MPONetError as error:
        if os.environ.get("MPONET_DEBUG", "") not in ("", "0"):
            raise
        fail(str(error))
        raise click.exceptions.Exit(2) from error


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output, ASCII.

    Null in place of NaN and infinities, which JSON does not have.
    """
    click.echo(to_json(value, indent=2))


def discard_errors() -> None:
    """Send standard error nowhere from now on: its reader is gone, or its disk is full."""
    with suppress(OSError, ValueError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stderr.fileno() if sys.stderr is not None else 2)
        os.close(sink)


def _print_error(text: Text) -> None:
    """Words on standard error; an error there does not stop the work."""
    try:
        error_console().print(text, soft_wrap=True)
    except (OSError, ValueError):  # ValueError: the stream is closed
        discard_errors()
