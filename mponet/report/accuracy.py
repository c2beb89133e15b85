"""Accuracy against what a network costs.

Fig. 2 and Fig. 3 of the paper with its points drawn in, and all others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mponet.draw.markup import Markup
from mponet.models import build
from mponet.models.fc2 import BOND
from mponet.models.shapes import compression_ratio, operators, parameter_count
from mponet.models.spec import Model
from mponet.report.chart import captioned, colour, drawing, legend, percent, plain_numbers, series
from mponet.report.experiments import Experiment
from mponet.report.tables import table
from mponet.training.suite import Row
from mponet.training.suite.published import FC2_NORMAL, Figure, Published, rows
from mponet.training.suite.write import percent as percent_of
from mponet.training.suite.write import ratio

MARKED = (2, 4, 8, 16, 22)  # bonds that are written at the paper's points
Point = tuple[float, Figure]
Own = tuple[int, str, Sequence[Row]]  # number and label of an experiment, and its rows that are drawn


def charts(experiments: Sequence[Experiment]) -> Iterator[Markup]:
    """All that these trainings have something to say to."""
    for data in dict.fromkeys(row.data for experiment in experiments for row in experiment.rows):
        if found := _having(experiments, data, lambda model: model == "fc2"):
            yield _fc2(data, found)
            yield _fc2_table(data, found)
        if found := _having(experiments, data, lambda model: depth(model) is not None):
            yield _resnets(data, found)
            yield _resnets_table(data, found)
        if found := _having(experiments, data, lambda model: model != "fc2"):
            yield _networks(data, found)


def _having(experiments: Sequence[Experiment], data: str, wanted: Callable[[str], bool]) -> list[Own]:
    """The experiments that have rows of such models on this data set."""
    pairs = [[row for row in experiment.rows if row.data == data and wanted(row.model)] for experiment in experiments]
    return [(number, experiments[number].label, own) for number, own in enumerate(pairs) if own]


def weights(model: Model) -> int:
    """Weights of the operators of a network, without biases."""
    return sum(operator.shape.parameters for operator in operators(model))


def depth(name: str) -> int | None:
    """Of a ResNet of the paper's Fig. 3; None for another network."""
    number = name.removeprefix("resnet")
    return int(number) if number != name and number.isdigit() else None


def _fc2(data: str, experiments: Sequence[Own]) -> Markup:
    title = f"FC2 on {data}: accuracy against weights"
    own = "" if data == "mnist" else " (MNIST)"
    with drawing(f"fc2-{data}", title) as chart:
        axes = chart.axes
        axes.axhspan(*_around(FC2_NORMAL), color=colour("rule"), alpha=0.45, linewidth=0)
        axes.axhline(FC2_NORMAL.mean, color=colour("muted"), linewidth=1, label=f"paper, dense{own}")
        published = [one for one in rows() if one.model == "fc2"]
        points = [(weights(build("fc2", "mpo", one.bond)), one.mpo) for one in published if one.mpo is not None]
        _papers(axes, points, f"paper, MPO network{own}")
        for one in published:
            if one.bond in MARKED and one.mpo is not None:
                at = (weights(build("fc2", "mpo", one.bond)), one.mpo.mean - (one.mpo.deviation or 0.0))
                axes.annotate(
                    f"{one.bond}", at, (0, -9), textcoords="offset points", ha="center", color=colour("muted"), size=7.5
                )
        for number, label, found in experiments:
            _lines(axes, number, label, found)
            _points(axes, number, label, [(weights(_mpo(row)), row.mpo.best) for row in found])
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)
        axes.set_xlabel("weights of both operators")
        _finish(axes)
    papers = "" if data == "mnist" else f" The paper's points are of MNIST, not of {data}: for orientation only."
    return chart.figure(
        title,
        "as in Fig. 2: best accuracy of a training, mean ± deviation; a line is a dense network, a small number the "
        f"bond of the paper's point.{papers}",
    )


