"""``mponet tune``: the constants of this machine, for the choice of plans."""

from dataclasses import asdict

import click

from mponet.backend import TRAINABLE, load
from mponet.cli.output import error_console, json_option, print_json
from mponet.contraction.calibrate import Tuning
from mponet.contraction.calibrate import tune as measure
from mponet.contraction.machine import DEFAULT_COSTS, DEFAULTS, path, save

#: What a GPU is asked for, as a multiple of the batches for a processor.
GPU_BATCHES = 32


@click.command(
    epilog="""\b
Examples:
  mponet tune
  mponet tune --backend jax
  mponet tune --dry-run --json
"""
)
@click.option(
    "--backend",
    metavar="B",
    help=f"Framework: {', '.join(TRAINABLE)}.  Default: $MPONET_BACKEND, else the first installed.",
)
@click.option("--dry-run", is_flag=True, help="Measure and print, but save nothing.")
@json_option
def tune(backend: str | None, dry_run: bool, as_json: bool) -> None:
    """Measure this machine for the choice of plans.

    It takes half a minute, and the machine should do nothing else.  The constants are kept in the
    user's cache folder (or MPONET_CACHE) and serve the same processor, number of cores and version
    of the framework.  Without them, cautious ones of a two-core machine serve.
    """
    planner = load(backend).planner
    key = planner.key("float32")
    with error_console().status("measuring") as status:
        times = GPU_BATCHES if planner.device else 1
        tuning = measure(planner.runner, DEFAULTS.get(key, DEFAULT_COSTS), times=times, progress=status.update)
    file = None if dry_run else save(key, planner.versions(), tuning.machine)
    if as_json:
        facts = {"error": tuning.error, "error_before": tuning.before, "file": str(file) if file else None}
        print_json({"backend": planner.name, "machine": asdict(tuning.machine), **facts})
    else:
        _show(planner.name, tuning)
        click.echo(f"kept in {file}" if file else f"not kept; without --dry-run they go to {path(key)}")


def _show(name: str, tuning: Tuning) -> None:
    machine = tuning.machine
    click.echo(f"{name}, {len(tuning.samples)} passes timed")
    for label, value, unit in (
        ("large products", machine.flops / 1e9, "GFLOP/s"),
        ("near memory", machine.cache_bandwidth / 1e9, "GB/s"),
        ("shared cache", machine.llc_bandwidth / 1e9, "GB/s"),
        ("far memory", machine.memory_bandwidth / 1e9, "GB/s"),
        ("a call", machine.call_overhead * 1e6, "us"),
        ("a small product", machine.bmm_overhead * 1e6, "us"),
        ("half speed at", machine.half_speed_size, "rows or columns"),
    ):
        click.echo(f"  {label:<16}{value:>10.3g} {unit}")
    click.echo(f"predictions are off by a factor of {tuning.error:.2f} (before: {tuning.before:.2f}), root mean square")
