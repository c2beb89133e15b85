"""How a run is watched: a bar on a terminal, a line now and then elsewhere; always on standard error."""

from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mponet.cli.output import notice
from mponet.run import Reporter, Result
from mponet.train import Record

PAUSE = 10.0  # seconds between two plain lines


class Watcher(Reporter, Protocol):
    """A reporter that leaves the terminal tidy, however the run ends."""

    def __enter__(self) -> "Watcher":
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave the terminal as it was."""


def watcher() -> Watcher:
    """The one that suits standard error."""
    console = Console(stderr=True, highlight=False)
    return Bars(console) if console.is_terminal else Lines()


class Bars:
    """One bar per variant: epochs, loss, accuracy, images per second, time left."""

    def __init__(self, console: Console) -> None:
        columns = [TextColumn(f"{{task.fields[{name}]}}") for name in ("epoch", "loss", "accuracy", "speed")]
        self._progress = Progress(
            TextColumn("{task.description:<5}"),
            BarColumn(bar_width=None),
            *columns,
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            expand=True,
        )
        self._task = TaskID(0)
        self._epochs = ""

    def __enter__(self) -> "Bars":
        """Begin."""
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def started(self, variant: str, steps: int, per_epoch: int, earlier: Sequence[Record]) -> None:
        """A new bar; nothing is known before the first block, in which a framework compiles."""
        step = earlier[-1].step if earlier else 0
        self._epochs = f"{steps / per_epoch:.3g}"
        self._task = self._progress.add_task(
            variant,
            total=steps,
            completed=step,
            epoch=self._epoch(step / per_epoch),
            loss="starting",
            accuracy="",
            speed="",
        )

    def advanced(self, record: Record) -> None:
        """Move it."""
        fields: dict[str, Any] = {
            "epoch": self._epoch(record.epoch),
            "loss": f"loss {record.loss:.4f}",
        }
        if record.diverged:
            fields["loss"] = "[red]diverged[/red]"
        if record.accuracy is not None:
            fields["accuracy"] = f"test {record.accuracy:.2%}"
        if record.images_per_s is not None:
            fields["speed"] = f"{record.images_per_s:,.0f} images/s".replace(",", " ")
        self._progress.update(self._task, completed=record.step, **fields)

    def finished(self, variant: str, outcome: Result) -> None:
        """The bar says it already."""

    def _epoch(self, done: float) -> str:
        return f"epoch {done:{len(self._epochs)}.0f}/{self._epochs}"  # of one width, or the bar would jump


class Lines:
    """Plain lines, at most one in `PAUSE` seconds while a variant trains."""

    def __init__(self) -> None:
        self._variant = ""
        self._last = 0.0

    def __enter__(self) -> "Lines":
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing to tidy."""

    def started(self, variant: str, steps: int, per_epoch: int, earlier: Sequence[Record]) -> None:
        """What is to be done."""
        self._variant, self._last = variant, monotonic()
        step = earlier[-1].step if earlier else 0
        begin = f"goes on at step {step}" if step else "starts"
        notice(f"{variant}: {begin}; {steps} steps, {steps / per_epoch:.3g} epochs in all")

    def advanced(self, record: Record) -> None:
        """How far it is."""
        if monotonic() - self._last < PAUSE:
            return
        self._last = monotonic()
        accuracy = "" if record.accuracy is None else f", test accuracy {record.accuracy:.2%}"
        notice(f"{self._variant}: step {record.step}, epoch {record.epoch:.1f}, loss {record.loss:.4f}{accuracy}")

    def finished(self, variant: str, outcome: Result) -> None:
        """What came out."""
        told = "diverged" if outcome.diverged else f"test accuracy {outcome.accuracy:.2%}"
        notice(f"{variant}: {told} after {outcome.steps} steps, {outcome.seconds:.1f} s")