def _fc2_table(data: str, experiments: Sequence[Own]) -> Markup:
    """The same in numbers: a row for every bond of the paper or of ours."""
    papers = {one.bond: one for one in rows() if one.model == "fc2"}
    ours = [{_bond(row): row for row in found} for _, _, found in experiments]
    lines = []
    for bond in sorted({*(bond for bond in papers if bond), *(bond for found in ours for bond in found)}):
        paper = papers.get(bond)
        cells = [percent_of(paper.mpo if paper else None), *(_best(found.get(bond)) for found in ours)]
        model = build("fc2", "mpo", bond)
        lines.append([str(bond), str(weights(model)), ratio(compression_ratio(model)), *cells])
    dense = [percent_of(FC2_NORMAL), *(_best_normal(found) for found in ours)]
    lines.append(["dense", str(parameter_count(build("fc2", "dense"))), "", *dense])
    heads = ["D", "weights", "rho", "paper", *(label for _, label, _ in experiments)]
    inside = table(heads, lines, right=range(len(heads)))
    return captioned(f"FC2 on {data}: the same in numbers", "best accuracy in %; the paper's are of MNIST.", inside)


def _bond(row: Row) -> int:
    """The bond asked for, or the published one."""
    return BOND if row.bond is None else row.bond


def _best(row: Row | None) -> str:
    return percent_of(row.mpo.best if row else None)


def _best_normal(found: Mapping[int, Row]) -> str:
    return percent_of(next((row.normal.best for row in found.values() if row.normal.best), None))


def _resnets(data: str, experiments: Sequence[Own]) -> Markup:
    title = f"ResNets on {data}: accuracy against depth"
    own = "" if data == "cifar10" else " (CIFAR-10)"
    with drawing(f"resnet-{data}", title) as chart:
        axes = chart.axes
        published = [(number, one) for one in rows() if (number := depth(one.model))]
        _papers(axes, [(number, one.normal) for number, one in published], f"paper, dense{own}", filled=False)
        _papers(axes, [(number, one.mpo) for number, one in published if one.mpo], f"paper, MPO network{own}")
        for number, label, found in experiments:
            deep = [(float(layers), row) for row in found if (layers := depth(row.model))]
            _points(axes, number, f"{label}, dense", [(x, row.normal.best) for x, row in deep], filled=False)
            _points(axes, number, label, [(x, row.mpo.best) for x, row in deep])
        axes.set_xlabel("layers")
        _finish(axes)
    return chart.figure(title, "as in Fig. 3 (k = 4): best accuracy of a training, mean ± deviation.")


def _resnets_table(data: str, experiments: Sequence[Own]) -> Markup:
    """A row for every depth of the paper or of ours, dense and MPO each."""
    papers = {depth(one.model): one for one in rows() if depth(one.model)}
    ours = [{depth(row.model): row for row in found} for _, _, found in experiments]
    lines = []
    for layers in sorted({*papers, *(layers for found in ours for layers in found)}, key=lambda layers: layers or 0):
        paper = papers.get(layers)
        cells = [percent_of(paper.normal if paper else None), percent_of(paper.mpo if paper else None)]
        for found in ours:
            row = found.get(layers)
            cells += [percent_of(row.normal.best if row else None), _best(row)]
        lines.append([str(layers), *cells])
    labels = [
        f"{label}, {kind}" for label in ("paper", *(label for _, label, _ in experiments)) for kind in ("dense", "mpo")
    ]
    inside = table(["layers", *labels], lines, right=range(1 + len(labels)))
    return captioned(
        f"ResNets on {data}: the same in numbers", "best accuracy in %; the paper's are of CIFAR-10.", inside
    )


