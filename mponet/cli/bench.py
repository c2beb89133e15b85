"""``mponet bench``: how fast are the layers, beside the framework's own and beside other packages?"""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from mponet.backend import TRAINABLE, installed, normalize
from mponet.bench import verdict
from mponet.bench.process import run
from mponet.bench.rounds import PATIENCE, ROUNDS
from mponet.bench.rows import ROWS
from mponet.bench.worker import task_of
from mponet.cli import timings
from mponet.cli.output import notice
from mponet.errors import BackendError, InputError
from mponet.files import write_json


@click.group(
    epilog="""\b
Examples:
  mponet bench layers --backends torch
  mponet bench layers --backends torch,jax,tensorflow --json bench.json
  mponet bench layers --rows fc2-d4,fc2-d16 --no-peers --rounds 30

Peers are packages of their own: pip install -r benchmarks/peers.txt.  Those that are missing are named.
Measure on a machine that does nothing else.
"""
)
def bench() -> None:
    """Measure speed and memory beside dense layers and other packages."""


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every measurement; ``backends`` comes as names."""

    @wraps(command)
    def complete(*args: Any, backends: str | None, **others: Any) -> Any:
        return command(*args, backends=backends_of(backends), **others)

    for option in (
        click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
                     help="Write all figures to FILE."),
        click.option("--rounds", type=click.IntRange(min=2), default=ROUNDS, show_default=True,
                     help="Rounds, two samples of everything each."),
        click.option("--patience", type=click.FloatRange(min=0, min_open=True), default=PATIENCE, show_default=True,
                     help="Seconds for all samples of one; what is slower takes part in fewer rounds, at least three."),
        click.option("--backend", "--backends", "backends", metavar="A,B,...",
                     help="Frameworks to measure; all that are installed if left out."),
    ):  # fmt: skip
        option(complete)
    return complete


@bench.command()
@_common
@click.option("--rows", metavar="A,B,...", help=f"Of {', '.join(row.name for row in ROWS)}; all if left out.")
@click.option("--peers/--no-peers", default=True, help="Other packages, too, or ours and the dense layer alone.")
def layers(
    backends: Sequence[str], rows: str | None, peers: bool, rounds: int, patience: float, json_file: Path | None
) -> None:
    """Time layers: forward, and forward and backward with the gradients of parameters and inputs.

    Everything takes turns in one process per layer and framework.  All contenders hold the same operator, and their
    outputs are checked before they are timed.  Ratios are to the dense layer of the same framework.
    """
    wanted = rows_of(rows)
    before, found = verdict.machine(), []
    for backend in backends:
        measured = []
        for row in wanted:
            with Console(stderr=True).status(f"{backend}: {row.name}"):
                task = {"job": "layers", "backend": backend, "row": task_of(row), "rounds": rounds}
                measured.append(run({**task, "patience": patience, "peers": peers}))
        timings.layers(backend, measured, peers=peers)
        found += measured
    after = verdict.machine()
    timings.machine(before, after)
    summaries = {name: verdict.over_peers([row for row in found if row["backend"] == name]) for name in backends}
    _write(json_file, {"bench": "layers", "before": before, "after": after, "rows": found, "over_peers": summaries})


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
            f"there is no {', '.join(wrong) or 'framework'} to measure; expected some of {', '.join(TRAINABLE)}, "
            "installed; for example: pip install 'mponet[torch]'"
        )
    return found


def rows_of(names: str | None) -> list[Any]:
    """The rows that are named, in the order of the table; all for None.

    Raises:
        InputError: one is unknown.
    """
    if names is None:
        return list(ROWS)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = {row.name: row for row in ROWS}
    if unknown := [name for name in wanted if name not in known]:
        raise InputError(f"--rows names {', '.join(unknown)}; expected some of {', '.join(known)}")
    return [row for row in ROWS if row.name in wanted]


def _write(path: Path | None, value: dict[str, Any]) -> None:
    if path is not None:
        write_json(path, value)
        notice(f"written: {path}")
