"""Parts of docs/compression.md: rows of tables, items of lists, figures as text."""

from collections.abc import Iterator
from textwrap import fill
from typing import Any

Figures = dict[str, Any]


def table(*heads: str) -> Iterator[str]:
    """The head of a table."""
    yield cells(*heads)
    yield cells(*("---" for _ in heads))


def cells(*values: Any) -> str:
    """A row of a table."""
    return f"| {' | '.join(map(str, values))} |"


def accuracy(figure: Figures | None) -> str:
    """``98.35 ± 0.20`` from a mean and a deviation."""
    if figure is None:
        return ""
    deviation = figure["deviation"]
    return f"{100 * figure['mean']:.2f}" + ("" if deviation is None else f" ± {100 * deviation:.2f}")


def percent(value: float | None) -> str:
    """A share in percent."""
    return "" if value is None else f"{100 * value:.2f}"


def spread(values: list[float]) -> str:
    """Median and largest."""
    return f"{sorted(values)[len(values) // 2]:.3f}, {max(values):.3f}"


def item(text: str) -> str:
    """An item of a list, wrapped."""
    return fill(f"- {text}", 100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def written(text: str) -> str:
    """Text of a network in one line."""
    return "*" + " ".join(text.split()).replace("*", "\\*").replace("<", "&lt;").replace("`", "'") + "*"
