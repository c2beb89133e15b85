"""Rows for the growth of time with one size, and for the map of MPO layers against dense ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mponet.bench import verdict
from mponet.bench.implementation import DENSE, OURS
from mponet.bench.layers import PASSES
from mponet.bench.rows import Row
from mponet.bench.statistics import exponent
from mponet.operators.shape import MPOShape

WIDTHS = (256, 512, 1024, 2048, 4096, 8192)
BONDS = (2, 4, 8, 16, 32, 64)
BATCHES = (1, 8, 32, 128, 512, 2048, 8192)
#: Sizes that stay fixed while another one grows.
WIDTH, BOND, BATCH, SITES = 2048, 8, 128, 3
#: Sizes of the map.
MAP_WIDTHS, MAP_BONDS, MAP_BATCHES = (256, 512, 1024, 2048, 4096), BONDS, (1, 32, 512)


@dataclass(frozen=True, slots=True)
class Axis:
    """One size that grows.

    Attributes:
        name: ``width``, ``bond`` or ``batch``.
        sizes: its values, ascending.
        rows: the layer of each size.
    """

    name: str
    sizes: tuple[int, ...]
    rows: tuple[Row, ...]


def square(width: int, bond: int, batch: int, sites: int | None = SITES) -> Row:
    """A layer from ``width`` to ``width`` with factors as equal as possible.

    >>> square(256, bond=8, batch=1).shape.input_dims
    (8, 8, 4)
    """
    shape = MPOShape.from_sizes(width, width, bond, sites)
    return Row(f"{width}-d{bond}-b{batch}", shape, batch)


def axes() -> tuple[Axis, ...]:
    """The axes width, bond and batch."""
    return (
        Axis("width", WIDTHS, tuple(square(width, BOND, BATCH) for width in WIDTHS)),
        Axis("bond", BONDS, tuple(square(WIDTH, bond, BATCH) for bond in BONDS)),
        Axis("batch", BATCHES, tuple(square(WIDTH, BOND, batch) for batch in BATCHES)),
    )


def grid() -> list[list[Row]]:
    """The layers of the map by batch, with the factors that a layer chooses by default."""
    sizes = [(width, bond) for width in MAP_WIDTHS for bond in MAP_BONDS]
    return [[square(width, bond, batch, None) for width, bond in sizes] for batch in MAP_BATCHES]


def curves(axis: Axis, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Times along an axis, and exponents of their growth and of that of the multiplications."""
    batches = [row["batch"] for row in rows]
    dense = [batch * row.shape.dense_parameters for batch, row in zip(batches, axis.rows, strict=True)]
    work = {OURS: [row["plans"]["multiplications"] for row in rows], DENSE: dense}
    result: dict[str, Any] = {"axis": axis.name, "sizes": list(axis.sizes), "multiplications": work}
    for name in (OURS, DENSE):
        times = {which: [verdict.seconds(row, name, which) for row in rows] for which in PASSES}
        result[name] = {
            **times,
            "theory": exponent(axis.sizes, work[name]),
            "measured": {which: exponent(axis.sizes, _known(times[which])) for which in PASSES},
        }
    return result


def ratios(rows: Iterable[dict[str, Any]], which: str) -> dict[tuple[int, int, int], float]:
    """Time of ours over dense by ``(batch, width, bond)``, for the map."""
    result = {}
    for row in rows:
        width, bond, batch = (int(part.lstrip("db")) for part in row["row"].split("-"))
        ratio = verdict.ratio(row, OURS, which)
        if ratio is not None:
            result[batch, width, bond] = ratio
    return result


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
