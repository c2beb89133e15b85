"""Times for people, and what a suite has still to do beside the training that is watched."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ahead:
    """The rest of a suite.

    Attributes:
        count: of all cells.
        finished: how many are.
        seconds: that those of known pace take which are neither finished nor watched.
        unknown: how many there are of unknown pace.
    """

    count: int
    finished: int
    seconds: float
    unknown: int

    def told(self, left: float | None) -> str:
        """A line; ``left`` are the seconds that the watched one takes, None if unknown."""
        unknown = self.unknown + (left is None)
        known = clock(self.seconds + (left or 0.0)) if self.seconds or left is not None else ""
        more = f"{unknown} of unknown pace" if unknown else ""
        return (
            f"suite: {self.finished} of {self.count} cells finished; left: "
            f"{' and '.join(part for part in (known, more) if part)}"
        )


def clock(seconds: float) -> str:
    """``12 s``, ``3:05``, ``2:03:05``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
