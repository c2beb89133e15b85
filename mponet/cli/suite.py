"""``mponet suite``: the paper's experiments, in one folder and in spite of interruptions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from sys import exit as leave

import click
from rich.table import Table

from mponet.backend import choose, load
from mponet.cli import INTERRUPTED
from mponet.cli.output import fail, json_option, people, print_json, print_status
from mponet.cli.progress import watcher
from mponet.cli.progress_state import SuiteProgress
from mponet.models import PAPER_VARIANTS, VARIANTS
from mponet.training import data as datasets
from mponet.training.loop import Record
from mponet.training.run import Reporter, Result
from mponet.training.suite import Row, State, Suite, Training, plan, read, report, run_suite, states
from mponet.training.suite.published import Figure
from mponet.training.suite.settings import DEFAULT, SEEDS, data_of, default_folder, networks
from mponet.training.suite.table import Report
from mponet.training.suite.write import flat, percent, ratio
from mponet.training.suite.write import seeds as trainings


@click.command(
    epilog="""\b
Examples:
  mponet suite --models fc2,fc2:4,lenet5 --seeds 3 --out runs/mnist
  mponet suite --backend jax --preset paper --out runs/paper
  mponet suite --models fc2:4 --data digits --steps 500 --seeds 2
  mponet suite --models fc2:4,fc2:16 --variants dense,mpo,low-rank
  mponet suite --status runs/paper                from another terminal

