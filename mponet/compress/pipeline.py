"""From targets and sums to a plan."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.compress.budget import allocated
from mponet.compress.calibrate import Calibration
from mponet.compress.config import CompressConfig
from mponet.compress.edit import dense, follow, operator
from mponet.compress.gather import Progress
from mponet.compress.hull import Option, Options
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.parts import kept_fit, kept_options
from mponet.compress.plan import CompressionPlan
from mponet.compress.search import search, single
from mponet.compress.select import Selected, select
from mponet.compress.speed_limit import Speeds, allocated_in_time
from mponet.compress.structures import Layout, layouts
from mponet.compress.target import Target, tied_groups
from mponet.compress.uses import Uses
from mponet.compress.work_folder import WorkFolder
from mponet.errors import CompressionError
from mponet.operators.shape import inner_bonds

Array = NDArray[np.float64]
Task = tuple[WorkFolder | None, Selected, Sequence[Target], CompressConfig, Calibration | None]
#: Applies a function to tasks, in order, as `map` does.
Each = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
Measure = Callable[[LayerPlan], float | None]
DENSE_IS_BEST = "dense is best at this budget"
MEASURED = "speeds are measured: medians of interleaved calls on inputs of the calibration's shapes"
NOT_REACHED = "not reached by the calibration data"


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
    energies: Sequence["Energies"]

    @property
    def matched(self) -> list[Selected]:
        """The layers that may be replaced."""
        return [entry for entry in self.selected if entry.target.name in self.groups]


def make_plan(
    targets: Sequence[Target],
    config: CompressConfig,
    calibration: Calibration | None = None,
    *,
    other_weights: int = 0,
    folder: WorkFolder | None = None,
    measure: Measure | None = None,
    progress: Progress | None = None,
    each: Each = map,
) -> CompressionPlan:
    """Decide what becomes of every layer.

    Args:
        targets: all modules that hold a weight.
        config: what to compress, and to what budget.
        calibration: sums over the inputs; None takes the plain metric, and says so in the plan.
        other_weights: weights of the network outside of the targets.
        folder: keeps finished steps, so that a killed call goes on; None keeps none.
        measure: measures the time of a layer over that of its operator; None only predicts it.
        progress: called with a step's name, how many are done and how many there are.
        each: applies a function to the task of every layer, in order; one that uses processes needs
            targets that can be pickled.

    Raises:
        CompressionError: a pattern matches no module, nothing may be replaced, or the budget cannot
            be met.
    """
    found = search_layers(targets, config, calibration, folder=folder, progress=progress, each=each)
    return decide(
        found, config, calibration, other_weights=other_weights, folder=folder, measure=measure, progress=progress
    )


def search_layers(
    targets: Sequence[Target],
    config: CompressConfig,
    calibration: Calibration | None = None,
    *,
    folder: WorkFolder | None = None,
    progress: Progress | None = None,
    each: Each = map,
) -> Searched:
    """The options of every layer; arguments and errors as of `make_plan`."""
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


def decide(
    found: Searched,
    config: CompressConfig,
    calibration: Calibration | None = None,
    *,
    other_weights: int = 0,
    folder: WorkFolder | None = None,
    measure: Measure | None = None,
    progress: Progress | None = None,
    factors: Mapping[str, float] | None = None,
) -> CompressionPlan:
    """The options that the budget pays for; arguments and errors as of `make_plan`.

    Args:
        found: what `search_layers` gave for the same config and calibration.
        config: what to compress, and to what budget.
        calibration: sums over the inputs.
        other_weights: weights of the network outside of the targets.
        folder: keeps finished steps.
        measure: measures the time of a layer over that of its operator.
        progress: called with a step's name, how many are done and how many there are.
        factors: of the predicted rise of the loss, by name of the layer; None takes 1.
    """
    matched, options, factors = found.matched, found.options, factors or {}
    energies = [
        Energies(energy.outputs, energy.loss * factors.get(entry.target.name, 1.0))
        for entry, energy in zip(matched, found.energies, strict=True)
    ]
    speeds = Speeds(measure)
    scales = _scales(energies, config, calibration)
    share = partial(allocated, matched, options, scales, config, found.targets, other_weights)
    indices = allocated_in_time(
        share, matched, options, config, lambda entry, option: speeds.is_slow(_row(entry.target, option, None))
    )
    predicted = bool(calibration and calibration.gradients)
    rows: dict[str, LayerPlan] = {}
    for entry, opts, index, energy in zip(matched, options, indices, energies, strict=True):
        group, scale = found.groups[entry.target.name], energy.loss if predicted else None
        row = _row(entry.target, opts.option(index), scale)
        if progress is not None and measure is not None:
            progress("measure", len(rows), len(matched))
        own = _refined(group, row, scale, config, calibration, folder)
        rows |= own | {row.name: replace(own[row.name], measured=speeds.measured(own[row.name]))}
    return CompressionPlan(
        layers=tuple(
            rows.get(entry.target.name) or _as_it_is(entry.target, entry.reason, matched=False)
            for entry in found.selected
        ),
        other_weights=other_weights,
        config=config.summary(),
        rows=max((s.count for s in calibration.sums.values()), default=0) if calibration else 0,
        notes=(*_notes(config, calibration), *([MEASURED] if measure else [])),
    )


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


def _scales(energies: Sequence[Energies], config: CompressConfig, calibration: Calibration | None) -> list[float]:
    """What a relative squared error of one in each layer counts in the allocation."""
    if config.allocation == "loss" and calibration is not None and calibration.gradients:
        return [energy.loss for energy in energies]
    if config.allocation == "output":
        return [energy.outputs for energy in energies]
    return [1.0] * len(energies)


def _row(target: Target, option: Option, scale: float | None) -> LayerPlan:
    base = _as_it_is(target, DENSE_IS_BEST)
    if option.layout is None:
        return dense(base, DENSE_IS_BEST)
    row = operator(base, option.layout, option.bonds)
    error = float(np.sqrt(option.error))
    return replace(row, output_error=error, loss=None if scale is None else scale * option.loss)


def _as_it_is(target: Target, reason: str, *, matched: bool = True) -> LayerPlan:
    return LayerPlan(
        name=target.name,
        kind=target.kind,
        type_name=target.type_name,
        dense_weights=target.weights,
        dense_multiplications=target.multiplications,
        itemsize=target.itemsize,
        positions=target.positions,
        reason=reason,
        matched=matched,
        multiplications=target.multiplications,
        tied_to=target.tied_to,
    )


def _shared(target: Target) -> LayerPlan:
    return _as_it_is(target, f"shares its weight with {target.tied_to}")


def _refined(
    group: Sequence[Target],
    row: LayerPlan,
    scale: float | None,
    config: CompressConfig,
    calibration: Calibration | None,
    folder: WorkFolder | None,
) -> dict[str, LayerPlan]:
    """The rows of a layer and of those tied to it, by name.

    Their errors are those of the operator where the search stopped early or interpolated.
    """
    tied = group[1:]
    if row.layout is None or row.output_error is None or (row.layout.is_low_rank and not tied):
        return {row.name: row} | {other.name: follow(_shared(other), row) for other in tied}
    kind, correct_bias = config.fit_metric, config.bias_correction
    found = kept_fit(folder, group, row, calibration, kind=kind, correct_bias=correct_bias)
    loss = None if scale is None else scale * found.loss_error**2
    row = replace(row, output_error=found.output_error, loss=loss)
    errors = {use.name: use.output_error for use in found.tied}
    shared = {o.name: replace(follow(_shared(o), row), output_error=errors[o.name]) for o in tied}
    return {row.name: row, **shared}


def _notes(config: CompressConfig, calibration: Calibration | None) -> Iterator[str]:
    if calibration is None:
        yield "no calibration data: errors are those of the plain weights, not of outputs"
    else:
        yield from calibration.warnings()
    if config.fit_metric == "kfac" and calibration is not None and not calibration.gradient_products:
        yield "no gradient products: layers are fitted to their outputs (metric covariance), not to the loss (kfac)"
    if config.allocation == "loss" and not (calibration and calibration.gradients):
        yield "no gradients: the budget is shared by each layer's relative error, not by its effect on the loss"
