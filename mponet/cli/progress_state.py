"""What a watcher knows of a training: the records so far, and what follows from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, log10

from mponet.training.loop import Record

FOREVER = 1e10  # seconds, three hundred years


@dataclass(frozen=True, slots=True)
class Progress:
    """A training as it goes.

    Attributes:
        name: of the variant, or of the cell of a suite.
        steps: to do in all.
        per_epoch: steps of an epoch.
        records: so far, those of earlier processes first.
        earlier: how many of them are of earlier processes.
    """

    name: str
    steps: int
    per_epoch: int
    records: tuple[Record, ...] = field(default=(), repr=False)
    earlier: int = 0

    @property
    def last(self) -> Record | None:
        """The latest record."""
        return self.records[-1] if self.records else None

    @property
    def step(self) -> int:
        """Steps done."""
        return self.last.step if self.last else 0

    @property
    def epochs(self) -> float:
        """Length in epochs."""
        return self.steps / self.per_epoch

    @property
    def evaluations(self) -> Sequence[Record]:
        """The records with an accuracy."""
        return [record for record in self.records if record.accuracy is not None]

    def left(self) -> float | None:
        """Seconds that remain after the last record, by the pace of this process.

        None before its first record.
        """
        if len(self.records) == self.earlier:
            return None
        before = self.records[self.earlier - 1] if self.earlier else None
        step, seconds = (before.step, before.seconds) if before else (0, 0.0)
        last = self.records[-1]
        done = last.step - step
        return (last.seconds - seconds) / done * (self.steps - last.step) if done > 0 else None

    def losses(self) -> list[tuple[float, float]]:
        """Step and logarithm of the loss, where it has one."""
        return [(one.step, log10(one.loss)) for one in self.records if 0 < one.loss < inf]

    def accuracies(self) -> list[tuple[float, float]]:
        """Step and accuracy of the evaluations."""
        return [(one.step, one.accuracy) for one in self.records if one.accuracy is not None]


def begin(name: str, steps: int, per_epoch: int, earlier: Sequence[Record]) -> Progress:
    """A progress that starts, or goes on after the records of earlier processes."""
    return Progress(name, steps, per_epoch, tuple(earlier), len(earlier))


def extend(progress: Progress, record: Record) -> Progress:
    """The progress with one more record, in place of an interim one before it."""
    kept = progress.records[:-1] if progress.records and progress.records[-1].interim else progress.records
    return replace(progress, records=(*kept, record))


@dataclass(frozen=True, slots=True)
class SuiteProgress:
    """The rest of a suite.

    Attributes:
        count: of all trainings.
        finished: how many are.
        seconds: that those of known pace take which are neither finished nor watched.
        unknown: how many there are of unknown pace.
    """

    count: int
    finished: int
    seconds: float
    unknown: int

    def describe(self, left: float | None) -> str:
        """A line; ``left`` are the seconds that the watched one takes, None if unknown."""
        unknown = self.unknown + (left is None)
        known = clock(self.seconds + (left or 0.0)) if self.seconds or left is not None else ""
        more = f"{unknown} of unknown pace" if unknown else ""
        return (
            f"suite: {self.finished} of {self.count} trainings finished; left: "
            f"{' and '.join(part for part in (known, more) if part)}"
        )


def clock(seconds: float) -> str:
    """``12 s``, ``3:05``, ``2:03:05``; ``unknown`` for a number that is not a time."""
    if not 0 <= seconds < FOREVER:
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
