"""How time grows with one size while the others stay, and where operators overtake dense layers: sizes as rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mponet.bench import verdict
from mponet.bench.contender import DENSE, OURS
from mponet.bench.layers import PASSES
from mponet.bench.rows import Row
from mponet.bench.statistics import exponent
from mponet.operators.shape import MPOShape

WIDTHS = (256, 512, 1024, 2048, 4096, 8192)
BONDS = (2, 4, 8, 16, 32, 64)
BATCHES = (1, 8, 32, 128, 512, 2048, 8192)
#: Where the others stay.
WIDTH, BOND, BATCH, SITES = 2048, 8, 128, 3
#: Sizes of the map of where operators overtake dense layers.
MAP_WIDTHS, MAP_BONDS, MAP_BATCHES = (256, 512, 1024, 2048, 4096), BONDS, (1, 32, 512)


@dataclass(frozen=True, slots=True)
class Axis:
    """One size that grows.

    Attributes:
        name: ``width``, ``bond`` or ``batch``.
        sizes: its values, growing.
        rows: the layer at each.
    """

    name: str
    sizes: tuple[int, ...]
    rows: tuple[Row, ...]


def square(width: int, bond: int, batch: int, sites: int | None = SITES) -> Row:
    """A layer from ``width`` to ``width``, factors as even as can be."""
    shape = MPOShape.from_sizes(width, width, bond, sites)
    return Row(f"{width}-d{bond}-b{batch}", shape, batch)


def axes() -> tuple[Axis, ...]:
    """The three."""
    return (
        Axis("width", WIDTHS, tuple(square(width, BOND, BATCH) for width in WIDTHS)),
        Axis("bond", BONDS, tuple(square(WIDTH, bond, BATCH) for bond in BONDS)),
        Axis("batch", BATCHES, tuple(square(WIDTH, BOND, batch) for batch in BATCHES)),
    )


def grid() -> list[list[Row]]:
    """The layers of the map, one batch after the other, the factors those that a layer takes by itself."""
    sizes = [(width, bond) for width in MAP_WIDTHS for bond in MAP_BONDS]
    return [[square(width, bond, batch, None) for width, bond in sizes] for batch in MAP_BATCHES]


def curves(axis: Axis, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Times along an axis, with the exponents of their growth and of the multiplications of the plans."""
    batches = [row["batch"] for row in rows]
    dense = [batch * row.shape.dense_parameters for batch, row in zip(batches, axis.rows, strict=True)]
    work = {OURS: [row["plans"]["multiplications"] for row in rows], DENSE: dense}
    found: dict[str, Any] = {"axis": axis.name, "sizes": list(axis.sizes), "multiplications": work}
    for name in (OURS, DENSE):
        times = {which: [verdict.seconds(row, name, which) for row in rows] for which in PASSES}
        found[name] = {
            **times,
            "theory": exponent(axis.sizes, work[name]),
            "measured": {which: exponent(axis.sizes, _known(times[which])) for which in PASSES},
        }
    return found


def ratios(rows: Iterable[dict[str, Any]], which: str) -> dict[tuple[int, int, int], float]:
    """Ours over dense by ``(batch, width, bond asked for)``, for the map."""
    found = {}
    for row in rows:
        width, bond, batch = (int(part.lstrip("db")) for part in row["row"].split("-"))
        ratio = verdict.ratio(row, OURS, which)
        if ratio is not None:
            found[batch, width, bond] = ratio
    return found


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
