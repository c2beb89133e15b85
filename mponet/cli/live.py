"""The live view of a training on a terminal.

A bar with the time left, two curves, and a table of the evaluations.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from math import isfinite
from time import monotonic
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mponet.cli.curve import curve
from mponet.cli.progress_state import Progress, SuiteProgress, begin, clock, extend
from mponet.training.loop import Record
from mponet.training.run import Result

CURVES = 5  # lines
FEWEST, MOST = 3, 12  # evaluations in the table
AROUND = 8  # lines other than curves and table: title, bar, blanks, titles and ends of curves, headings, the cursor
WIDEST = 120  # wider than that, numbers that belong together are far apart
LABEL = 8  # characters left of a curve
NARROWEST = 8  # characters of a curve; on a narrower terminal there are none


class _SafeLive(Live):
    """Rich's live display; what cannot be drawn or written is handed to ``note`` and dropped."""

    def __init__(self, note: Callable[[BaseException], None], **options: Any) -> None:
        self._note = note
        super().__init__(**options)

    def refresh(self) -> None:
        """Draw; called by a thread of rich's, too, which an exception would end."""
        try:
            super().refresh()
        except (Exception, SystemExit) as error:
            self._note(error)


class View:
    """Watches a run, or one training of a suite.

    What it shows stays where it was when the training ends.

    Args:
        console: a terminal.
        suite_progress: what else a suite has to do; None for a run.
    """

    def __init__(self, console: Console, suite_progress: SuiteProgress | None = None) -> None:
        self._console, self._suite_progress = console, suite_progress
        self._progress: Progress | None = None
        self._since = monotonic()
        self._problem: str | None = None
        self._live = _SafeLive(
            self._note,
            console=console,
            get_renderable=self._picture,
            transient=suite_progress is not None,
            refresh_per_second=4,
        )

    def __enter__(self) -> "View":
        """Begin."""
        try:
            self._live.start()
        except (Exception, SystemExit) as error:
            self._note(error)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave the terminal as it was, with the last picture of a run above the cursor."""
        with suppress(Exception, SystemExit):  # a terminal that is gone needs nothing
            self._live.stop()

    def started(self, variant: str, steps: int, per_epoch: int, earlier: Sequence[Record]) -> None:
        """Show this one from now on."""
        self._progress, self._since = begin(variant, steps, per_epoch, earlier), monotonic()

    def advanced(self, record: Record) -> None:
        """Show this, too."""
        if self._progress is not None:
            self._progress, self._since = extend(self._progress, record), monotonic()

    def finished(self, variant: str, outcome: Result) -> None:
        """One line above the picture, which the next variant takes."""
        if self._suite_progress is None:
            told = "diverged" if outcome.accuracy is None else f"test accuracy {outcome.accuracy:.2%}"
            self._live.console.print(Text(f"{variant}: {told} after {outcome.steps} steps, {clock(outcome.seconds)}"))

    def _note(self, error: BaseException) -> None:
        """Keep the first problem; the picture says it from now on."""
        self._problem = self._problem or f"the progress display failed ({type(error).__name__}: {error})"

    def _picture(self) -> RenderableType:
        if self._problem:
            return Text(f"{self._problem}; the work continues without it", style="dim")
        if self._progress is None:
            return Text("starting", style="dim")
        since, size = monotonic() - self._since, self._console.size
        try:
            return picture(self._progress, self._suite_progress, since, size.width, size.height)
        except Exception as error:  # whatever it is, the training has nothing to do with it
            self._note(error)
            return Text()


def picture(progress: Progress, suite_progress: SuiteProgress | None, since: float, width: int, height: int) -> Group:
    """What is shown of a training.

    Args:
        progress: of the training.
        suite_progress: what else a suite has to do.
        since: seconds since its last record.
        width: of the terminal, in characters.
        height: of the terminal, in lines.
    """
    width = min(width, WIDEST)
    parts = list(_head(progress, suite_progress, since, width))
    room = height - AROUND - CURVES - (suite_progress is not None)
    if room >= FEWEST and _curve_width(width) >= NARROWEST:
        parts += [Text(), _curves(progress, width), Text(), _table(progress, min(room, MOST))]
    return Group(*parts)


def _curve_width(width: int) -> int:
    """Characters of each of two curves side by side, without their labels."""
    return (width - 3) // 2 - LABEL - 2


def _head(
    progress: Progress, suite_progress: SuiteProgress | None, since: float, width: int
) -> Iterator[RenderableType]:
    left, epochs = progress.left(), f"{progress.epochs:.3g}"
    done = f"epoch {progress.step / progress.per_epoch:{len(epochs)}.0f}/{epochs}"
    remaining = None if left is None else max(left - since, 0.0)
    ending = (
        "starting" if remaining is None else f"{clock(remaining)} left" if progress.step < progress.steps else "done"
    )
    title = Table.grid(expand=False, padding=(0, 2, 0, 0))
    title.width = width
    title.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    title.add_column(justify="right", no_wrap=True)
    title.add_row(Text(progress.name, style="bold"), Text(f"{done}   {_speed(progress)}{ending}"))
    yield title
    if suite_progress is not None:
        yield Text(suite_progress.describe(remaining), style="dim", no_wrap=True, overflow="ellipsis")
    yield ProgressBar(total=progress.steps, completed=progress.step, width=width)


def _speed(progress: Progress) -> str:
    rate = next((one.images_per_s for one in reversed(progress.records) if one.images_per_s), None)
    return "" if rate is None else f"{_whole(rate)} images/s   "


def _curves(progress: Progress, width: int) -> Table:
    """Loss and accuracy side by side; the right edge of each is the end of the training."""
    losses, accuracies = progress.losses(), progress.accuracies()
    grid = Table.grid(padding=(0, 3, 0, 0))
    labels = [f"{10**value:.3g}" for value in _ends(losses)], [f"{value:.2%}" for value in _ends(accuracies)]
    grid.add_row(
        _plot("loss of a batch, logarithmic", losses, labels[0], progress, width, "cyan"),
        _plot("test accuracy", accuracies, labels[1], progress, width, "green"),
    )
    return grid


def _plot(
    title: str,
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    progress: Progress,
    width: int,
    style: str,
) -> Text:
    wide = _curve_width(width)
    top, bottom = labels if labels else ("", "")
    text = Text(f"{'':>{LABEL}}  {title}\n", style="dim", no_wrap=True)
    for number, line in enumerate(curve(points, progress.steps, wide, CURVES)):
        label = {0: top, CURVES - 1: bottom if bottom != top else ""}.get(number, "")
        text.append(f"{label:>{LABEL}} │")
        text.append(f"{line}\n", style=f"not dim {style}")
    end = f"{progress.epochs:.3g} epochs"
    text.append(f"{'':>{LABEL}} └0{end:─>{wide - 1}}")
    return text


def _ends(points: Sequence[tuple[float, float]]) -> list[float]:
    values = [value for _, value in points]
    return [max(values), min(values)] if values else []


def _table(progress: Progress, rows: int) -> Table:
    """The latest evaluations, the last one below.

    What has come since as a line without accuracy.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for heading in ("epoch", "loss", "test", "best", "rate", "images/s", "time"):
        table.add_column(heading, justify="right", min_width=7, no_wrap=True)
    shown, best = progress.evaluations, 0.0
    lines = []
    for record in shown:
        accuracy = record.accuracy or 0.0
        lines.append(_line(record, f"{accuracy:.2%}", f"{max(best, accuracy):.2%}", accuracy > best))
        best = max(best, accuracy)
    if progress.last is not None and progress.last.accuracy is None:
        word = "diverged" if progress.last.diverged else "..."
        lines.append(_line(progress.last, word, f"{best:.2%}" if best else "", False))
    for cells in lines[-rows:]:
        table.add_row(*cells)
    return table


def _line(record: Record, accuracy: str, best: str, better: bool) -> tuple[RenderableType, ...]:
    style = "red" if record.diverged else "bold green" if better else ""
    return (
        f"{record.epoch:.3g}",
        f"{record.loss:.4f}" if isfinite(record.loss) else "none",
        Text(accuracy, style=style),
        best,
        f"{record.learning_rate:.3g}",
        _whole(record.images_per_s) if record.images_per_s else "",
        clock(record.seconds),
    )


def _whole(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
