"""Statistics of samples: medians, minima, spreads, means of ratios, exponents."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from statistics import median, quantiles
from typing import Any

from mponet.errors import InputError


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics of the samples of one call.

    Attributes:
        median: median in seconds.
        minimum: minimum in seconds, the time on an undisturbed machine.
        spread: interquartile range over the median, a measure of noise.
        samples: number of samples.
    """

    median: float
    minimum: float
    spread: float
    samples: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Summary":
        """The summary of at least two samples.

        Raises:
            InputError: there are fewer than two samples.

        >>> Summary.of([1.0, 2.0, 3.0]).median
        2.0
        """
        if len(seconds) < 2:
            raise InputError(f"got {len(seconds)} samples; expected at least 2; measure more rounds")
        first, middle, third = quantiles(seconds, n=4, method="inclusive")
        return cls(middle, min(seconds), (third - first) / middle, len(seconds))

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def geometric_mean(values: Iterable[float]) -> float | None:
    """Geometric mean of positive numbers; None without any.

    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    logarithms = [log(value) for value in values]
    return exp(sum(logarithms) / len(logarithms)) if logarithms else None


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """``p`` of the least-squares fit ``value ~ size^p``; None for fewer than two different sizes.

    >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    if len(set(sizes)) < 2:
        return None
    x, y = [log(size) for size in sizes], [log(value) for value in values]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    along = sum((a - middle_x) ** 2 for a in x)
    return sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True)) / along


def typical_spread(spreads: Iterable[float]) -> float | None:
    """The median of spreads; None without any."""
    values = list(spreads)
    return median(values) if values else None
