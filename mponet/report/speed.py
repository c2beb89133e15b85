"""Speed and memory.

Steps of the trainings themselves, and what `mponet bench` and `benchmarks/plumbing.py` measured.

A document of a benchmark is a list of rows, or an object whose ``rows`` is one; a row is an object
with

- ``backend``, and a name under ``row``, ``layer``, ``network``, ``model`` or ``name``;
- ``contenders``, as `mponet bench layers` and `memory` write them: objects with ``kind`` and, for
  each pass, an object with its ``median`` seconds, or with the ``total`` bytes;
- or, for each pass, an object with a ``ratio``, as `mponet bench models` writes them;
- or ``ratio``, a number, or ``ratios``, numbers by pass: ours over dense, lowered over plain;
- if it likes, ``target``, a number, or ``targets``, numbers by pass;
- if it likes, ``memory``: two numbers of bytes, that of ``dense`` or ``plain`` and that of ``ours``
or ``lowered``.

What else is in it is left alone, and a row without any of these is none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from mponet.draw.markup import Markup
from mponet.report.chart import MARKERS, colour, drawing, is_drawable, legend, plain_numbers, series
from mponet.report.experiments import Experiment
from mponet.report.sources import Document

NAMES = ("row", "layer", "network", "model", "name")
BASES, OURS = ("dense", "plain"), ("ours", "lowered")
MAX_ROWS, MAX_PASSES, MAX_NAME = 200, 6, 60  # of a chart; what is beyond is left out, and said
SMALLEST, LARGEST = 1e-15, 1e18  # ratios, seconds and bytes
MEMORY, PEER = "memory", "best peer"


@dataclass(frozen=True, slots=True)
class Ratio:
    """One measurement.

    Attributes:
        backend: that was measured.
        name: of the layer or network.
        what: ``forward``, ``step``, ``memory``, ..., or one of these with ``best peer``.
        value: ours (or the peer's) over that of the dense layer or the plain network.
        target: the most that it should be; None where there is none.
    """

    backend: str
    name: str
    what: str
    value: float
    target: float | None


def step_chart(experiments: Sequence[Experiment]) -> Iterator[Markup]:
    """Time of a training step of every network, one chart for every data set.

    None where nothing was timed.
    """
    times: dict[str, dict[str, dict[int, float]]] = {}
    for number, experiment in enumerate(experiments):
        found: dict[tuple[str, str], list[float]] = {}
        for one in experiment.trainings:
            if one.result is not None and is_drawable(one.result.step_ms):
                found.setdefault((one.settings.data, one.network), []).append(one.result.step_ms)
        for (data, network), values in found.items():
            times.setdefault(data, {}).setdefault(network, {})[number] = median(values)
    for data, networks in times.items():
        title = f"{data}: time of a training step"
        with drawing(f"steps {data}", title, height=_height(len(networks))) as chart:
            for number, experiment in enumerate(experiments):
                points = [(own[number], place) for place, own in enumerate(networks.values()) if number in own]
                if points:
                    xs, ys = zip(*points, strict=True)
                    chart.axes.plot(xs, ys, linestyle="none", markersize=6, label=experiment.label, **series(number))
            _rows(chart.axes, list(networks))
            chart.axes.set_xlabel("milliseconds, logarithmic")
        yield chart.figure(
            title, "median over blocks and seeds, on the machine that trained; a name without D is a dense network."
        )


def ratio_charts(documents: Sequence[Document]) -> Iterator[Markup]:
    """A chart for every benchmark and backend: speed, and memory where it was measured."""
    for document in documents:
        found = ratios(document)
        for backend in dict.fromkeys(one.backend for one in found):
            own = [one for one in found if one.backend == backend]
            for memory in (False, True):
                if shown := [one for one in own if one.what.startswith(MEMORY) == memory]:
                    yield _ratios(document.name, backend, shown, "memory" if memory else "time")


def ratios(document: Document) -> list[Ratio]:
    """The measurements of a document; none if it is not a benchmark."""
    content = document.content
    rows = content.get("rows") if isinstance(content, Mapping) else content
    if not isinstance(rows, list):
        return []
    found = (one for row in rows[:MAX_ROWS] if isinstance(row, Mapping) for one in _of(row))
    return [one for one in found if SMALLEST <= one.value <= LARGEST]


def _of(row: Mapping[str, Any]) -> Iterator[Ratio]:
    backend, name = row.get("backend"), next((row[key] for key in NAMES if isinstance(row.get(key), str)), None)
    if not isinstance(backend, str) or name is None:
        return
    targets = row.get("targets") if isinstance(row.get("targets"), Mapping) else {"": row.get("target")}
    for what, value in _values(row):
        target = _number(targets.get(what, targets.get("")))  # type: ignore[union-attr]
        yield Ratio(backend[:MAX_NAME], name[:MAX_NAME], what[:MAX_NAME], value, target)


def _values(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """What was measured, and the ratio."""
    if isinstance(row.get("contenders"), list):
        yield from _contenders([one for one in row["contenders"] if isinstance(one, Mapping)])
    elif isinstance(row.get("ratios"), Mapping):
        yield from ((str(what), number) for what, value in row["ratios"].items() if (number := _number(value)))
    elif number := _number(row.get("ratio")):
        yield "step", number
    else:
        yield from ((what, number) for what, value in row.items() if (number := _inner(value, "ratio")))
    memory = row.get(MEMORY)
    if isinstance(memory, Mapping):
        base, ours = (next((_number(memory[key]) for key in keys if key in memory), None) for keys in (BASES, OURS))
        if base and ours:
            yield MEMORY, ours / base


def _contenders(entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    passes = dict.fromkeys(key for one in entries for key, value in one.items() if _inner(value, "median"))
    measured = {what: [(one.get("kind"), _inner(one.get(what), "median")) for one in entries] for what in passes}
    for what, pairs in {**measured, MEMORY: [(one.get("kind"), _number(one.get("total"))) for one in entries]}.items():
        known = [(kind, value) for kind, value in pairs if value]
        dense = next((value for kind, value in known if kind == "dense"), None)
        if dense:
            yield from ((what, value / dense) for kind, value in known if kind == "ours")
            peers = [value for kind, value in known if kind == "peer"]
            if peers:
                yield f"{what}, {PEER}", min(peers) / dense


def _inner(value: Any, key: str) -> float | None:
    """A positive number within an object."""
    return _number(value.get(key)) if isinstance(value, Mapping) else None


def _number(value: Any) -> float | None:
    """A positive number; None for anything else, also for one that no measurement gives."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and SMALLEST <= value <= LARGEST
    return float(value) if usable else None


def _ratios(name: str, backend: str, found: Sequence[Ratio], kind: str) -> Markup:
    title = f"{backend}: {kind}, ours over dense"
    layers, whats = (list(dict.fromkeys(getattr(one, key) for one in found)) for key in ("name", "what"))
    with drawing(f"ratios {name} {backend} {kind}", title, height=_height(len(layers))) as chart:
        axes = chart.axes
        axes.axvline(1.0, color=colour("ink"), linewidth=0.9)
        every = list(dict.fromkeys(what.partition(",")[0] for what in whats))
        passes = every[:MAX_PASSES]
        more = f" Without {len(every) - MAX_PASSES} more passes." if len(every) > MAX_PASSES else ""
        for what in [what for what in whats if what.partition(",")[0] in passes]:
            place, peer = passes.index(what.partition(",")[0]), what.endswith(PEER)
            shift = 0.16 * (place - (len(passes) - 1) / 2)
            own = [one for one in found if one.what == what]
            tint = colour(f"series{place}")
            axes.plot(
                [one.value for one in own],
                [layers.index(one.name) + shift for one in own],
                linestyle="none",
                marker=MARKERS[place],
                color=tint,
                markerfacecolor=colour("surface") if peer else tint,
                markersize=5.5,
                label=what,
            )
            aims = [one for one in own if one.target is not None and not peer]
            axes.plot(
                [one.target for one in aims],
                [layers.index(one.name) + shift for one in aims],
                linestyle="none",
                marker="|",
                markersize=9,
                markeredgewidth=1.6,
                color=tint,
                alpha=0.7,
            )
        _rows(axes, layers)
        axes.set_xlabel("1 is as much as the dense layer or the dense network")
    return chart.figure(title, f"from {name}; left of the line is better; bars: targets.{more}")


def _rows(axes: Any, names: Sequence[str]) -> None:
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    legend(axes)


def _height(rows: int) -> float:
    return 1.0 + 0.24 * max(rows, 3)
