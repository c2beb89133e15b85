"""What a watcher knows of a training: the records so far, and what follows from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, log10

from mponet.training.loop import Record


@dataclass(frozen=True, slots=True)
class Course:
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
        """Seconds that remain after the last record, by the pace of this process; None before its first record."""
        if len(self.records) == self.earlier:
            return None
        before = self.records[self.earlier - 1] if self.earlier else None
        step, seconds = (before.step, before.seconds) if before else (0, 0.0)
        last = self.records[-1]
        return (last.seconds - seconds) / (last.step - step) * (self.steps - last.step)

    def losses(self) -> list[tuple[float, float]]:
        """Step and logarithm of the loss, where it has one."""
        return [(one.step, log10(one.loss)) for one in self.records if isfinite(one.loss) and one.loss > 0]

    def accuracies(self) -> list[tuple[float, float]]:
        """Step and accuracy of the evaluations."""
        return [(one.step, one.accuracy) for one in self.records if one.accuracy is not None]


def begun(name: str, steps: int, per_epoch: int, earlier: Sequence[Record]) -> Course:
    """A course that starts, or goes on after the records of earlier processes."""
    return Course(name, steps, per_epoch, tuple(earlier), len(earlier))


def further(course: Course, record: Record) -> Course:
    """The course with one more record."""
    return replace(course, records=(*course.records, record))
