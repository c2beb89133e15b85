"""The table of a suite: our accuracies over the seeds, and those of the paper.

It says nothing of time and place, so that a suite that was killed and one that was not have the
same table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mponet.errors import MPONetError
from mponet.models import build
from mponet.models.shapes import compression_ratio, parameter_count
from mponet.models.spec import Model
from mponet.operators.measure import parameter_ratio
from mponet.training.run import Result
from mponet.training.suite.published import Figure, Published, find
from mponet.training.suite.settings import Network, Suite, Training
from mponet.training.suite.state import failure, outcome

FORMAT, FORMAT_VERSION = "mponet-suite-tables", 1


@dataclass(frozen=True, slots=True)
class Accuracies:
    """Of one network over its seeds; those that diverged or failed are left out.

    Attributes:
        best: the largest of all evaluations of a training.
        last: the one at its end.
        seeds: how many trainings these are means of.
    """

    best: Figure | None
    last: Figure | None
    seeds: int


@dataclass(frozen=True, slots=True)
class Row:
    """A network, dense against MPO, and against low rank where the suite trains it.

    Attributes:
        model: name of the network.
        bond: of the MPO variant; None for the published one.
        data: name of the data set.
        normal: our accuracies of the dense network.
        mpo: our accuracies of the MPO variant.
        rho: the paper's compression ratio (Eq. 9), by our counting.
        parameter_ratio: parameters of the MPO variant over those of the dense one.
        published: the paper's figures; None where it has none for this network on this data set.
        low_rank: our accuracies of the low-rank variant; None where nothing trained it.
        low_rank_rho: the compression ratio of the low-rank variant.
        rate: learning rate at the start; None for the preset's.
    """

    model: str
    bond: int | None
    data: str
    normal: Accuracies
    mpo: Accuracies
    rho: float | None
    parameter_ratio: float
    published: Published | None
    low_rank: Accuracies | None = None
    low_rank_rho: float | None = None
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What came out of a suite so far.

    Attributes:
        suite: its settings.
        rows: in the order of its networks.
        diverged: message by name of a training.
        failed: likewise.
        waiting: names of the trainings that are not finished.
    """

    suite: Suite
    rows: tuple[Row, ...]
    diverged: Mapping[str, str]
    failed: Mapping[str, str]
    waiting: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all trainings are done, and none of them diverged."""
        return not (self.diverged or self.failed or self.waiting)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "settings": self.suite.as_dict(),
            "caption": self.caption,
            "rows": [asdict(row) for row in self.rows],
            "diverged": dict(self.diverged),
            "failed": dict(self.failed),
            "waiting": list(self.waiting),
        }

    @property
    def caption(self) -> str:
        """What the numbers are."""
        suite = self.suite
        lengths = ((suite.epochs, "epochs"), (suite.steps, "steps"))
        length = "".join(f", {number} {unit}" for number, unit in lengths if number is not None)
        return (
            f"Test accuracy in %, mean ± sample standard deviation over the trainings ({suite.backend}, preset "
            f"{suite.preset}{length}). best: the largest of all evaluations on the test set during a training; last: "
            "the one at its end. The paper's figures are the best over all evaluations on the test set, mean ± "
            "deviation of 5 trainings. rho (Eq. 9): weights of the operators over weights of the layers that they "
            "replace; whole: parameters of the mpo network over those of the dense network."
        )


def report(suite: Suite, folder: Path) -> Report:
    """The table from what the folders of the trainings hold."""
    results: dict[tuple[str, str, int | None, float | None], list[Result]] = {}
    diverged, failed, waiting = {}, {}, []
    for training in suite.trainings():
        result = _result(training, folder)
        if result is None:
            if (message := failure(training, folder)) is not None:
                failed[str(training)] = message
            else:
                waiting.append(str(training))
        elif result.diverged:
            diverged[str(training)] = result.message or "diverged"
        else:
            results.setdefault(training.network, []).append(result)
    rows = tuple(_row(suite, network, results) for network in suite.networks)
    return Report(suite, rows, diverged, failed, tuple(waiting))


def figure(values: Sequence[float]) -> Figure | None:
    """Mean and sample standard deviation (``1 / sqrt(m - 1)``).

    No deviation of one value, nothing of none.
    """
    if not values:
        return None
    return Figure(fmean(values), stdev(values) if len(values) > 1 else None)


def row(
    model: Model, data: str, normal: Sequence[Result], mpo: Sequence[Result], low_rank: Sequence[Result] | None = None
) -> Row:
    """A row of the table.

    Args:
        model: the MPO network.
        data: name of the data set.
        normal: results of the dense network, none of them diverged.
        mpo: likewise of the MPO network.
        low_rank: likewise of the low-rank network; None where it is not compared.
    """
    return Row(
        model.name,
        model.bond,
        data,
        _accuracies(normal),
        _accuracies(mpo),
        compression_ratio(model),
        parameter_ratio(parameter_count(model), parameter_count(build(model.name, "dense"))),
        find(model, data),
        None if low_rank is None else _accuracies(low_rank),
        None if low_rank is None else compression_ratio(build(model.name, "low-rank", model.bond)),
    )


def _result(training: Training, folder: Path) -> Result | None:
    try:
        return outcome(training, folder)
    except MPONetError:
        return None  # `failure` says why


def _row(
    suite: Suite, network: Network, results: Mapping[tuple[str, str, int | None, float | None], Sequence[Result]]
) -> Row:
    model, bond, rate = network.model, network.bond, network.rate
    made = row(
        build(model, "mpo", bond),
        suite.data_of(model),
        results.get((model, "dense", None, rate), ()),
        results.get((model, "mpo", bond, rate), ()),
        results.get((model, "low-rank", bond, rate), ()) if "low-rank" in suite.variants else None,
    )
    return made if rate is None else replace(made, rate=rate, published=None)  # the paper's are of its own rate


def _accuracies(results: Sequence[Result]) -> Accuracies:
    measured = [
        (one.best_accuracy, one.accuracy)
        for one in results
        if one.best_accuracy is not None and one.accuracy is not None
    ]
    return Accuracies(figure([best for best, _ in measured]), figure([last for _, last in measured]), len(measured))
