"""Curves for terminals.

Every character is a grid of two by four dots, so that a line of text is four dots high.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from statistics import fmean

#: Bits of the dots of a braille character, by row from the top, left and right.
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
EMPTY = 0x2800


def curve(points: Sequence[tuple[float, float]], end: float, width: int, height: int) -> list[str]:
    """Lines of text, the highest values on top.

    A column shows the mean of its points, gaps are bridged.

    Args:
        points: ``x`` from 0 to ``end`` ascending, and ``y``, finite.
        end: where the right edge is; points need not reach it.
        width: in characters.
        height: in lines.
    """
    if width < 1 or height < 1:
        return []
    columns = _columns(points, end, 2 * width)
    rows = [[0] * width for _ in range(height)]
    low, high = min(columns.values(), default=0.0), max(columns.values(), default=0.0)
    scale = (4 * height - 1) / (high - low) if high > low else 0.0
    scale = scale if isfinite(scale) else 0.0  # of a difference too small to divide by
    before: int | None = None
    for x, y in _bridged(columns):
        level = round((y - low) * scale)
        start = level if before is None else before + (level > before) - (level < before)
        for dot in range(min(start, level), max(start, level) + 1):
            row, inner = divmod(4 * height - 1 - dot, 4)
            rows[row][x // 2] |= DOTS[inner][x % 2]
        before = level
    return ["".join(chr(EMPTY + bits) if bits else " " for bits in row) for row in rows]


def _columns(points: Sequence[tuple[float, float]], end: float, count: int) -> Mapping[int, float]:
    """Mean by column of dots, ascending."""
    found: dict[int, list[float]] = {}
    for x, y in points:
        found.setdefault(min(int(x / end * count), count - 1), []).append(y)
    return {column: fmean(values) for column, values in found.items()}


def _bridged(columns: Mapping[int, float]) -> Iterator[tuple[int, float]]:
    """Every column from the first to the last, those without a value on a straight line."""
    before: tuple[int, float] | None = None
    for column, value in columns.items():
        if before is not None:
            first, start = before
            step = (value - start) / (column - first)
            yield from ((x, start + step * (x - first)) for x in range(first + 1, column))
        yield column, value
        before = column, value
