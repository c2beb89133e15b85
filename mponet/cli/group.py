"""The command group: finds a subcommand's module when it is needed, and turns errors into one line."""

import os
from importlib import import_module
from typing import Any

import click

from mponet._version import __version__
from mponet.cli.output import fail
from mponet.errors import MPONetError

#: Subcommands in the order of the help, with their line in it; `mponet.cli.<name>` holds the
#: command of that name.
COMMANDS = {
    "run": "Train a network, and record what happened.",
    "suite": "Train the paper's networks over several seeds, and tabulate them beside its figures.",
    "report": "Make one page of a suite or a run, with tables, curves and spectra.",
    "evaluate": "Measure a trained network on its test set.",
    "info": "Show the layers, counts and compression ratios of a network.",
    "draw": "Draw a network, its operators as tensor diagrams.",
    "plan": "Explain how a layer with factors INPUTS and OUTPUTS is contracted.",
    "tune": "Measure this machine for the choice of plans.",
    "backends": "Show which frameworks are installed, and which one is used.",
    "crosscheck": "Prove that the frameworks compute the same numbers.",
    "bench": "Measure speed and memory beside dense layers and other packages.",
}


class Commands(click.Group):
    """A group whose subcommands are imported one at a time, so that help and light commands start fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; None for a usage error."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"mponet.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the help, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a subcommand; an error of ours is one line and exit status 1 (``MPONET_DEBUG=1``: with its traceback)."""
        try:
            return super().invoke(ctx)
        except MPONetError as error:
            if os.environ.get("MPONET_DEBUG", "") not in ("", "0"):
                raise
            fail(str(error))
            ctx.exit(1)


EPILOG = """\b
Examples:
  mponet run fc2
  mponet info fc2 --bond 8
  mponet draw lenet5
  mponet crosscheck fc2

Every command takes --json and --help.  MPONET_BACKEND picks the framework, MPONET_DATA the folder of the data sets.
"""


@click.command(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mponet")
def mponet() -> None:
    """Neural networks with matrix product operators, on PyTorch, JAX and TensorFlow alike."""
