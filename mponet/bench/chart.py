"""Charts of measurements as SVG files, by matplotlib, which is imported only here.

Equal data gives equal bytes.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from io import BytesIO
from math import log2
from pathlib import Path
from typing import Any

from mponet.bench.implementation import DENSE, OURS
from mponet.bench.layers import PASSES
from mponet.errors import InputError
from mponet.files import write_atomically, writing

SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "mponet",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
COLOURS = {OURS: "#b3371c", DENSE: "#2b5c8a"}
STYLES = {"forward": "--", "step": "-"}
UNITS = {"width": "width N of a layer N to N", "bond": "bond dimension D", "batch": "rows of the batch"}
#: Colours of structures in `crossings`, and the ratios that may have a tick.
LINES = ("#b3371c", "#2b5c8a", "#4d7c3a")
RATIOS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
#: Colours of log2(ours over dense): blue is faster, red slower, white equal.
MAP_COLOURS, MAP_LIMIT = "RdBu_r", 4.0


def growth(path: Path, curves: Sequence[Mapping[str, Any]], title: str) -> None:
    """Time against width, bond and batch, with measured exponents and those of the multiplications.

    Raises:
        InputError: matplotlib is missing.
        CheckpointError: the file cannot be written.
    """
    figure = _figure((3.7 * len(curves), 3.6))
    with _settings():
        for axes, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
            for name in (OURS, DENSE):
                for which in PASSES:
                    points = [(s, t) for s, t in zip(curve["sizes"], curve[name][which], strict=True) if t is not None]
                    label = f"{name}, {which}: {_power(curve[name]['measured'][which])}"
                    x, y = zip(*points, strict=True)
                    axes.plot(x, y, STYLES[which], color=COLOURS[name], marker="o", markersize=3.5, label=label)
            theory = ", ".join(f"{name} {_power(curve[name]['theory'])}" for name in (OURS, DENSE))
            axes.set(xscale="log", yscale="log", xlabel=UNITS[curve["axis"]], title=f"multiplications: {theory}")
            axes.title.set_fontsize(9)
            axes.set_xticks(curve["sizes"], [str(size) for size in curve["sizes"]], minor=False)
            axes.set_xticks([], minor=True)
            axes.tick_params(axis="x", labelsize=7.5)
            axes.grid(color="#dddddd", linewidth=0.5)
            axes.legend(fontsize=7.5, loc="upper left", handlelength=3.2)
            low, high = axes.get_ylim()
            axes.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend
        figure.axes[0].set_ylabel("seconds")
        figure.suptitle(title, fontsize=10)
        _save(figure, path)


def crossover(path: Path, ratios: Mapping[tuple[int, int, int], float], title: str) -> None:
    """Ours over dense by width and bond, one map per batch; above the thick line ours is slower.

    Args:
        path: file to write.
        ratios: ratio by ``(batch, width, bond)``.
        title: title of the chart.

    Raises:
        InputError: matplotlib is missing.
        CheckpointError: the file cannot be written.
    """
    batches, widths, bonds = (sorted({key[k] for key in ratios}) for k in range(3))
    figure = _figure((1.2 + 3.2 * len(batches), 3.6))
    with _settings():
        maps = figure.subplots(1, len(batches), squeeze=False, sharey=True)[0]
        for axes, batch in zip(maps, batches, strict=True):
            cells = [[ratios.get((batch, width, bond)) for width in widths] for bond in bonds]
            shades = [[float("nan") if cell is None else log2(cell) for cell in row] for row in cells]
            image = axes.imshow(
                shades, cmap=MAP_COLOURS, vmin=-MAP_LIMIT, vmax=MAP_LIMIT, origin="lower", aspect="auto"
            )
            for y, row in enumerate(cells):
                for x, cell in enumerate(row):
                    if cell is not None:
                        strong = abs(log2(cell)) > 0.6 * MAP_LIMIT
                        shown = f"{cell:.2f}" if cell < 9.95 else f"{cell:.0f}"
                        axes.text(x, y, shown, ha="center", va="center", fontsize=7.5, color="w" if strong else "k")
            _border(axes, cells)
            axes.set_xticks(range(len(widths)), [str(width) for width in widths])
            axes.set_yticks(range(len(bonds)), [str(bond) for bond in bonds])
            axes.set(xlabel="width", title=f"batch {batch}")
        maps[0].set_ylabel("bond dimension")
        scale = figure.colorbar(image, ax=list(maps), pad=0.01)
        scale.set_ticks([-4, -2, 0, 2, 4], labels=["1/16", "1/4", "1", "4", "16"])
        scale.set_label("time of ours over dense")
        figure.suptitle(title, fontsize=10)
        _save(figure, path)


def crossings(path: Path, curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], title: str) -> None:
    """Ratios of operators to low rank by the share of the weights, a panel for each network.

    Args:
        path: file to write.
        curves: points ``(share, ratio)`` by network and structure; below 1 the structure is better.
        title: title of the chart.

    Raises:
        InputError: matplotlib is missing.
        CheckpointError: the file cannot be written.
    """
    figure = _figure((2.5 * len(curves) + 0.4, 3.0))
    with _settings():
        panels = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
        for axes, (network, lines) in zip(panels, curves.items(), strict=True):
            axes.axhline(1.0, color="#888888", linewidth=0.8)
            for number, (name, points) in enumerate(sorted(lines.items())):
                x, y = zip(*sorted(points), strict=True)
                style, marker = ("-", "o") if number == 0 else ("--", "s")
                axes.plot(x, y, style, color=LINES[number % len(LINES)], marker=marker, markersize=4, label=name)
            shares = sorted({share for points in lines.values() for share, _ in points})
            axes.set(xscale="log", yscale="log", xlabel="share of the weights", title=network)
            axes.set_xticks(shares, [f"{share:g}" for share in shares])
            axes.set_xticks([], minor=True)
            axes.grid(color="#dddddd", linewidth=0.5)
        ticks = [tick for tick in RATIOS if panels[0].get_ylim()[0] <= tick <= panels[0].get_ylim()[1]]
        panels[0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        panels[0].set_yticks([], minor=True)
        panels[0].set_ylabel("over low rank; below 1 is better")
        panels[0].legend(fontsize=8, loc="best")
        figure.suptitle(title, fontsize=10)
        _save(figure, path)


def _border(axes: Any, cells: Sequence[Sequence[float | None]]) -> None:
    """A line between neighbours of which exactly one is faster than the dense layer."""
    slower = [[cell is not None and cell > 1 for cell in row] for row in cells]
    for y, row in enumerate(slower):
        for x, here in enumerate(row):
            if x + 1 < len(row) and here != row[x + 1]:
                axes.plot([x + 0.5] * 2, [y - 0.5, y + 0.5], color="k", linewidth=2)
            if y + 1 < len(slower) and here != slower[y + 1][x]:
                axes.plot([x - 0.5, x + 0.5], [y + 0.5] * 2, color="k", linewidth=2)


def _power(exponent: float | None) -> str:
    return "-" if exponent is None else f"power {exponent:.2f}"


def _figure(size: tuple[float, float]) -> Any:
    with _settings():
        return _module("matplotlib.figure").Figure(figsize=size)


def _settings() -> Any:
    """Our settings on top of matplotlib's defaults, independent of the user's settings."""
    matplotlib = _module("matplotlib")
    return matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "svg", **SETTINGS})


def _save(figure: Any, path: Path) -> None:
    stream = BytesIO()
    figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    with writing(path):
        write_atomically(path, stream.getvalue())


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"{name} is needed for --chart but cannot be imported ({error}); expected matplotlib; pip install "
            "'mponet[experiments]', or leave --chart out"
        ) from error
