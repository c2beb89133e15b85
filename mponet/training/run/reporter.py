"""What a run tells whoever watches it."""

from collections.abc import Sequence
from typing import Protocol

from mponet.training.loop import Record
from mponet.training.run.result import Result
from mponet.training.watch import Guard


class Reporter(Protocol):
    """Receives the progress of a run."""

    def started(self, variant: str, steps: int, per_epoch: int, earlier: Sequence[Record]) -> None:
        """A variant starts, or continues after the ``earlier`` records, with ``steps`` in all."""

    def advanced(self, record: Record) -> None:
        """A block of steps is done, or some seconds of a long one (`Record.interim`)."""

    def finished(self, variant: str, outcome: Result) -> None:
        """A variant is done, or was done before."""


class NullReporter:
    """Reports nothing."""

    def started(self, variant: str, steps: int, per_epoch: int, earlier: Sequence[Record]) -> None:
        """Do nothing."""

    def advanced(self, record: Record) -> None:
        """Do nothing."""

    def finished(self, variant: str, outcome: Result) -> None:
        """Do nothing."""


class GuardedReporter:
    """Passes everything on to a reporter until it fails."""

    def __init__(self, reporter: Reporter, guard: Guard | None = None) -> None:
        self._reporter, self._guard = reporter, guard or Guard()

    def started(self, variant: str, steps: int, per_epoch: int, earlier: Sequence[Record]) -> None:
        """Pass on."""
        self._guard.call(self._reporter.started, variant, steps, per_epoch, earlier)

    def advanced(self, record: Record) -> None:
        """Pass on."""
        self._guard.call(self._reporter.advanced, record)

    def finished(self, variant: str, outcome: Result) -> None:
        """Pass on."""
        self._guard.call(self._reporter.finished, variant, outcome)
