"""``mponet bench``: how fast are the layers, compared with dense layers and other packages?"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.status import Status

from mponet.backend import TRAINABLE, installed, normalize
from mponet.bench import chart, verdict
from mponet.bench import growth as sizes
from mponet.bench.inference import ROWS as INFERENCE
from mponet.bench.inference import InferenceRow
from mponet.bench.memory import combine
from mponet.bench.process import run
from mponet.bench.rounds import PATIENCE, ROUNDS
from mponet.bench.rows import NETWORKS, ROWS, Network, Row
from mponet.bench.worker import task_of
from mponet.cli import timings
from mponet.cli.output import WritableFile, error_console, fail, print_status
from mponet.errors import BackendError, InputError
from mponet.files import write_json

N = TypeVar("N", Row, Network, InferenceRow)
Figures = dict[str, Any]
FILE = WritableFile()


@click.group(
    epilog="""\b
Examples:
  mponet bench layers --backends torch,jax,tensorflow --json bench.json
  mponet bench layers --rows fc2-d4,fc2-d16 --no-peers --rounds 30
  mponet bench inference --backends jax --rows 4096-d16
  mponet bench models --backends jax
  mponet bench growth --backends torch --chart growth.svg

Peers are packages of their own: pip install -r benchmarks/peers.txt.  Those that are missing are named.
Measure on a machine that does nothing else.
"""
)
def bench() -> None:
    """Compare speed and memory with dense layers and other packages."""


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every measurement; ``backends`` comes as names."""

    @wraps(command)
    def complete(*args: Any, backends: str | None, **others: Any) -> Any:
        return command(*args, backends=backends_of(backends), **others)

    for option in (
        click.option("--json", "json_file", type=FILE, metavar="FILE", help="Write all figures to FILE."),
        click.option(
            "--backend",
            "--backends",
            "backends",
            metavar="A,B,...",
            help="Frameworks to measure.  Default: all that are installed.",
        ),
    ):
        option(complete)
    return complete


_rounds = click.option(
    "--rounds",
    type=click.IntRange(min=2),
    default=ROUNDS,
    show_default=True,
    help="Number of rounds; each takes two samples of everything.",
)
_patience = click.option(
    "--patience",
    type=click.FloatRange(min=0, min_open=True),
    default=PATIENCE,
    show_default=True,
    help="Seconds for all samples of a peer; a slower one takes part in fewer rounds, at least three.",
)
_peers = click.option("--peers/--no-peers", default=True, help="Also measure other packages.")
_chart = click.option(
    "--chart",
    "chart_file",
    type=FILE,
    metavar="FILE.svg",
    help="Chart file; needs matplotlib.",
)


def _rows(known: Sequence[Row] | Sequence[Network] | Sequence[InferenceRow]) -> Callable[..., Any]:
    names = ", ".join(one.name for one in known)
    return click.option("--rows", metavar="A,B,...", help=f"Rows to measure, of {names}.  Default: all.")


@bench.command(short_help="Time layers, dense layers and peers.")
@_common
@_patience
@_rounds
@_peers
@_rows(ROWS)
def layers(
    backends: Sequence[str], rows: str | None, peers: bool, rounds: int, patience: float, json_file: Path | None
) -> None:
    """Time layers: forward, and forward and backward with the gradients of parameters and inputs.

    As people run the framework: PyTorch eagerly, JAX under jit, TensorFlow under tf.function; in
    training mode, where no layer may keep anything from call to call.  Everything takes turns in
    one process per layer and framework.  All implementations hold the same operator, and their
    outputs are checked before they are timed.  Ratios are to the dense layer of the same framework.

    Exit status 1 when a process failed; the others go on.
    """
    wanted, before = named(rows, ROWS), verdict.machine()
    found, broken = _each(
        backends,
        wanted,
        lambda backend, row: _timed(backend, [row], rounds, patience, peers=peers)[0],
        lambda backend, measured: timings.layers(backend, measured, peers=peers),
    )
    over = {name: verdict.over_peers([row for row in found if row["backend"] == name]) for name in backends}
    _end("layers", before, json_file, broken, rows=found, over_peers=over)


