"""Tables on terminals of any width.

Every cell is there, whole, and no line is longer than the terminal.
"""

from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mponet.cli.grid import print_grid

CELLS = st.text("abc-123", max_size=18)


def printed(headings, rows, width, **options):
    stream = StringIO()
    print_grid(Console(file=stream, width=width, highlight=False), headings, rows, words={headings[0]}, **options)
    return stream.getvalue()


@given(st.data(), st.integers(20, 100))
def test_every_cell_is_printed_whole_and_fits(data, width):
    count = data.draw(st.integers(2, 8))
    rows = data.draw(st.lists(st.lists(CELLS, min_size=count, max_size=count), min_size=1, max_size=4))
    headings = [f"h{k}" for k in range(count)]
    keys = data.draw(st.integers(1, count - 1))
    text = printed(headings, rows, width, keys=keys)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    words = text.split()
    for cell in (cell for row in rows for cell in row if cell):
        assert cell in words  # no cell is longer than the narrowest terminal


def test_a_wide_terminal_has_one_table_and_a_narrower_one_repeats_the_first_column():
    headings, rows = ["layer", "first", "second"], [["a", "1" * 10, "2" * 10], ["b", "3" * 10, "4" * 10]]
    assert printed(headings, rows, 80).split().count("layer") == 1
    parts = printed(headings, rows, 21).split("\n\n")
    assert [part.split()[:2] for part in parts] == [["layer", "first"], ["layer", "second"]]
    assert [line.split() for line in parts[1].splitlines()[2:]] == [["a", "2" * 10], ["b", "4" * 10]]


def test_a_very_narrow_terminal_has_a_line_for_each_cell():
    text = printed(["layer", "time"], [["a-name-of-18-chars", "12.5"], ["b", ""]], 20)
    assert text == "layer: \na-name-of-18-chars\ntime: 12.5\n\nlayer: b\n"


@pytest.mark.parametrize(("group", "names"), [(False, ["a", "a"]), (True, ["a", ""])])
def test_rows_of_one_group_name_it_once(group, names):
    lines = printed(["layer", "time"], [["a", "1"], ["a", "2"]], 40, group=group).splitlines()[2:]
    assert [line[:5].strip() for line in lines] == names
