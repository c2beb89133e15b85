"""What every layer of a network may become, before any budget is shared."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mponet.compress.calibrate import Calibration
from mponet.compress.config import CompressConfig
from mponet.compress.gather import Progress
from mponet.compress.hull import Options
from mponet.compress.parts import kept_options
from mponet.compress.search import search, single
from mponet.compress.select import Selected, select
from mponet.compress.structures import Layout, layouts
from mponet.compress.target import Target, tied_groups
from mponet.compress.uses import Uses
from mponet.compress.work_folder import WorkFolder
from mponet.errors import CompressionError
from mponet.operators.shape import inner_bonds

Task = tuple[WorkFolder | None, Selected, Sequence[Target], CompressConfig, Calibration | None]
#: Applies a function to tasks, in order, as `map` does.
Each = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
NOT_REACHED = "not reached by the calibration data"


@dataclass(frozen=True, slots=True)
class Energies:
    """What a relative squared error of one in a layer counts.

    Attributes:
        outputs: the mean squared norm of its outputs.
        loss: predicted rise of the mean loss: half of ``tr G y^T y / rows``, where ``G`` is the
            second moment of the gradients, and ``g`` times the identity if only ``g`` is known.
    """

    outputs: float
    loss: float


@dataclass(frozen=True, slots=True)
class Searched:
    """What the layers of a network may become, before any budget.

    Attributes:
        targets: all modules that hold a weight.
        selected: what the config says of each.
        groups: of the layers that may be replaced: the target and those that share its weight.
        options: of each of these layers, in their order.
        energies: of each.
    """

    targets: Sequence[Target]
    selected: Sequence[Selected]
    groups: Mapping[str, Sequence[Target]]
    options: Sequence[Options]
    energies: Sequence[Energies]

    @property
    def matched(self) -> list[Selected]:
        """The layers that may be replaced."""
        return [entry for entry in self.selected if entry.target.name in self.groups]


def search_layers(
    targets: Sequence[Target],
    config: CompressConfig,
    calibration: Calibration | None = None,
    *,
    folder: WorkFolder | None = None,
    progress: Progress | None = None,
    each: Each = map,
) -> Searched:
    """The options of every layer.

    Arguments and errors as of `mponet.compress.pipeline.make_plan`.
    """
    targets = [calibration.placed(target) if calibration else target for target in targets]
    selected = _reached(select(targets, config), calibration)
    groups = tied_groups([entry.target for entry in selected if not entry.reason])
    matched = [entry for entry in selected if entry.target.name in groups]
    if not matched:
        reasons = sorted({entry.reason for entry in selected})
        raise CompressionError(f"no layer may be replaced ({'; '.join(reasons)}); include more, or lower min_weights")
    options: list[Options] = []
    energies: list[Energies] = []
    tasks = [(folder, entry, groups[entry.target.name], config, calibration) for entry in matched]
    for done, (found, outputs, loss) in enumerate(each(_searched, [_without_others(task) for task in tasks])):
        if progress is not None:
            progress("search", done, len(matched))
        options.append(found)
        energies.append(Energies(outputs, loss))
    return Searched(targets, selected, groups, options, energies)


def layer_options(
    entry: Selected, group: Sequence[Target], config: CompressConfig, calibration: Calibration | None
) -> tuple[Options, float, float]:
    """The options of a layer, and its `Energies`.

    Args:
        entry: the layer.
        group: its target, and those that share its weight.
        config: how it is fitted; its budget does not matter.
        calibration: sums over the inputs; None takes the plain metric.
    """
    override = entry.override
    uses = Uses.of(group, calibration, kind=config.fit_metric, correct_bias=config.bias_correction)
    energies = uses.output_energy, uses.loss_energy
    offered = layouts(entry.target, config.offered(entry.target, override))
    if override.input_dims is not None and override.output_dims is not None:
        offered = [Layout("given", override.input_dims, override.output_dims)]
        if override.bond is not None:
            bonds = inner_bonds(override.bond, len(override.input_dims))
            return single(uses, group, offered[0], bonds), *energies
    return search(uses, group, offered, config.seed), *energies


def _reached(selected: Sequence[Selected], calibration: Calibration | None) -> list[Selected]:
    """The entries with the reason that data reach none of the modules that share a weight."""
    if calibration is None:
        return list(selected)
    sums = {entry.target.name: calibration.of(entry.target.name) for entry in selected}
    seen = {e.target.tied_to or e.target.name for e in selected if getattr(sums[e.target.name], "count", 0)}
    return [
        e if e.reason or (e.target.tied_to or e.target.name) in seen else replace(e, reason=NOT_REACHED)
        for e in selected
    ]


def _without_others(task: Task) -> Task:
    """A task with the sums of its layer only, small enough to be sent to another process."""
    folder, entry, group, config, calibration = task
    if calibration is None or folder is not None:  # a folder tells layers apart by the whole
        return task
    return folder, entry, group, config, calibration.only(*(target.name for target in group))


def _searched(task: Task) -> tuple[Options, float, float]:
    """The options of a layer, made or kept."""
    folder, entry, group, config, calibration = task
    make = partial(layer_options, entry, group, config, calibration)
    return kept_options(folder, entry, group, config, calibration, make)
