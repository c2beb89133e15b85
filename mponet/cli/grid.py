"""Tables that fit the terminal without cutting a name.

A table that is too wide is split into parts that repeat the first columns.  If not even those and
one more column fit, every cell has a line of its own.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

Rows = Sequence[Sequence[str]]
_BETWEEN = 2  # columns between two cells: a blank and the padding of the next


def print_grid(
    console: Console,
    headings: Sequence[str],
    rows: Rows,
    *,
    words: Collection[str],
    keys: int = 1,
    group: bool = False,
    styles: Mapping[int, str] | None = None,
    sections: Collection[int] = (),
) -> None:
    """Print rows as one table, as several, or as lines, whichever the width of the console allows.

    Args:
        console: where to print.
        headings: one per column.
        rows: one cell per column.
        words: headings of the columns that are aligned to the left; all others are numbers.
        keys: number of columns at the left that name a row.
        group: whether tables leave a first cell blank that equals the one above.
        styles: style by index of the row.
        sections: indices of the rows with a rule after them.
    """
    styles = styles or {}
    parts = list(_parts(_widths(headings, rows), keys, console.width))
    if not parts:
        _print_lines(console, headings, rows, styles)
        return
    for number, columns in enumerate(parts):
        if number:
            console.print()
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for k in columns:
            table.add_column(headings[k], justify="left" if headings[k] in words else "right", no_wrap=True)
        for index, row in enumerate(rows):
            repeated = group and index > 0 and row[0] == rows[index - 1][0]
            cells = ["" if k == 0 and repeated else row[k] for k in columns]
            table.add_row(*cells, style=styles.get(index, ""), end_section=index in sections)
        console.print(table)


def _widths(headings: Sequence[str], rows: Rows) -> list[int]:
    """Width of each column."""
    columns = zip(headings, *rows, strict=True)
    return [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]


def _parts(widths: Sequence[int], keys: int, width: int) -> Iterator[list[int]]:
    """Columns of each part, the keys repeated.

    Nothing if the keys and one more column do not fit.
    """
    fixed = list(range(keys))
    room = width - sum(widths[k] + _BETWEEN for k in fixed)
    if any(size > room for size in widths[keys:]):
        return
    part, used = fixed.copy(), 0
    for k in range(keys, len(widths)):
        if used + widths[k] > room:
            yield part
            part, used = fixed.copy(), 0
        part.append(k)
        used += widths[k] + _BETWEEN
    yield part


def _print_lines(console: Console, headings: Sequence[str], rows: Rows, styles: Mapping[int, str]) -> None:
    """A line per cell, empty ones left out; words that are too long go on in the next line."""
    for index, row in enumerate(rows):
        if index:
            console.print()
        for heading, cell in zip(headings, row, strict=True):
            if cell:
                text = " ".join(cell.split("\n"))
                console.print(f"{heading}: {text}" if heading else text, style=styles.get(index, ""), overflow="fold")
