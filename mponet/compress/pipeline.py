"""From targets and sums to a plan, and from a plan to fitted operators."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mponet.compress.budget import allocated
from mponet.compress.calibrate import Calibration
from mponet.compress.config import CompressConfig
from mponet.compress.edit import dense, operator
from mponet.compress.fitting import FittedLayer, fit_layer, layer_metric
from mponet.compress.hull import Options
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.plan import CompressionPlan
from mponet.compress.search import search, single
from mponet.compress.select import Selected, select
from mponet.compress.structures import Layout, layouts
from mponet.compress.target import Target
from mponet.errors import CompressionError
from mponet.operators.metric import output_spectrum
from mponet.operators.shape import inner_bonds

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
DENSE_IS_BEST = "dense is best at this budget"
NOT_REACHED = "not reached by the calibration data"


def make_plan(
    targets: Sequence[Target],
    config: CompressConfig,
    calibration: Calibration | None = None,
    *,
    other_weights: int = 0,
    progress: Progress | None = None,
) -> CompressionPlan:
    """Decide what becomes of every layer.

    Args:
        targets: all modules that hold a weight.
        config: what to compress, and to what budget.
        calibration: sums over the inputs; None takes the plain metric, and says so in the plan.
        other_weights: weights of the network outside of the targets.
        progress: called with a step's name, how many are done and how many there are.

    Raises:
        CompressionError: a pattern matches no module, nothing may be replaced, or the budget cannot
            be met.
    """
    selected = [_reached(entry, calibration) for entry in select(targets, config)]
    matched = [entry for entry in selected if not entry.reason and not entry.target.tied_to]
    if not matched:
        reasons = sorted({entry.reason for entry in selected})
        raise CompressionError(f"no layer may be replaced ({'; '.join(reasons)}); include more, or lower min_weights")
    options: list[Options] = []
    energies: list[float] = []
    for done, entry in enumerate(matched):
        if progress is not None:
            progress("search", done, len(matched))
        found, energy = _options(entry, config, calibration)
        options.append(found)
        energies.append(energy)
    scales = _scales(matched, energies, config, calibration)
    indices = allocated(matched, options, scales, config, targets, other_weights)
    predicted = bool(calibration and calibration.gradients)
    losses = _loss_scales(matched, energies, calibration)
    rows = {
        entry.target.name: _row(entry.target, opts, index, scale if predicted else None)
        for entry, opts, index, scale in zip(matched, options, indices, losses, strict=True)
    }
    for entry in matched:
        rows[entry.target.name] = _refined(entry.target, rows[entry.target.name], config, calibration)
    return CompressionPlan(
        layers=tuple(_layer_plan(entry, rows) for entry in selected),
        other_weights=other_weights,
        config=config.summary(),
        rows=max((s.count for s in calibration.sums.values()), default=0) if calibration else 0,
        notes=tuple(_notes(config, calibration)),
    )


def fitted(
    targets: Sequence[Target],
    plan: CompressionPlan,
    calibration: Calibration | None = None,
    *,
    progress: Progress | None = None,
) -> Iterator[FittedLayer]:
    """The operators of a plan, layer by layer, in the order of the network.

    Everything is checked before the first one is fitted.

    Raises:
        CompressionError: the plan names a module that the network does not have, or one of another
            size.
    """
    known: Mapping[str, Target] = {target.name: target for target in targets}
    for layer in plan.replaced:
        if layer.name not in known or known[layer.name].weights != layer.dense_weights:
            raise CompressionError(f"the plan's {layer.name} is not in this network, or of another size")
    metric = str(plan.config.get("metric", "covariance"))
    correct_bias = bool(plan.config.get("bias_correction", True))
    wanted = [layer for layer in plan.replaced if not layer.tied_to]
    for done, layer in enumerate(wanted):
        if progress is not None:
            progress("fit", done, len(wanted))
        sums = calibration.of(layer.name) if calibration else None
        yield fit_layer(known[layer.name], layer, sums, metric=metric, correct_bias=correct_bias)


def _reached(entry: Selected, calibration: Calibration | None) -> Selected:
    missed = calibration is not None and not entry.reason and not entry.target.tied_to
    sums = calibration.of(entry.target.name) if calibration is not None and missed else None
    return replace(entry, reason=NOT_REACHED) if missed and (sums is None or not sums.count) else entry


def _options(entry: Selected, config: CompressConfig, calibration: Calibration | None) -> tuple[Options, float]:
    """The options of a layer, and the mean squared norm of its outputs that they may lose."""
    target, override = entry.target, entry.override
    matrix = np.asarray(target.load(), np.float64)
    sums = calibration.of(target.name) if calibration else None
    metric = layer_metric(target, sums, config.metric, config.bias_correction)
    rows = sums.count if sums is not None and config.metric != "none" else target.in_features
    energy = metric.energy(matrix) / max(rows, 1)
    offered = layouts(target, override.structures or config.structures)
    if override.input_dims is not None and override.output_dims is not None:
        offered = [Layout("given", override.input_dims, override.output_dims)]
        if override.bond is not None:
            bonds = inner_bonds(override.bond, len(override.input_dims))
            return single(target, matrix, metric, offered[0], bonds), energy
    needs_spectrum = any(layout.is_low_rank for layout in offered)
    spectrum = output_spectrum(matrix, metric, seed=config.seed) if needs_spectrum else None
    return search(target, matrix, metric, spectrum, offered), energy


def _scales(
    matched: Sequence[Selected], energies: Sequence[float], config: CompressConfig, calibration: Calibration | None
) -> list[float]:
    """What a relative squared error of one in each layer counts in the allocation."""
    if config.allocation == "loss" and calibration is not None and calibration.gradients:
        return _loss_scales(matched, energies, calibration)
    if config.allocation == "output":
        return list(energies)
    return [1.0] * len(matched)


def _loss_scales(
    matched: Sequence[Selected], energies: Sequence[float], calibration: Calibration | None
) -> list[float]:
    """Predicted rise of the mean loss for a relative squared error of one: half of ``g |y|^2``."""
    gradients = calibration.gradients if calibration else {}
    return [gradients.get(entry.target.name, 0.0) * energy / 2 for entry, energy in zip(matched, energies, strict=True)]


def _row(target: Target, options: Options, index: int, scale: float | None) -> LayerPlan:
    option = options.option(index)
    base = LayerPlan(
        name=target.name,
        kind=target.kind,
        type_name=target.type_name,
        dense_weights=target.weights,
        dense_multiplications=target.multiplications,
        itemsize=target.itemsize,
        reason=DENSE_IS_BEST,
        multiplications=target.multiplications,
    )
    if option.layout is None:
        return dense(base, DENSE_IS_BEST)
    row = operator(base, option.layout, option.bonds)
    error = float(np.sqrt(option.error))
    return replace(row, output_error=error, loss=None if scale is None else scale * option.error)


def _refined(target: Target, row: LayerPlan, config: CompressConfig, calibration: Calibration | None) -> LayerPlan:
    """The row with the error of its operator where the search stopped early or interpolated."""
    if row.layout is None or row.layout.is_low_rank or row.output_error is None:
        return row
    sums = calibration.of(target.name) if calibration else None
    found = fit_layer(target, row, sums, metric=config.metric, correct_bias=config.bias_correction)
    share = (found.output_error / row.output_error) ** 2 if row.output_error else 1.0
    return replace(row, output_error=found.output_error, loss=None if row.loss is None else row.loss * share)


def _layer_plan(entry: Selected, rows: Mapping[str, LayerPlan]) -> LayerPlan:
    target = entry.target
    if target.name in rows:
        return rows[target.name]
    partner = rows.get(target.tied_to)
    return LayerPlan(
        name=target.name,
        kind=target.kind,
        type_name=target.type_name,
        dense_weights=target.weights,
        dense_multiplications=target.multiplications,
        itemsize=target.itemsize,
        reason=entry.reason or f"shares its weight with {target.tied_to}",
        matched=partner is not None and not entry.reason,
        multiplications=target.multiplications,
        tied_to=target.tied_to,
    )


def _notes(config: CompressConfig, calibration: Calibration | None) -> Iterator[str]:
    if calibration is None:
        yield "no calibration data: errors are those of the plain weights, not of outputs"
    else:
        yield from calibration.warnings()
    if config.allocation == "loss" and not (calibration and calibration.gradients):
        yield "no gradients: the budget is shared by each layer's relative error, not by its effect on the loss"
