"""From samples to figures: medians, minima, spreads, ratios, means of ratios, exponents."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from statistics import median, quantiles
from typing import Any

from mponet.errors import InputError


@dataclass(frozen=True, slots=True)
class Summary:
    """What is kept of the samples of one contender.

    Attributes:
        median: seconds.
        minimum: seconds; what the machine can do when nothing disturbs it.
        spread: interquartile range over the median: how noisy the run was.
        samples: how many there were.
    """

    median: float
    minimum: float
    spread: float
    samples: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Summary":
        """The summary of at least two samples.

        Raises:
            InputError: there are fewer.
        """
        if len(seconds) < 2:
            raise InputError(f"got {len(seconds)} samples; expected at least 2; measure more rounds")
        first, middle, third = quantiles(seconds, n=4, method="inclusive")
        return cls(middle, min(seconds), (third - first) / middle, len(seconds))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def geometric_mean(values: Iterable[float]) -> float | None:
    """Of positive numbers; None of none."""
    logarithms = [log(value) for value in values]
    return exp(sum(logarithms) / len(logarithms)) if logarithms else None


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """``p`` of the least-squares fit ``value ~ size^p``; None for fewer than two different sizes."""
    if len(set(sizes)) < 2:
        return None
    x, y = [log(size) for size in sizes], [log(value) for value in values]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    along = sum((a - middle_x) ** 2 for a in x)
    return sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True)) / along


def typical_spread(spreads: Iterable[float]) -> float | None:
    """The median of spreads: how noisy a column was; None of none."""
    found = list(spreads)
    return median(found) if found else None
