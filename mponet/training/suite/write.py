"""The table of a suite as Markdown, CSV and JSON."""

import csv
from io import StringIO
from pathlib import Path

from mponet.files import write_atomically, write_json, writing
from mponet.training.suite.published import Figure, Published
from mponet.training.suite.table import Report, Row

OURS = ("network", "bond", "data", "dense best", "mpo best", "dense last", "mpo last", "seeds", "rho", "whole")
LOW_RANK = ("low-rank best", "low-rank last", "low-rank rho")
PAPERS = ("paper dense", "paper mpo", "paper rho", "source")
NOTHING = "-"
WORDS = {"network", "data", "source"}  # headings of columns that are not numbers


def tables(report: Report, folder: Path) -> None:
    """Write tables.md, tables.csv and tables.json, each atomically.

    Raises:
        CheckpointError: one cannot be written.
    """
    write_json(folder / "tables.json", report.as_dict())
    for name, text in (("tables.md", markdown(report)), ("tables.csv", comma_separated(report))):
        with writing(folder / name):
            write_atomically(folder / name, text.encode())


def markdown(report: Report) -> str:
    """A table for people, its caption, and the trainings that are not in it."""
    rated = any(row.rate is not None for row in report.rows)
    compared = any(row.low_rank for row in report.rows)
    headings = (*OURS[:2], *(("rate",) if rated else ()), *OURS[2:], *(LOW_RANK if compared else ()), *PAPERS)
    rules = ["---" if heading in WORDS else "---:" for heading in headings]
    lines = [_line(headings), _line(rules), *(_line(_shown(row, rated)) for row in report.rows), "", report.caption, ""]
    if report.waiting:
        lines += [f"Not finished: {', '.join(report.waiting)}.", ""]
    for title, trainings in (("Diverged", report.diverged), ("Failed", report.failed)):
        if trainings:
            lines += [
                f"{title}, in no mean:",
                "",
                *(f"- {name}: {flat(message)}" for name, message in trainings.items()),
                "",
            ]
    return "\n".join(lines)


def comma_separated(report: Report) -> str:
    """A row per network for programs.

    Accuracies are shares from 0 to 1, what is not known is empty.
    """
    stream = StringIO()
    rows = [_flat(row) for row in report.rows]
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(stream, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def percent(figure: Figure | None) -> str:
    """``98.35 ± 0.20``, without a deviation where there is none; a dash for nothing."""
    if figure is None:
        return NOTHING
    return f"{100 * figure.mean:.2f}" + ("" if figure.deviation is None else f" ± {100 * figure.deviation:.2f}")


def seeds(row: Row) -> str:
    """How many trainings the means are of; one number per variant where these differ."""
    counts = [row.normal.seeds, row.mpo.seeds, *([row.low_rank.seeds] if row.low_rank else [])]
    return str(counts[0]) if len(set(counts)) == 1 else ", ".join(map(str, counts))


def ratio(value: float | None) -> str:
    """Three digits; a dash for nothing."""
    return NOTHING if value is None else f"{value:.3g}"


def flat(message: str) -> str:
    """In one line."""
    return " ".join(message.split())


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(row: Row, rated: bool) -> list[str]:
    return [
        row.model,
        "published" if row.bond is None else str(row.bond),
        *(["preset" if row.rate is None else f"{row.rate:g}"] if rated else []),
        row.data,
        *map(percent, (row.normal.best, row.mpo.best, row.normal.last, row.mpo.last)),
        seeds(row),
        ratio(row.rho),
        ratio(row.parameter_ratio),
        *_compared(row),
        *_papers(row.published),
    ]


def _compared(row: Row) -> list[str]:
    low_rank = row.low_rank
    return [] if low_rank is None else [percent(low_rank.best), percent(low_rank.last), ratio(row.low_rank_rho)]


def _papers(paper: Published | None) -> list[str]:
    if paper is None:
        return [NOTHING] * 4
    return [percent(paper.normal), paper.note or percent(paper.mpo), ratio(paper.rho), paper.source]


def _flat(row: Row) -> dict[str, str | float | int | None]:
    paper = row.published
    figures: dict[str, Figure | None] = {
        "normal_best": row.normal.best,
        "mpo_best": row.mpo.best,
        "normal_last": row.normal.last,
        "mpo_last": row.mpo.last,
        **({"low_rank_best": row.low_rank.best, "low_rank_last": row.low_rank.last} if row.low_rank else {}),
        "paper_normal": paper.normal if paper else None,
        "paper_mpo": paper.mpo if paper else None,
    }
    values: dict[str, str | float | int | None] = {"model": row.model, "bond": row.bond, "data": row.data}
    if row.rate is not None:
        values["rate"] = row.rate
    for name, figure in figures.items():
        values[name] = figure.mean if figure else None
        values[f"{name}_deviation"] = figure.deviation if figure else None
    return values | {
        "normal_seeds": row.normal.seeds,
        "mpo_seeds": row.mpo.seeds,
        **({"low_rank_seeds": row.low_rank.seeds, "low_rank_rho": row.low_rank_rho} if row.low_rank else {}),
        "rho": row.rho,
        "parameter_ratio": row.parameter_ratio,
        "paper_rho": paper.rho if paper else None,
        "paper_note": paper.note if paper else None,
        "source": paper.source if paper else None,
    }