def _networks(data: str, experiments: Sequence[Own]) -> Markup:
    title = f"Networks on {data}: accuracy against all parameters"
    names: dict[str, tuple[float, float]] = {}
    with drawing(f"networks-{data}", title) as chart:
        axes = chart.axes
        for number, label, found in experiments:
            pairs = [(*_counts(row.model, row.bond), row) for row in found]
            normals = [(normal, row.normal.best) for normal, _, row in pairs]
            _points(axes, number, f"{label}, dense", normals, filled=False, joined=False)
            _points(axes, number, label, [(mpo, row.mpo.best) for _, mpo, row in pairs], joined=False)
            for normal, mpo, row in pairs:
                if row.normal.best and row.mpo.best:
                    ends = [row.normal.best.mean, row.mpo.best.mean]
                    axes.plot([normal, mpo], ends, color=series(number)["color"], linewidth=0.8, alpha=0.6)
                if row.mpo.best:
                    names.setdefault(row.model, (mpo, row.mpo.best.mean))
        for one in _of_the_paper(experiments):
            normal, mpo = _counts(one.model, one.bond)
            at = [(normal, one.normal), *([(mpo, one.mpo)] if one.mpo else [])]
            axes.plot([x for x, _ in at], [y.mean for _, y in at], "x", color=colour("muted"), markersize=4)
            names.setdefault(one.model, (at[-1][0], at[-1][1].mean))
        for place, (name, where) in enumerate(sorted(names.items(), key=lambda item: item[1])):
            above = (4, 5 if place % 2 else -10)  # neighbours would write over one another
            axes.annotate(name, where, above, textcoords="offset points", size=7.5)
        axes.plot([], [], "x", color=colour("muted"), label="paper")
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)
        axes.margins(x=0.12)
        axes.set_xlabel("parameters of the whole network")
        _finish(axes)
    return chart.figure(title, "open: dense; filled: mpo; crosses: the paper's, both.")


def _of_the_paper(experiments: Sequence[Own]) -> list[Published]:
    found = {row.published.model: row.published for _, _, own in experiments for row in own if row.published}
    return list(found.values())


def _papers(axes: Any, points: Sequence[Point], label: str, *, filled: bool = True) -> None:
    axes.errorbar(
        [x for x, _ in points],
        [y.mean for _, y in points],
        yerr=[y.deviation or 0.0 for _, y in points],
        color=colour("muted"),
        marker="o",
        markersize=3.5,
        markerfacecolor=colour("muted" if filled else "surface"),
        linestyle="-" if filled else "--",
        linewidth=0.8,
        elinewidth=0.8,
        label=label,
    )


def _points(
    axes: Any,
    number: int,
    label: str,
    points: Sequence[tuple[float, Figure | None]],
    *,
    filled: bool = True,
    joined: bool = True,
) -> None:
    known = sorted(((x, y) for x, y in points if y is not None), key=lambda point: point[0])
    if known:
        style = series(number)
        face = style["color"] if filled else colour("surface")
        axes.errorbar(
            [x for x, _ in known],
            [y.mean for _, y in known],
            yerr=[y.deviation or 0.0 for _, y in known],
            **style,
            markerfacecolor=face,
            markersize=5.5,
            linestyle=("-" if filled else "--") if joined else "none",
            label=label,
            zorder=3,
        )


def _lines(axes: Any, number: int, label: str, found: Sequence[Row]) -> None:
    """The dense network of an experiment, which all bonds share."""
    normal = next((row.normal.best for row in found if row.normal.best is not None), None)
    if normal is not None:
        style = (0, (4, 2)) if number % 2 == 0 else (0, (1, 1.5))
        axes.axhline(normal.mean, color=series(number)["color"], linestyle=style, label=f"{label}, dense")


def _finish(axes: Any) -> None:
    axes.margins(y=0.09)  # the numbers below the points belong to the picture
    percent(axes)
    axes.set_ylabel("test accuracy")
    legend(axes)


def _around(figure: Figure) -> tuple[float, float]:
    deviation = figure.deviation or 0.0
    return figure.mean - deviation, figure.mean + deviation


def _mpo(row: Row) -> Model:
    return build(row.model, "mpo", row.bond)


def _counts(name: str, bond: int | None) -> tuple[int, int]:
    """Parameters of the whole network, dense and MPO."""
    return parameter_count(build(name, "dense")), parameter_count(build(name, "mpo", bond))
