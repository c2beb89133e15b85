"""``mponet compress``: a checkpoint of matrices to one of operators, without a framework."""

from dataclasses import replace
from pathlib import Path

import click

from mponet.cli.output import error_console, json_option, print_json, print_status, refusing
from mponet.compress.config import CompressConfig
from mponet.compress.plan import CompressionPlan
from mponet.compress.stream.job import plan_job, run_job
from mponet.compress.stream.worker import Order, work, work_on
from mponet.compress.structures import structure_names
from mponet.errors import CompressionError
from mponet.training.on_ray import run_on_ray


@click.command(
    epilog="""\b
Examples:
  mponet compress model small --keep 0.5 --dry-run
  mponet compress model small --keep 0.5 --exclude '.*lm_head'
  mponet compress model small --error 0.1 --calibration sums.safetensors --jobs 2
  mponet compress model small --keep 0.5 --worker        in as many processes as you like
"""
)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--keep", type=float, metavar="SHARE", help="Share of the matched weights that is left, such as 0.5.")
@click.option("--error", type=float, metavar="E", help="Largest relative error of any matrix, such as 0.1.")
@click.option(
    "--bond",
    type=click.IntRange(1),
    metavar="D",
    help="Bond of every operator: of balanced factors, or with --structure low-rank the rank.",
)
@click.option("--include", multiple=True, metavar="REGEX", help="Compress only these modules.  May be repeated.")
@click.option("--exclude", multiple=True, metavar="REGEX", help="Leave these modules dense.  May be repeated.")
@click.option(
    "--structure", "structures", multiple=True, type=click.Choice(structure_names()), help="Operators allowed."
)
@click.option("--min-weights", type=int, default=4096, show_default=True, metavar="N", help="Leave smaller ones dense.")
@click.option(
    "--calibration",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Sums of `mponet calibrate`.  May be repeated, for shares of the data.",
)
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, metavar="N", help="Processes.")
@click.option("--worker", is_flag=True, help="Share the matrices with other workers that see OUT, on any machine.")
@click.option("--engine", type=click.Choice(["ray"]), help="Work in N (--jobs) tasks of Ray (needs mponet[ray]).")
@click.option("--address", metavar="A", help="Of the Ray cluster.  Default: $RAY_ADDRESS, else one on this machine.")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@json_option
def compress(
    source: Path,
    out: Path,
    keep: float | None,
    error: float | None,
    bond: int | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    structures: tuple[str, ...],
    min_weights: int,
    calibration: tuple[Path, ...],
    jobs: int,
    worker: bool,
    engine: str | None,
    address: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Replace the matrices of a checkpoint with operators.

    IN is a safetensors file, a folder of them, or an .npz, .pt or .gguf file.  OUT is a new folder.
    One tensor is in memory at a time.  A command that was stopped goes on when it is given again.
    """
    with refusing():
        config = CompressConfig(
            keep=1.0 if bond is not None and keep is None and error is None else keep,
            error=error,
            include=_pattern(include),
            exclude=_pattern(exclude) or (),
            min_weights=min_weights,
            **({"structures": structures} if structures else {}),  # type: ignore[arg-type]
        )
        if worker + (engine is not None) + dry_run > 1:
            raise CompressionError("worker, engine and dry-run exclude one another; expected one of them")
        order = Order(source, out, config, calibration, bond, structures)
        job = order.open()
        if engine is not None:
            sums = tuple(file.resolve() for file in calibration)
            there = replace(order, source=source.resolve(), out=out.resolve(), calibration=sums)
            calls = {f"worker {number}": (there,) for number in range(1, jobs + 1)}
            run_on_ray(work_on, calls, _tell_task, address=address, cpus=1, gpus=0)
        with error_console().status("reading") as status:

            def progress(step: str, done: int, count: int) -> None:
                status.update(f"{step} {done} of {count}")

            made = plan_job if dry_run else work if worker or engine is not None else run_job
            plan = made(job, processes=jobs, progress=progress)
    _show(plan, None if dry_run else out, as_json)


def _tell_task(name: str, line: str) -> None:
    print_status(f"{name}: {line}")


def _pattern(patterns: tuple[str, ...]) -> str | None:
    """One regular expression for several; None for none."""
    return "|".join(f"(?:{pattern})" for pattern in patterns) or None


def _show(plan: CompressionPlan, out: Path | None, as_json: bool) -> None:
    if as_json:
        layers = {layer.name: {"keep": layer.keep, "output_error": layer.output_error} for layer in plan.replaced}
        print_json(
            {
                "keep": plan.keep,
                "network_keep": plan.network_keep,
                "weights": plan.network_weights,
                "dense_weights": plan.dense_network_weights,
                "replaced": layers,
                "out": None if out is None else str(out),
            }
        )
        return
    click.echo(plan)
    click.echo("nothing was written" if out is None else f"written to {out}")