@bench.command(short_help="Time frozen layers in inference, from one row to many.")
@_common
@_rounds
@_rows(INFERENCE)
def inference(backends: Sequence[str], rows: str | None, rounds: int, json_file: Path | None) -> None:
    """Time inference: frozen layers against the dense layer, our layer as it is, and low rank.

    PyTorch eagerly and compiled, JAX under jit, TensorFlow under tf.function; 1 to 512 rows.
    Everything takes turns in one process per layer and framework, and outputs are checked.

    Exit status 1 when a process failed; the others go on.
    """

    def measure(backend: str, row: InferenceRow) -> Figures:
        with _busy(backend, row.name):
            return dict(run({"job": "inference", "backend": backend, "row": row.name, "rounds": rounds}))

    wanted, before = named(rows, INFERENCE), verdict.machine()
    found, broken = _each(backends, wanted, measure, timings.inference)
    _end("inference", before, json_file, broken, rows=found)


@bench.command(short_help="Measure the memory of a training step of layers.")
@_common
@_peers
@_rows(ROWS)
def memory(backends: Sequence[str], rows: str | None, peers: bool, json_file: Path | None) -> None:
    """Measure the peak memory of a step of a layer, each implementation in its own process.

    PyTorch: what its allocator gave out.  JAX: what XLA accounts for.  TensorFlow: what its
    allocator counts, in blocks.  Ours should stay within 1.1 times the activations of the dense
    layer (inputs, outputs and their gradients) and our parameters with their gradients.

    Exit status 1 when a process failed; the others go on.
    """
    wanted, before = named(rows, ROWS), verdict.machine()
    found, broken = _each(backends, wanted, lambda backend, row: _memory(backend, row, peers=peers), timings.memory)
    _end("memory", before, json_file, broken, rows=found)


@bench.command(short_help="Time MPO networks and their dense counterparts.")
@_common
@_rounds
@_rows(NETWORKS)
def models(backends: Sequence[str], rows: str | None, rounds: int, json_file: Path | None) -> None:
    """Time whole networks, MPO against dense: training steps, and logits in inference mode.

    Exit status 1 when a process failed; the others go on.
    """

    def measure(backend: str, one: Network) -> Figures:
        with _busy(backend, one.name):
            return dict(run({"job": "network", "backend": backend, "network": asdict(one), "rounds": rounds}))

    wanted, before = named(rows, NETWORKS), verdict.machine()
    found, broken = _each(backends, wanted, measure, timings.networks)
    _end("models", before, json_file, broken, rows=found)


@bench.command(short_help="Time layers of growing width, bond and batch.")
@_common
@_rounds
@_chart
def growth(backends: Sequence[str], rounds: int, json_file: Path | None, chart_file: Path | None) -> None:
    """Time layers of growing width, bond and batch.

    The exponents are compared with those of the multiplications.
    """
    before, found = verdict.machine(), []
    for backend in backends:
        curves = [
            sizes.curves(axis, _timed(backend, axis.rows, rounds, PATIENCE, peers=False)) for axis in sizes.axes()
        ]
        timings.growth(backend, curves)
        if chart_file is not None:
            chart.growth(_of_backend(chart_file, backend, backends), curves, f"mponet on {backend}")
        found.append({"backend": backend, "curves": curves})
    _end("growth", before, json_file, False, backends=found)


@bench.command(short_help="Map where operators are faster than dense layers.")
@_common
@_rounds
@_chart
def crossover(backends: Sequence[str], rounds: int, json_file: Path | None, chart_file: Path | None) -> None:
    """Map where a layer with operators is faster than a dense one.

    By width, bond and batch, training steps.
    """
    before, found = verdict.machine(), []
    for backend in backends:
        measured: list[Figures] = []
        for rows in sizes.grid():
            measured += _timed(backend, rows, rounds, PATIENCE, peers=False)
        ratios = sizes.ratios(measured, "step")
        timings.crossover(backend, ratios)
        if chart_file is not None:
            title = f"training step of a layer, mponet over dense, on {backend}"
            chart.crossover(_of_backend(chart_file, backend, backends), ratios, title)
        found += measured
    _end("crossover", before, json_file, False, rows=found)


