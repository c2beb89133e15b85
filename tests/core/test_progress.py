"""The live view and the plain lines: what people read while a network trains."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from mponet.cli import progress
from mponet.cli.curve import DOTS, EMPTY, curve
from mponet.cli.live import View, picture
from mponet.cli.progress_state import SuiteProgress, begin, clock, extend
from mponet.training.loop import Record
from mponet.training.run import Result

STEPS, PER_EPOCH = 400, 100


def record(step, loss=0.5, accuracy=None, diverged=False, seconds=None):
    return Record(
        step, step / PER_EPOCH, loss, 0.1, accuracy, 12345.6, step / 10 if seconds is None else seconds, diverged
    )


def progress_of(*records, earlier=()):
    made = begin("mpo", STEPS, PER_EPOCH, earlier)
    for one in records:
        made = extend(made, one)
    return made


def text(renderable, width=80, height=40):
    console = Console(file=StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def dots(lines):
    """Column and height of every dot, from the lower left corner."""
    found = set()
    for row, line in enumerate(lines):
        for column, character in enumerate(line):
            bits = 0 if character == " " else ord(character) - EMPTY
            found |= {
                (2 * column + x, 4 * (len(lines) - row) - 1 - y)
                for y, pair in enumerate(DOTS)
                for x, bit in enumerate(pair)
                if bits & bit
            }
    return found


def test_a_straight_line_is_one():
    lines = curve([(0, 0.0), (8, 7.0)], 8, 4, 2)
    assert [len(line) for line in lines] == [4, 4]
    assert dots(lines) == {(k, k) for k in range(8)}


def test_a_curve_ends_where_its_points_do_and_joins_what_is_far_apart():
    found = dots(curve([(0, 0.0), (2, 1.0)], 16, 4, 1))
    assert max(x for x, _ in found) == 1
    assert {y for _, y in found} == {0, 1, 2, 3}


@pytest.mark.parametrize("points", [[], [(3, 1.0)], [(0, 2.0), (9, 2.0)]])
def test_a_curve_of_next_to_nothing(points):
    assert len(curve(points, 10, 5, 3)) == 3


def test_many_points_of_a_column_are_their_mean():
    assert dots(curve([(0, 0.0), (0, 2.0), (9, 1.0)], 10, 1, 1)) == {(0, 0), (1, 0)}


def test_time_left_is_that_of_this_process():
    assert progress_of().left() is None
    assert progress_of(record(100, seconds=10.0)).left() == 30.0
    resumed = progress_of(record(200, seconds=1020.0), earlier=[record(100, seconds=1000.0)])
    assert resumed.left() == 40.0
    assert progress_of(earlier=[record(100)]).left() is None


@pytest.mark.parametrize(("seconds", "told"), [(0.4, "0 s"), (59, "59 s"), (185, "3:05"), (7385, "2:03:05")])
def test_clock(seconds, told):
    assert clock(seconds) == told


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_picture_has_a_row_for_every_evaluation_and_fits(width):
    made = progress_of(
        record(50, 2.0), record(100, 0.8, 0.7), record(200, 0.4, 0.9), record(300, 0.3, 0.85), record(350, 0.2)
    )
    shown = text(picture(made, None, 0.0, width, 40), width)
    assert max(map(len, shown.splitlines())) <= width
    assert "epoch 4/4" in shown and "5 s left" in shown
    rows = [line.split()[:4] for line in shown.splitlines()[-4:]]
    assert rows == [
        ["1", "0.8000", "70.00%", "70.00%"],
        ["2", "0.4000", "90.00%", "90.00%"],
        ["3", "0.3000", "85.00%", "90.00%"],
        ["3.5", "0.2000", "...", "90.00%"],
    ]


def test_a_low_terminal_keeps_the_bar():
    shown = text(picture(progress_of(record(100, accuracy=0.5)), None, 0.0, 80, 10), 80)
    assert "30 s left" in shown and len(shown.splitlines()) == 2


@pytest.mark.parametrize("height", [15, 24, 60])
def test_the_picture_is_never_higher_than_the_terminal(height):
    made = progress_of(*(record(step, accuracy=0.5) for step in range(4, STEPS, 4)))
    for suite_progress in (None, SuiteProgress(2, 0, 0.0, 1)):
        assert len(text(picture(made, suite_progress, 0.0, 80, height), 80).splitlines()) < height


def test_time_runs_between_two_records():
    assert "12 s left" in text(picture(progress_of(record(100)), None, 18.0, 80, 10))
    assert "0 s left" in text(picture(progress_of(record(100)), None, 99.0, 80, 10))


def test_a_divergence_is_named():
    shown = text(picture(progress_of(record(100, float("nan"), diverged=True)), None, 0.0, 80, 40))
    assert "diverged" in shown and "none" in shown


def test_names_are_no_markup():
    made = extend(begin("[red]x[/red]", STEPS, PER_EPOCH, ()), record(100))
    assert "[red]x[/red]" in text(picture(made, None, 0.0, 80, 40))


@pytest.mark.parametrize(
    ("suite_progress", "left", "told"),
    [
        (SuiteProgress(6, 1, 60.0, 0), 30.0, "1 of 6 trainings finished; left: 1:30"),
        (SuiteProgress(6, 1, 60.0, 3), 30.0, "left: 1:30 and 3 of unknown pace"),
        (SuiteProgress(6, 0, 0.0, 5), None, "left: 6 of unknown pace"),
    ],
)
def test_a_suite_says_what_is_ahead(suite_progress, left, told):
    assert told in suite_progress.describe(left)


def test_a_run_on_a_terminal_leaves_its_results_and_the_last_picture():
    console = Console(file=StringIO(), width=80, height=40, force_terminal=True, color_system=None)
    result = Result(0.9, 0.9, 1, None, 1.0, None, STEPS, 0.5, 12.0, None)
    with View(console) as view:
        view.started("dense", STEPS, PER_EPOCH, ())
        view.advanced(record(STEPS, accuracy=0.9))
        view.finished("dense", result)
    shown = console.file.getvalue()
    assert "dense: test accuracy 90.00% after 400 steps, 12 s" in shown
    assert shown.splitlines()[-2].split()[:3] == ["4", "0.5000", "90.00%"]  # the last one shows the cursor again


def test_what_is_no_terminal_gets_lines(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PAUSE", 0.0)
    with progress.watcher() as watching:
        watching.started("mpo", STEPS, PER_EPOCH, [record(100)])
        watching.advanced(record(200, accuracy=0.9))
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "mpo: continues at step 100; 400 steps, 4 epochs in all",
        "mpo: step 200, epoch 2.0, loss 0.5000, test accuracy 90.00%, 20 s left",
    ]


@pytest.mark.parametrize(("encoding", "kind"), [("utf-8", View), ("ascii", progress.Lines)])
def test_a_terminal_without_the_characters_gets_lines(monkeypatch, encoding, kind):
    monkeypatch.setattr(Console, "encoding", encoding)
    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(progress.watcher(), kind)


def sized(width, height):
    return Console(file=StringIO(), force_terminal=True, width=width, height=height, legacy_windows=False)


NUMBERS = (0.0, 1e-320, 1.0, 1e308, float("nan"), float("inf"), -1.0)


@pytest.mark.parametrize("width", [1, 2, 3, 8, 20, 24, 30, 41, 60, 80, 121, 400])
def test_every_size_of_a_terminal_has_a_picture_that_fits(width):
    made = progress_of(*(record(step, accuracy=0.5 if step % 8 else None) for step in range(4, STEPS, 4)))
    for height in (1, 5, 15, 16, 17, 24, 50):
        console = sized(width, height)
        console.print(picture(made, SuiteProgress(2, 0, 0.0, 1), 0.0, width, height))
        lines = Text.from_ansi(console.file.getvalue()).plain.splitlines()
        assert max(map(len, lines)) <= width


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_has_a_picture(number):
    strange = Record(100, number, number, number, 0.5, number, number)
    for made in (progress_of(strange), progress_of(record(4), strange), progress_of(earlier=[strange])):
        sized(100, 40).print(picture(made, SuiteProgress(2, 0, number, 1), number, 100, 40))


def test_a_terminal_that_shrinks_while_it_is_drawn_stops_nothing():
    console = sized(100, 40)
    with View(console) as view:
        view.started("mpo", STEPS, PER_EPOCH, [])
        for number, width in enumerate((100, 20, 3, 1, 60, 200)):
            console.width, console.height = width, width
            view.advanced(record(4 * number + 4, accuracy=0.5))
            view._live.refresh()
    assert "failed" not in console.file.getvalue()


def test_a_picture_that_fails_is_said_in_its_place_and_not_raised(monkeypatch):
    def broken(*_):
        raise IndexError("list index out of range")

    console = sized(100, 40)
    monkeypatch.setattr("mponet.cli.live.picture", broken)
    with View(console) as view:
        view.started("mpo", STEPS, PER_EPOCH, [])
        view._live.refresh()
        view._live.refresh()
        view.advanced(record(4))
    assert "the progress display failed (IndexError: list index out of range)" in console.file.getvalue()


@pytest.mark.parametrize(("width", "height"), [(0, 5), (-3, 5), (5, 0)])
def test_a_curve_without_room_is_none(width, height):
    assert curve([(0, 1.0), (5, 2.0)], 10, width, height) == []


def test_an_interim_record_gives_way_to_the_next():
    made = progress_of(record(4), replace(record(6), interim=True), replace(record(7), interim=True), record(8))
    assert [one.step for one in made.records] == [4, 8]
