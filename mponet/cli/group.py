"""The command group.

Finds a subcommand's module when it is needed, and turns errors into one line.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from mponet._version import __version__
from mponet.cli import INTERRUPTED, was_interrupted
from mponet.cli.output import fail, print_status
from mponet.errors import MPONetError

#: Subcommands in the order of the help, with their line in it; `mponet.cli.<name>` holds the
#: command of that name.
COMMANDS = {
    "run": "Train a network, and record what happened.",
    "suite": "Train the paper's networks over several seeds, and compare them with its figures.",
    "report": "Make one page of a suite, a run or a compressed network, with tables, curves and spectra.",
    "evaluate": "Measure a trained network on its test set.",
    "compress": "Replace the matrices of a checkpoint with operators.",
    "calibrate": "Run a network on data, and write the sums that compression fits its layers to.",
    "merge": "Multiply the operators of a compressed checkpoint out again.",
    "export": "Write a network to a file that runs elsewhere.",
    "convert": "Write a checkpoint in the names and layouts of a framework, and back.",
    "inspect": "Show what a checkpoint holds.",
    "spectrum": "Show how well each matrix of a checkpoint compresses.",
    "info": "Show the layers, counts and compression ratios of a network.",
    "draw": "Draw a network, its operators as tensor diagrams.",
    "plan": "Explain how a layer with factors INPUTS and OUTPUTS is contracted.",
    "tune": "Measure this machine for the choice of plans.",
    "backends": "Show which frameworks are installed, and which one is used.",
    "crosscheck": "Prove that the frameworks compute the same numbers.",
    "bench": "Compare speed and memory with dense layers and other packages.",
}


class Commands(click.Group):
    """A group whose subcommands are imported one at a time.

    So help and light commands start fast.
    """

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
        """Run a subcommand.

        What goes wrong is one line and exit status 1 (``MPONET_DEBUG=1``: with its traceback).
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of standard output has had enough: click ends without a word
        except (MPONetError, OSError, MemoryError, OverflowError, RecursionError) as error:
            if was_interrupted():
                raise KeyboardInterrupt from error
            if os.environ.get("MPONET_DEBUG", "") not in ("", "0"):
                raise
            fail(_told(error))
            ctx.exit(1)

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **others: Any
    ) -> Any:
        """As click's, but Ctrl-C ends with status 130 and one line."""
        standalone = others.pop("standalone_mode", True)
        if not standalone:
            return super().main(args, prog_name, standalone_mode=False, **others)
        try:
            status = super().main(args, prog_name, standalone_mode=False, **others)
        except click.ClickException as error:
            error.show()
            status = error.exit_code
        except (KeyboardInterrupt, click.Abort):
            print_status("interrupted")
            status = INTERRUPTED
        sys.exit(status if isinstance(status, int) else 0)


def _told(error: BaseException) -> str:
    """A line for an error, ours or the system's."""
    if isinstance(error, MPONetError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory; expected more for this command; choose a smaller network, bond or batch"
    if isinstance(error, OSError):
        return f"the system refused: {error}; expected files and folders that can be read and written; see the path"
    return f"a number or a name is too large ({type(error).__name__}: {error}); expected less; choose smaller ones"


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
