"""What the figures say: ratios to the dense layer beside their targets, and who is the best peer."""

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mponet.bench.contender import DENSE, OURS
from mponet.bench.layers import PASSES
from mponet.bench.rows import OVER_PEERS
from mponet.bench.statistics import geometric_mean, typical_spread

#: Interquartile range over median beyond which samples do not bear a verdict.
NOISY = 0.5
Figure = Literal["median", "minimum"]


@dataclass(frozen=True, slots=True)
class Line:
    """One pass of one layer in one framework.

    Attributes:
        row: name of the layer.
        which: ``forward`` or ``step``.
        dense: median seconds of the dense layer; None where there is none.
        ours: median seconds of ours.
        ratio: ours over dense, of medians.
        least: ours over dense, of minima.
        target: the most that ``ratio`` should be.
        peer: the fastest peer, by median.
        over_peer: its time over ours.
        spread: of our samples or of the dense layer's, whichever is larger.
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
        """Whether the target is met, as `mark` says it."""
        return mark(self.ratio, self.least, self.target, self.spread)


def mark(ratio: float | None, least: float | None, target: float | None, spread: float) -> str:
    """``✓`` or ``✗``; ``?`` where noise decides; empty without a target.

    Args:
        ratio: of medians.
        least: of minima; where it says something else than ``ratio``, noise decides.
        target: the most that they should be.
        spread: of the samples; above `NOISY`, noise decides.
    """
    if ratio is None or least is None or target is None:
        return ""
    met = {ratio <= target, least <= target}
    return "?" if len(met) > 1 or spread > NOISY else "✓" if met == {True} else "✗"


def seconds(row: dict[str, Any], name: str, which: str, figure: Figure = "median") -> float | None:
    """Seconds of a contender in a row; None if it took no part."""
    found = next((entry for entry in row["contenders"] if entry["name"] == name), None)
    return None if found is None or which not in found else float(found[which][figure])


def ratio(row: dict[str, Any], name: str, which: str, figure: Figure = "median") -> float | None:
    """A contender's time over the dense layer's."""
    mine, dense = (seconds(row, one, which, figure) for one in (name, DENSE))
    return None if mine is None or dense is None else mine / dense


def lines(rows: Iterable[dict[str, Any]]) -> Iterator[Line]:
    """The passes of all rows."""
    for row in rows:
        for which in PASSES:
            mine = _entry(row, OURS)[which]
            noise = [entry[which]["spread"] for entry in row["contenders"] if entry["name"] in (OURS, DENSE)]
            peer, fastest = best_peer(row, which)
            yield Line(
                row["row"],
                which,
                seconds(row, DENSE, which),
                mine["median"],
                ratio(row, OURS, which),
                ratio(row, OURS, which, "minimum"),
                row["targets"][which],
                peer,
                None if fastest is None else fastest / mine["median"],
                max(noise),
            )


def best_peer(row: dict[str, Any], which: str) -> tuple[str | None, float | None]:
    """The fastest other way to apply the same operator, and its seconds."""
    times = [(entry[which]["median"], entry["name"]) for entry in row["contenders"] if _is_peer(entry, which)]
    return min(times)[::-1] if times else (None, None)


def over_peers(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By pass, the geometric mean of (best peer over ours), its target, and every peer that was faster."""
    found = list(lines(rows))
    return {
        which: {
            "mean": geometric_mean(line.over_peer for line in found if line.which == which and line.over_peer),
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
    """By contender, the typical interquartile range over the median, forward and step together."""
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


def absent(rows: Sequence[dict[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """By contender, the rows that it could not take, with the reasons."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        for entry in row["contenders"]:
            if "cannot" in entry:
                found.setdefault(entry["name"], []).append((row["row"], entry["cannot"]))
    return found


def machine() -> dict[str, Any]:
    """Where it runs, and how busy that is just now: the mean number of processes that want to run."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": load,
    }


def _processor() -> str:
    """The model of the processor, as far as the system says it."""
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
