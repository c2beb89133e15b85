"""The table and the status of a suite on a terminal."""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from mponet.cli.output import people, print_json
from mponet.training.suite import Row, State, read, report, states
from mponet.training.suite.published import Figure
from mponet.training.suite.table import Report
from mponet.training.suite.write import flat, percent, ratio
from mponet.training.suite.write import seeds as trainings


def show_status(folder: Path, as_json: bool) -> None:
    """Print how far the suite in a folder is."""
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


def show_report(made: Report, folder: Path) -> None:
    """Print the table of a suite."""
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
    bond = "" if row.bond is None else f" D={row.bond}"
    name = row.model + bond + ("" if row.rate is None else f" rate={row.rate:g}")
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


def _time(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.4 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
