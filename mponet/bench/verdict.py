"""Ratios to the dense layer and their targets, the best peer, and the noise of the samples."""

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mponet.bench.implementation import DENSE, OURS
from mponet.bench.layers import PASSES
from mponet.bench.rows import OVER_PEERS
from mponet.bench.statistics import geometric_mean, typical_spread

#: Interquartile range over median above which there is no verdict.
NOISY = 0.5
Figure = Literal["median", "minimum"]


@dataclass(frozen=True, slots=True)
class Line:
    """One pass of one layer in one framework.

    Attributes:
        row: name of the layer.
        which: ``forward`` or ``step``.
        dense: median seconds of the dense layer; None if it is not measured.
        ours: median seconds of our layer.
        ratio: ours over dense, medians.
        least: ours over dense, minima.
        target: largest allowed ``ratio``.
        peer: name of the fastest peer, by median.
        over_peer: time of the fastest peer over ours.
        spread: spread of our samples or of those of the dense layer, whichever is larger.
    """

    row: str
    which: str
    dense: float | None
    ours: float
    ratio: float | None
    least: float | None
    target: float | None
    peer: str | None
    over_peer: float | None
    spread: float

    @property
    def mark(self) -> str:
        """Whether the target is met, as `mark` shows it."""
        return mark(self.ratio, self.least, self.target, self.spread)


def mark(ratio: float | None, least: float | None, target: float | None, spread: float) -> str:
    """Whether a target is met: ``✓`` or ``✗``.

    The mark is ``?`` if noise is too large to tell, and empty without a target.

    Args:
        ratio: ratio of medians.
        least: ratio of minima; if it meets the target and ``ratio`` does not, or the reverse, noise
            is too large.
        target: largest allowed ratio.
        spread: spread of the samples; above `NOISY` noise is too large.

    >>> mark(0.5, 0.4, 1.0, 0.1), mark(1.1, 0.9, 1.0, 0.1), mark(1.1, 1.2, 1.0, 0.1)
    ('✓', '?', '✗')
    """
    if ratio is None or least is None or target is None:
        return ""
    met = {ratio <= target, least <= target}
    return "?" if len(met) > 1 or spread > NOISY else "✓" if met == {True} else "✗"


def seconds(row: dict[str, Any], name: str, which: str, figure: Figure = "median") -> float | None:
    """Seconds of an implementation in a row; None if it was not measured."""
    entry = next((entry for entry in row["contenders"] if entry["name"] == name), None)
    return None if entry is None or which not in entry else float(entry[which][figure])


def ratio(row: dict[str, Any], name: str, which: str, figure: Figure = "median") -> float | None:
    """Time of an implementation over that of the dense layer."""
    time, dense = (seconds(row, each, which, figure) for each in (name, DENSE))
    return None if time is None or dense is None else time / dense


def lines(rows: Iterable[dict[str, Any]]) -> Iterator[Line]:
    """The passes of all rows."""
    for row in rows:
        for which in PASSES:
            ours = _entry(row, OURS)[which]
            noise = [entry[which]["spread"] for entry in row["contenders"] if entry["name"] in (OURS, DENSE)]
            peer, fastest = best_peer(row, which)
            yield Line(
                row["row"],
                which,
                seconds(row, DENSE, which),
                ours["median"],
                ratio(row, OURS, which),
                ratio(row, OURS, which, "minimum"),
                row["targets"][which],
                peer,
                None if fastest is None else fastest / ours["median"],
                max(noise),
            )


def best_peer(row: dict[str, Any], which: str) -> tuple[str | None, float | None]:
    """Name and seconds of the fastest peer."""
    times = [(entry[which]["median"], entry["name"]) for entry in row["contenders"] if _is_peer(entry, which)]
    return min(times)[::-1] if times else (None, None)


def over_peers(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By pass, the geometric mean of the best peer over ours, its target, and faster peers."""
    passes = list(lines(rows))
    return {
        which: {
            "mean": geometric_mean(line.over_peer for line in passes if line.which == which and line.over_peer),
            "target": OVER_PEERS[which],
            "faster": [
                {"row": row["row"], "name": entry["name"], "ours_over_peer": _entry(row, OURS)[which]["median"] / mine}
                for row in rows
                for entry in row["contenders"]
                if _is_peer(entry, which) and (mine := entry[which]["median"]) < _entry(row, OURS)[which]["median"]
            ],
        }
        for which in PASSES
    }


def spreads(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Median spread by implementation, over all rows and both passes."""
    names = dict.fromkeys(entry["name"] for row in rows for entry in row["contenders"])
    return {
        name: typical_spread(
            entry[which]["spread"]
            for row in rows
            for entry in row["contenders"]
            for which in PASSES
            if entry["name"] == name and which in entry
        )
        for name in names
    }


def unsupported(rows: Sequence[dict[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """By implementation, the rows that it does not support, with the reasons."""
    reasons: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        for entry in row["contenders"]:
            if "cannot" in entry:
                reasons.setdefault(entry["name"], []).append((row["row"], entry["cannot"]))
    return reasons


def machine() -> dict[str, Any]:
    """The machine and its load: the mean number of processes that want to run."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": load,
        "wait_policy": os.environ.get("OMP_WAIT_POLICY"),
    }


def _processor() -> str:
    """The model of the processor, if the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _entry(row: dict[str, Any], name: str) -> dict[str, Any]:
    entry: dict[str, Any] = next(entry for entry in row["contenders"] if entry["name"] == name)
    return entry


def _is_peer(entry: dict[str, Any], which: str) -> bool:
    return entry["kind"] == "peer" and which in entry
