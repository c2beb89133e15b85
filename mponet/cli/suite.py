"""``mponet suite``: the paper's experiments, in one folder and in spite of interruptions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from sys import exit as leave

import click

from mponet.backend import choose
from mponet.cli import INTERRUPTED
from mponet.cli.engines import Engine
from mponet.cli.output import fail, json_option, print_json, print_status
from mponet.cli.progress import watcher
from mponet.cli.progress_state import SuiteProgress
from mponet.cli.suite_tables import show_report, show_status
from mponet.models import PAPER_VARIANTS, VARIANTS
from mponet.training import data as datasets
from mponet.training.loop import Record
from mponet.training.run import Reporter, Result
from mponet.training.suite import Suite, Training, plan, states
from mponet.training.suite.settings import DEFAULT, SEEDS, data_of, default_folder, networks, swept
from mponet.training.suite.write import flat


@click.command(
    epilog="""\b
Examples:
  mponet suite --models fc2,fc2:4,lenet5 --seeds 3 --out runs/mnist
  mponet suite --backend jax --preset paper --out runs/paper
  mponet suite --models fc2 --sweep bond=2,4,8 --sweep rate=0.1,0.4 --workers 4
  mponet suite --models fc2:4 --worker --out /shared/sweep      on each machine
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
    metavar="NAME[:BOND][@RATE],...",
    default=",".join(DEFAULT),
    show_default=True,
    help="Networks.  BOND: bond dimension of the MPO variant, else the published one.  RATE: learning rate at the "
    "start, else the preset's.",
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
    "--sweep",
    "sweep",
    metavar="AXIS=V,V",
    multiple=True,
    help="Values of bond or rate for all networks, such as bond=2,4,8; give it once per axis for all combinations.",
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
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Train with N processes on this machine.")
@click.option(
    "--worker",
    is_flag=True,
    help="Be one of any number of processes that share the cells of DIR, on all machines that see it.",
)
@click.option("--engine", metavar="ray", help="Train the cells as tasks of a Ray cluster (needs mponet[ray]).")
@click.option("--address", metavar="A", help="Of the Ray cluster.  Default: $RAY_ADDRESS, else one on this machine.")
@click.option(
    "--cpus", type=click.FloatRange(0, min_open=True), metavar="C", default=1.0, help="Processors per Ray task."
)
@click.option("--gpus", type=click.FloatRange(0), metavar="G", default=0.0, help="Accelerators per Ray task.")
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
    sweep: tuple[str, ...],
    workers: int | None,
    worker: bool,
    engine: str | None,
    address: str | None,
    cpus: float,
    gpus: float,
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
        show_status(status, as_json)
        return
    engines = Engine(workers=workers, worker=worker, name=engine, address=address, cpus=cpus, gpus=gpus)
    entries = swept(models.split(","), sweep)
    wanted = networks(entries)
    chosen = choose(backend)
    names = dict.fromkeys(data_of(network.model, data) for network in wanted)
    loaded = {name: datasets.load(name) for name in names}
    planned = plan(
        entries,
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
        made = engines.train(planned, loaded, folder, device, _Watching(planned, folder))
    except KeyboardInterrupt:
        print_status(f"stopped; {folder} keeps what was done; the same command continues")
        leave(INTERRUPTED)
    print_json({**made.as_dict(), "folder": str(folder)}) if as_json else show_report(made, folder)
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
        print_status(f"{training}: {result.line}")

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
