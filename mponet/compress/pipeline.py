"""From targets and sums to a plan."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mponet.compress.budget import allocated
from mponet.compress.calibrate import Calibration
from mponet.compress.config import CompressConfig
from mponet.compress.edit import dense, follow, operator
from mponet.compress.gather import Progress
from mponet.compress.hull import Option
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.options import Each, Energies, Searched, search_layers
from mponet.compress.parts import kept_fit
from mponet.compress.plan import CompressionPlan
from mponet.compress.speed_limit import Speeds, allocated_in_time
from mponet.compress.target import Target
from mponet.compress.work_folder import WorkFolder

Array = NDArray[np.float64]
Measure = Callable[[LayerPlan], float | None]
DENSE_IS_BEST = "dense is best at this budget"
MEASURED = "speeds are measured: medians of interleaved calls on inputs of the calibration's shapes"


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