The same command again goes on where it stopped, also after a kill, and tries again what failed.
"""
)
@click.option(
    "--backend",
    metavar="B",
    help="Framework: torch, jax or tensorflow.  Default: $MPONET_BACKEND, else the first installed.",
)
@click.option(
    "--preset",
    metavar="paper|short",
    default="short",
    show_default=True,
    help="Recipes: of the paper, or fast ones.",
)
@click.option(
    "--models",
    metavar="NAME[:BOND],...",
    default=",".join(DEFAULT),
    show_default=True,
    help="Networks.  BOND: bond dimension of the MPO variant.  Default: the published one.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    metavar="N",
    default=SEEDS,
    show_default=True,
    help="Number of random seeds, counted from 0; each is one training of each network.",
)
@click.option(
    "--variants",
    metavar="V,...",
    default=",".join(PAPER_VARIANTS),
    show_default=True,
    help=f"Variants of each network: {', '.join(VARIANTS)}.",
)
@click.option("--data", metavar="NAME", help="Data set for all networks.  Default: for each network that of the paper.")
@click.option("--epochs", type=click.IntRange(min=1), metavar="E", help="Number of epochs.  Default: from the preset.")
@click.option("--steps", type=click.IntRange(min=1), metavar="S", help="Number of steps.  Default: from the preset.")
@click.option(
    "--device", metavar="D", help="Device, as `mponet backends --devices` lists them.  Default: the backend's own."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Output folder.  Default: runs/suite-<backend>-<preset>, plus a short hash of all other settings.",
)
@click.option(
    "--status",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Show the progress of the suite in DIR, running or not, and train nothing.",
)
@json_option
def suite(
    backend: str | None,
    preset: str,
    models: str,
    seeds: int,
    variants: str,
    data: str | None,
    epochs: int | None,
    steps: int | None,
    device: str | None,
    out: Path | None,
    status: Path | None,
    as_json: bool,
) -> None:
    """Train the paper's networks over several seeds, and compare them with its figures.

    Every network is trained dense and MPO, or in the VARIANTS named; low-rank has operators with
    factors of one at the weights of the MPO.  DIR gets one run folder per training, and
    tables.md, tables.csv and tables.json after each.  A training that breaks or diverges does not
    stop the others.

    Exit status 1: something was wrong, or a training broke or diverged.
    """
    if status is not None:
        _tell(status, as_json)
        return
    wanted = networks(models.split(","))
    chosen = choose(backend)
    names = dict.fromkeys(data_of(network.model, data) for network in wanted)
    loaded = {name: datasets.load(name) for name in names}
    planned = plan(
        models.split(","),
        backend=chosen.name,
        images={one.name: len(one.train_images) for one in loaded.values()},
        preset=preset,
        seeds=seeds,
        data=data,
        epochs=epochs,
        steps=steps,
        variants=[variant.strip() for variant in variants.split(",")],
    )
    usual = replace(
        planned,
        networks=networks(DEFAULT),
        seeds=SEEDS,
        data=None,
        epochs=None,
        steps=None,
        images=planned.images,
        variants=PAPER_VARIANTS,
    )
    folder = out or default_folder(planned, usual)
    for one in loaded.values():
        print_status(f"data: {one.name}, {one.source}")
    print_status(f"backend: {chosen.name}, {chosen.why}")
    try:
        made = run_suite(planned, load(chosen.name), loaded, folder, device=device, observer=_Watching(planned, folder))
    except KeyboardInterrupt:
        print_status(f"stopped; {folder} keeps what was done; the same command continues")
        leave(INTERRUPTED)
    print_json({**made.as_dict(), "folder": str(folder)}) if as_json else _show(made, folder)
    for cells in (made.diverged, made.failed):
        for name, message in cells.items():
            fail(f"{name}: {flat(message)}")
    if not made.ok:
        leave(1)


class _Watching:
    """The reporter of single runs for each cell, and a line when it is finished."""

    def __init__(self, suite: Suite, folder: Path) -> None:
        self._suite, self._folder = suite, folder

    @contextmanager
    def watching(self, training: Training, number: int, count: int) -> Iterator[Reporter]:
        """The live view or lines, under the name of the training."""
        with watcher(_suite_progress(self._suite, self._folder, number)) as one:
            yield _Named(one, f"{number}/{count} {training}")

    def finished(self, training: Training, result: Result) -> None:
        """What came out."""
        told = f"test accuracy best {_percent(result.best_accuracy)}, last {_percent(result.accuracy)}"
        print_status(
            f"{training}: {'diverged' if result.diverged else told} after {result.steps} steps, {result.seconds:.1f} s"
        )

    def failed(self, training: Training, message: str) -> None:
        """What broke it."""
        fail(f"{training}: {flat(message)}")


class _Named:
    """Passes on what happens, under the name of the training."""

    def __init__(self, reporter: Reporter, name: str) -> None:
        self._reporter, self._name = reporter, name

    def started(self, variant: str, steps: int, per_epoch: int, earlier: Sequence[Record]) -> None:
        """Pass on."""
        self._reporter.started(self._name, steps, per_epoch, earlier)

    def advanced(self, record: Record) -> None:
        """Pass on."""
        self._reporter.advanced(record)

    def finished(self, variant: str, outcome: Result) -> None:
        """The line of the suite says it."""


def _suite_progress(planned: Suite, folder: Path, number: int) -> SuiteProgress:
    """What remains to be done besides the ``number``-th training."""
    cells = states(planned, folder)
    others = [state for place, state in enumerate(cells, 1) if place != number and not state.finished]
    known = [state.left for state in others if state.left is not None]
    finished = sum(state.finished for state in cells)
    return SuiteProgress(len(cells), finished, sum(known), len(others) - len(known))


def _tell(folder: Path, as_json: bool) -> None:
    planned = read(folder)
    cells = states(planned, folder)
    known = [state.left for state in cells if not state.finished and state.left is not None]
    unknown = sum(not state.finished and state.left is None for state in cells)
    if as_json:
        left = None if unknown else sum(known)
        print_json(
            {"folder": str(folder), "settings": planned.as_dict(), "left": left, "cells": [s.as_dict() for s in cells]}
        )
        return
    table = _table("cell", "state", "step", "last", "best", "images/s", "left", "silent")
    for state in cells:
        table.add_row(*_status(state))
    console = people()
    console.print(table)
    console.print()
    finished = sum(state.finished for state in cells)
    more = f", and that of {unknown} of unknown pace" if unknown else ""
    remaining = f"; time left: {_time(sum(known))}{more}" if known else "; time left: unknown"
    console.print(f"{finished} of {len(cells)} cells are finished{'' if finished == len(cells) else remaining}")
    for state in cells:
        if state.message is not None:
            console.print(f"{state.name} {state.state}: {flat(state.message)}", soft_wrap=True)
    if finished:
        console.print()
        console.print(_tabulated(report(planned, folder)))


def _status(state: State) -> tuple[str, ...]:
    return (
        state.name,
        state.state,
        f"{state.step}/{state.steps}",
        "" if state.accuracy is None else f"{100 * state.accuracy:.2f}",
        "" if state.best_accuracy is None else f"{100 * state.best_accuracy:.2f}",
        "" if state.images_per_s is None else f"{state.images_per_s:.0f}",
        "" if state.left is None or state.finished else _time(state.left),
        "" if state.age is None else _time(state.age),
    )


def _show(made: Report, folder: Path) -> None:
    console = people()
    console.print()
    console.print(_tabulated(made))
    console.print()
    console.print(made.caption, style="dim")
    click.echo(f"runs and tables: {folder}")


def _tabulated(made: Report) -> Table:
    """Three lines for every network: best, last, and the paper's where it has figures."""
    compared = ("low-rank",) if "low-rank" in made.suite.variants else ()
    table = _table("network", "data", "", "dense", "mpo", *compared, "rho", "whole", "seeds")
    for row in made.rows:
        for cells in _lines(row):
            table.add_row(*cells)
        table.add_section()
    return table


def _lines(row: Row) -> Sequence[tuple[str, ...]]:
    name = row.model if row.bond is None else f"{row.model} D={row.bond}"
    figures = (ratio(row.rho), ratio(row.parameter_ratio), trainings(row))
    best, last, none = (
        ((), (), ()) if row.low_rank is None else ((percent(row.low_rank.best),), (percent(row.low_rank.last),), ("",))
    )
    ours = [
        (name, row.data, "best", percent(row.normal.best), percent(row.mpo.best), *best, *figures),
        ("", "", "last", percent(row.normal.last), percent(row.mpo.last), *last, "", "", ""),
    ]
    if (paper := row.published) is None:
        return ours
    figures = (percent(paper.normal), _noted(paper.mpo, paper.note), *none, ratio(paper.rho))
    return [*ours, ("", "", "paper", *figures, "", "")]


def _noted(figure: Figure | None, note: str | None) -> str:
    return note or percent(figure)


def _table(*headings: str) -> Table:
    """Words on the left, numbers on the right."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in headings:
        words = heading in ("cell", "state", "network", "data", "")
        table.add_column(heading, justify="left" if words else "right", overflow="fold")
    return table


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.2%}"


def _time(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.4 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