def _each(
    backends: Sequence[str],
    wanted: Sequence[N],
    measure: Callable[[str, N], Figures],
    show: Callable[[str, list[Figures]], None],
) -> tuple[list[Figures], bool]:
    """All figures, shown by framework, and whether a process failed.

    That is told at once and stops no other.
    """
    found, broken = [], False
    for backend in backends:
        measured = []
        for one in wanted:
            try:
                measured.append(measure(backend, one))
            except BackendError as error:
                broken = True
                fail(str(error))
        if measured:
            show(backend, measured)
        found += measured
    return found, broken


def _timed(backend: str, rows: Sequence[Row], rounds: int, patience: float, *, peers: bool) -> list[Figures]:
    """Layers timed in one process."""
    what = rows[0].name if len(rows) == 1 else f"{len(rows)} layers from {rows[0].name} to {rows[-1].name}"
    with _busy(backend, what):
        task = {"job": "layers", "backend": backend, "rows": [task_of(row) for row in rows], "rounds": rounds}
        measured: list[Figures] = run({**task, "patience": patience, "peers": peers})
    return measured


def _memory(backend: str, row: Row, *, peers: bool) -> Figures:
    """One layer, every implementation in a process of its own."""
    task = {"backend": backend, "row": task_of(row)}
    with _busy(backend, row.name):
        asked = run({"job": "implementations", "peers": peers, **task})
    measured = []
    for name in asked["names"]:
        with _busy(backend, f"{row.name}, {name}"):
            measured.append(run({"job": "memory", "implementation": name, **task}))
    return combine(backend, row, measured, asked["environment"])


def backends_of(names: str | None) -> list[str]:
    """The frameworks that are named, or all that are installed.

    Raises:
        BackendError: one is unknown or not installed, or there is none.
    """
    if names is None:
        found = [name for name in TRAINABLE if installed(name)]
    else:
        found = list(dict.fromkeys(normalize(name) for name in names.split(",") if name.strip()))
    wrong = [name for name in found if name not in TRAINABLE or not installed(name)]
    if wrong or not found:
        raise BackendError(
            f"{', '.join(wrong) or 'no framework'} cannot be measured; expected some of {', '.join(TRAINABLE)}, "
            "installed; for example: pip install 'mponet[torch]'"
        )
    return found


def named(names: str | None, known: Sequence[N]) -> list[N]:
    """Those of ``known`` that are named, in their order; all for None.

    Raises:
        InputError: one is unknown, or none is named.
    """
    if names is None:
        return list(known)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = sorted(set(wanted) - {one.name for one in known})
    if unknown or not wanted:
        raise InputError(
            f"--rows names {', '.join(unknown) or 'nothing'}; expected some of {', '.join(one.name for one in known)}"
        )
    return [one for one in known if one.name in wanted]


def _busy(backend: str, what: str) -> Status:
    return error_console().status(f"{backend}: {what}")


def _of_backend(path: Path, backend: str, backends: Sequence[str]) -> Path:
    """The file of a framework; its name goes into that of the file where there are several."""
    return path if len(backends) == 1 else path.with_stem(f"{path.stem}-{backend}")


def _end(what: str, before: Figures, path: Path | None, broken: bool, **found: Any) -> None:
    """How quiet it was, the file, and the exit status."""
    after = verdict.machine()
    timings.machine(before, after)
    if path is not None:
        write_json(path, {"bench": what, "before": before, "after": after, **found})
        print_status(f"written: {path}")
    if broken:
        click.get_current_context().exit(1)
