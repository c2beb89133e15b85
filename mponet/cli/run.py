"""``mponet run``: train a network, and record what happened."""

import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from sys import exit as leave

import click
from rich.table import Table

from mponet.backend import choose, load
from mponet.cli import INTERRUPTED
from mponet.cli.output import (
    MODELS,
    bond_option,
    count,
    fail,
    json_option,
    model_argument,
    people,
    print_json,
    print_status,
)
from mponet.cli.progress import watcher
from mponet.models import PAPER_VARIANTS, VARIANTS, build
from mponet.training import data as datasets
from mponet.training.launch import group_environments, run_processes
from mponet.training.run import Result, check_shards, default_folder, resolve, summary
from mponet.training.run import run as train_variants
from mponet.training.run.settings import FEWEST

#: Variants by the word that means several.
SEVERAL: dict[str, tuple[str, ...]] = {"both": PAPER_VARIANTS, "all": VARIANTS}


@click.command(
    epilog=f"""\b
Examples:
  mponet run fc2                                   both variants on the bundled digits, seconds
  mponet run fc2 --data mnist --preset paper       the paper's recipe, 500 epochs
  mponet run fc2 --data mnist --bond 8 --variant mpo --epochs 3
  mponet run fc2 --data mnist --preset paper --resume

MODEL is one of: {MODELS}.
An epoch is one pass over the data set at hand.  A preset keeps its number of epochs on every data set, but trains at
least {FEWEST} steps.
"""
)
@model_argument
@click.option(
    "--variant",
    type=click.Choice([*VARIANTS, *SEVERAL]),
    default="both",
    show_default=True,
    help="Network variant; both trains dense and mpo one after the other, all also low-rank.",
)
@click.option(
    "--backend",
    metavar="B",
    help="Framework: torch, jax or tensorflow.  Default: $MPONET_BACKEND, else the first installed.",
)
@click.option("--data", metavar="NAME", help=f"Data set: {', '.join(datasets.names())}.  Default: digits.")
@click.option(
    "--preset",
    metavar="paper|short|code",
    default="short",
    show_default=True,
    help="Recipe: of the paper, a fast one, or of the authors' code (LeNet-5 only, learning rate 0.01).",
)
@click.option("--epochs", type=click.IntRange(min=1), metavar="E", help="Number of epochs.  Default: from the preset.")
@click.option("--steps", type=click.IntRange(min=1), metavar="S", help="Number of steps.  Default: from the preset.")
@bond_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Random seed.")
@click.option(
    "--device", metavar="D", help="Device, as `mponet backends --devices` lists them.  Default: the backend's own."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Output folder.  Default: runs/<model>-<data>-<backend>-<preset>-seed<N>, plus what else is set.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    metavar="N",
    help="Train with N processes on this machine, each with its share of every batch.",
)
@click.option(
    "--shard",
    is_flag=True,
    help="Each process keeps a share of the parameters: PyTorch's FSDP2, JAX's sharded arrays.",
)
@click.option(
    "--resume", is_flag=True, help="Continue an interrupted run; the result is the same as without the interruption."
)
@json_option
def run(
    model: str,
    variant: str,
    backend: str | None,
    data: str | None,
    preset: str,
    epochs: int | None,
    steps: int | None,
    bond: int | None,
    seed: int,
    device: str | None,
    out: Path | None,
    processes: int | None,
    shard: bool,
    resume: bool,
    as_json: bool,
) -> None:
    """Train a network, and record what happened.

    Started by torchrun, or in the environments that JAX and TensorFlow document for several
    processes, it trains with all of them; --processes sets these up on this machine.

    Exit status 1: an error, or training diverged.  130: interrupted.
    """
    variants = SEVERAL.get(variant, (variant,))
    build(model, variants[-1], bond)  # before anything slow: the two that people get wrong
    chosen = choose(backend)
    if shard:
        check_shards(load(chosen.name))
    if processes is not None and processes > 1:
        _together(chosen.name, processes)
    framework = load(chosen.name)
    leads = framework.group().leads
    dataset = datasets.load(data or datasets.default_name())
    settings = resolve(
        model,
        data=dataset.name,
        images=len(dataset.train_images),
        preset_name=preset,
        epochs=epochs,
        steps=steps,
        bond=bond,
        seed=seed,
    )
    folder = out or default_folder(settings, chosen.name, epochs=epochs, steps=steps)
    if leads:
        print_status(f"data: {dataset.name}, {dataset.source}{'' if data else '; --data names another'}")
        print_status(f"backend: {chosen.name}, {chosen.why}")
    try:
        with watcher() if leads else nullcontext() as watching:
            results = train_variants(
                settings,
                framework,
                dataset,
                folder,
                variants=variants,
                resume=resume,
                device=device,
                shard=shard,
                reporter=watching,
            )
    except KeyboardInterrupt:
        if leads:
            print_status(f"stopped; {folder} keeps what was done; the same command with --resume continues")
        leave(INTERRUPTED)
    if not leads:
        return
    print_json({**summary(settings, chosen.name, results), "folder": str(folder)}) if as_json else _show(
        results, folder
    )
    for name, result in results.items():
        if result.message is not None:
            fail(f"{name}: {result.message}")
    if any(result.diverged for result in results.values()):
        leave(1)


def _together(backend: str, count: int) -> None:
    """Run this command in several processes, and leave with their exit status."""
    words = iter(sys.argv[1:])
    command = [word for word in words if not (word == "--processes" and next(words, None))]
    command = [word for word in command if not word.startswith("--processes=")]
    try:
        statuses = run_processes(command, group_environments(backend, count), lambda *_: None, together=True)
    except KeyboardInterrupt:
        leave(INTERRUPTED)
    if failed := [status for status in statuses if status < 0]:
        fail(f"a process was killed by {signal.Signals(-failed[0]).name}; the same command with --resume continues")
    leave(max((1 if status < 0 else status) for status in statuses))


def _show(results: Mapping[str, Result], folder: Path) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("variant")
    for title in ("accuracy", "best", "parameters", "of dense", "rho", "step", "time"):
        table.add_column(title, justify="right")
    for name, result in results.items():
        table.add_row(name, *_cells(result))
    people().print()
    people().print(table)
    people().print()
    click.echo(f"checkpoints, metrics and results: {folder}")


def _cells(result: Result) -> tuple[str, ...]:
    return (
        "diverged" if result.accuracy is None else f"{result.accuracy:.2%}",
        "" if result.best_accuracy is None else f"{result.best_accuracy:.2%}",
        count(result.parameters),
        f"{result.parameter_ratio:.2%}",
        "" if result.rho is None else f"{result.rho:.4f}",
        "" if result.step_ms is None else f"{result.step_ms:.2f} ms",
        f"{result.seconds:.1f} s",
    )
