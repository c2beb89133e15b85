"""What the operators hold while they are trained.

Entropy of every bond over the epochs, and its spectrum.
"""

from collections.abc import Iterator, Sequence
from math import log

from mponet.draw.markup import Markup
from mponet.report.chart import DASHES, LARGEST, colour, drawing, is_drawable, legend, plain_numbers, series, shades
from mponet.report.experiments import Experiment
from mponet.report.training import Training
from mponet.training.run.spectra import Spectra

MOST = 120  # points of a curve
SMALLEST = 1e-4  # of the largest singular value: what is smaller counts for nothing in an entropy


def charts(experiments: Sequence[Experiment]) -> Iterator[Markup]:
    """Two for every operator of every network: those of its first training that has spectra."""
    for training, label in chosen(experiments).values():
        for operator in training.spectra[-1].operators:
            yield _entropy(training, label, operator)
            yield _spectrum(training, label, operator)


def chosen(experiments: Sequence[Experiment]) -> dict[tuple[str, str], tuple[Training, str]]:
    """By data set and network the training that is shown, and the label of its experiment."""
    found: dict[tuple[str, str], tuple[Training, str]] = {}
    for experiment in experiments:
        for one in experiment.trainings:
            if one.spectra:
                found.setdefault((one.settings.data, one.network), (one, experiment.label))
    return found


def silent(experiments: Sequence[Experiment]) -> list[str]:
    """Names of MPO networks that have been trained without a record of them."""
    known = chosen(experiments)
    trained = [
        one for experiment in experiments for one in experiment.trainings if one.variant == "mpo" and one.records
    ]
    return list(dict.fromkeys(f"{one.network} on {one.settings.data}" for one in trained if _key(one) not in known))


def _key(one: Training) -> tuple[str, str]:
    return one.settings.data, one.network


def _entropy(training: Training, label: str, operator: str) -> Markup:
    title = f"{training.network}, {operator}: entropy"
    with drawing(f"entropy {training.settings.data} {title}", title) as chart:
        axes, seen = chart.axes, training.spectra[:: -(-len(training.spectra) // MOST)]
        widths = [len(values) for values in seen[-1].operators[operator].singular_values]
        for width in sorted(set(widths)):
            axes.axhline(log(width), color=colour("muted"), linewidth=0.8, linestyle=(0, (1, 2)))
            axes.annotate(
                f"ln {width}", (1.0, log(width)), (2, -3), xycoords=("axes fraction", "data"),
                textcoords="offset points", color=colour("muted"), size=7.5, annotation_clip=False,
            )  # fmt: skip
        for bond in range(len(widths)):
            axes.plot(
                [one.epoch for one in seen],
                [one.operators[operator].entropy[bond] for one in seen],
                color=series(bond)["color"],
                linestyle=DASHES[bond % len(DASHES)],
                label=f"bond {bond + 1}",
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel("entanglement entropy")
        legend(axes, columns=4)
    return chart.figure(title, f"over the training ({_which(training, label)}); dotted: the most that a bond can hold.")


def _spectrum(training: Training, label: str, operator: str) -> Markup:
    title = f"{training.network}, {operator}: spectra"
    with drawing(f"spectra {training.settings.data} {title}", title) as chart:
        axes, moments = chart.axes, snapshots(training.spectra)
        top = max(bond[0] for one in moments for bond in one.operators[operator].singular_values)
        top = min(top, LARGEST) if is_drawable(min(top, LARGEST)) else 1.0
        for one, shade in zip(moments, shades()[-len(moments) :], strict=True):
            begin, middles = 0, []
            for number, values in enumerate(one.operators[operator].singular_values):
                axes.plot(
                    range(begin, begin + len(values)),
                    [min(max(value, SMALLEST * top), LARGEST) for value in values],
                    color=shade,
                    marker=".",
                    markersize=3.5,
                    label=None if number else f"{one.epoch:.3g}",
                )
                middles.append(begin + (len(values) - 1) / 2)
                begin += len(values) + 1
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
        axes.set_xticks(middles, [f"bond {number}" for number in range(1, len(middles) + 1)])
        axes.grid(visible=False, axis="x")
        axes.set_ylabel("singular values")
        legend(axes, columns=len(moments))
    return chart.figure(
        title, f"singular values at each bond, descending, after so many epochs ({_which(training, label)})."
    )


def snapshots(seen: Sequence[Spectra]) -> list[Spectra]:
    """As many as there are shades, from the first to the last."""
    count = min(len(shades()), len(seen))
    return [seen[round(k * (len(seen) - 1) / max(count - 1, 1))] for k in range(count)]


def _which(training: Training, label: str) -> str:
    return f"{label}, seed {training.settings.seed}"
