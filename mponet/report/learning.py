"""Learning curves: accuracy and loss over the epochs, variants together, every seed a line."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

from mponet.draw.markup import Markup
from mponet.report.chart import drawing, is_drawable, legend, percent, plain_numbers, series
from mponet.report.experiments import Experiment
from mponet.report.training import Training

MOST = 120  # points of a curve: as many as can be told apart at this size
HIDDEN = 0.1  # share of the accuracies, the lowest, that may lie below the chart
LINES: dict[str, Any] = {"mpo": "-", "dense": (0, (3, 1.5)), "low-rank": (0, (1, 1.2))}
Curve = list[tuple[float, float]]
Kind = tuple[str, str, int | None]  # data set, model, bond
Found = Sequence[tuple[int, str, Sequence[Training]]]  # number and label of an experiment, and what of it is shown


def charts(experiments: Sequence[Experiment]) -> Iterator[Markup]:
    """Two for every network and data set: all experiments, variants and seeds in one."""
    for data, model, bond in _networks(experiments):
        chosen = [[one for one in experiment.trainings if _of(one, data, model, bond)] for experiment in experiments]
        found = [(number, experiments[number].label, own) for number, own in enumerate(chosen) if own]
        title = f"{model} on {data}" if bond is None else f"{model} D={bond} on {data}"
        yield from _accuracy(title, found)
        yield from _loss(title, found)


def _networks(experiments: Sequence[Experiment]) -> list[Kind]:
    """Data set, model and bond of what has begun.

    A dense network alone where none with operators has.
    """
    begun = [one for experiment in experiments for one in experiment.trainings if one.records]
    mpo = {(one.settings.data, one.settings.model, one.settings.bond) for one in begun if one.variant != "dense"}
    normal = {(one.settings.data, one.settings.model, None) for one in begun}
    alone = {kind for kind in normal if kind[:2] not in {other[:2] for other in mpo}}
    return sorted(mpo | alone, key=lambda kind: (*kind[:2], kind[2] or 0))


def accuracy_curve(training: Training) -> Curve:
    """Epoch and accuracy, thinned."""
    return _thinned([(one.epoch, one.accuracy) for one in training.records if one.accuracy is not None])


def loss_curve(training: Training) -> Curve:
    """Epoch and loss of single batches, which scatter: medians of neighbours."""
    points = [(one.epoch, one.loss) for one in training.records if is_drawable(one.loss)]
    width = -(-len(points) // MOST)
    blocks = [points[begin : begin + width] for begin in range(0, len(points), max(width, 1))]
    return [(block[-1][0], median(loss for _, loss in block)) for block in blocks]


def _of(one: Training, data: str, model: str, bond: int | None) -> bool:
    settings = one.settings
    return (settings.data, settings.model) == (data, model) and (one.variant == "dense" or settings.bond == bond)


def _accuracy(title: str, found: Found) -> Iterator[Markup]:
    values = sorted(value for _, _, own in found for one in own for _, value in accuracy_curve(one))
    if values:
        with drawing(f"accuracy {title}", f"test accuracy of {title}") as chart:
            _curves(chart.axes, found, accuracy_curve)
            low, high = values[int(HIDDEN * len(values))], values[-1]
            margin = 0.06 * (high - low) or 0.005
            chart.axes.set_ylim(low - margin, high + margin)
            percent(chart.axes)
            _finish(chart.axes, "test accuracy")
        yield chart.figure(title, "test accuracy; the first epochs may lie below.")


def _loss(title: str, found: Found) -> Iterator[Markup]:
    if any(loss_curve(one) for _, _, own in found for one in own):
        with drawing(f"loss {title}", f"loss of {title}") as chart:
            _curves(chart.axes, found, loss_curve)
            chart.axes.set_yscale("log")
            plain_numbers(chart.axes.yaxis)
            _finish(chart.axes, "loss")
        yield chart.figure(title, "training loss of a batch, medians of neighbours.")


def _curves(axes: Any, found: Found, curve: Callable[[Training], Curve]) -> None:
    """Draw the curves.

    Each experiment has a colour, thinner lines lie on top of broader ones, dense networks are
    dashed and low-rank ones dotted.
    """
    for above, (number, experiment, trainings) in enumerate(reversed(found)):
        named: set[str] = set()
        for one in trainings:
            label = f"{experiment}, {one.variant}"
            if points := curve(one):
                axes.plot(
                    [x for x, _ in points],
                    [y for _, y in points],
                    color=series(number)["color"],
                    linestyle=LINES[one.variant],
                    linewidth=1.1 + 1.3 * above,
                    alpha=0.5 if above else 0.9,
                    marker="." if len(points) == 1 else None,
                    label=None if label in named else label,
                    zorder=3 - 0.1 * above,
                )
                named.add(label)


def _finish(axes: Any, what: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(what)
    legend(axes)


def _thinned(points: Curve) -> Curve:
    stride = -(-len(points) // MOST) or 1
    kept = points[::stride]
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]
