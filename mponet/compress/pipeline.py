"""From targets and sums to a plan, and from a plan to fitted operators."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mponet.compress.budget import allocated
from mponet.compress.calibrate import Calibration
from mponet.compress.config import CompressConfig
from mponet.compress.edit import dense, operator
from mponet.compress.fitting import FittedLayer, fit_layer, layer_metric
from mponet.compress.hull import Option, Options
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
    energies: list[Energies] = []
    for done, entry in enumerate(matched):
        if progress is not None:
            progress("search", done, len(matched))
        found, energy = _options(entry, config, calibration)
        options.append(found)
        energies.append(energy)
    indices = allocated(matched, options, _scales(energies, config, calibration), config, targets, other_weights)
    predicted = bool(calibration and calibration.gradients)
    rows: dict[str, LayerPlan] = {}
    for entry, opts, index, energy in zip(matched, options, indices, energies, strict=True):
        scale = energy.loss if predicted else None
        row = _row(entry.target, opts.option(index), scale)
        rows[entry.target.name] = _refined(entry.target, row, scale, config, calibration)
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
        outputs = calibration.output_metric(layer.name, metric) if calibration else None
        yield fit_layer(known[layer.name], layer, sums, metric=metric, correct_bias=correct_bias, outputs=outputs)


def _reached(entry: Selected, calibration: Calibration | None) -> Selected:
    missed = calibration is not None and not entry.reason and not entry.target.tied_to
    sums = calibration.of(entry.target.name) if calibration is not None and missed else None
    return replace(entry, reason=NOT_REACHED) if missed and (sums is None or not sums.count) else entry


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


def _options(entry: Selected, config: CompressConfig, calibration: Calibration | None) -> tuple[Options, Energies]:
    """The options of a layer, and what they may lose."""
    target, override = entry.target, entry.override
    matrix = np.asarray(target.load(), np.float64)
    sums = calibration.of(target.name) if calibration else None
    metric = layer_metric(target, sums, config.fit_metric, config.bias_correction)
    rows = sums.count if sums is not None and config.fit_metric != "none" else target.in_features
    energy = metric.energy(matrix) / max(rows, 1)
    outputs = calibration.output_metric(target.name, config.fit_metric) if calibration else None
    weighted = matrix if outputs is None else outputs.weigh(matrix)
    gradient = calibration.gradients.get(target.name, 0.0) if calibration else 0.0
    loss = gradient * energy if outputs is None else metric.energy(weighted) / max(rows, 1)
    energies = Energies(energy, loss / 2)
    offered = layouts(target, override.structures or config.structures)
    if override.input_dims is not None and override.output_dims is not None:
        offered = [Layout("given", override.input_dims, override.output_dims)]
        if override.bond is not None:
            bonds = inner_bonds(override.bond, len(override.input_dims))
            return single(target, matrix, metric, offered[0], bonds, outputs), energies
    needs_spectrum = any(layout.is_low_rank for layout in offered)
    spectrum = output_spectrum(weighted, metric, seed=config.seed) if needs_spectrum else None
    return search(target, matrix, metric, spectrum, offered, outputs), energies


def _scales(energies: Sequence[Energies], config: CompressConfig, calibration: Calibration | None) -> list[float]:
    """What a relative squared error of one in each layer counts in the allocation."""
    if config.allocation == "loss" and calibration is not None and calibration.gradients:
        return [energy.loss for energy in energies]
    if config.allocation == "output":
        return [energy.outputs for energy in energies]
    return [1.0] * len(energies)


def _row(target: Target, option: Option, scale: float | None) -> LayerPlan:
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
    return replace(row, output_error=error, loss=None if scale is None else scale * option.loss)


def _refined(
    target: Target, row: LayerPlan, scale: float | None, config: CompressConfig, calibration: Calibration | None
) -> LayerPlan:
    """The row with the error of its operator where the search stopped early or interpolated."""
    if row.layout is None or row.layout.is_low_rank or row.output_error is None:
        return row
    sums = calibration.of(target.name) if calibration else None
    outputs = calibration.output_metric(target.name, config.fit_metric) if calibration else None
    correct_bias = config.bias_correction
    found = fit_layer(target, row, sums, metric=config.fit_metric, correct_bias=correct_bias, outputs=outputs)
    loss = None if scale is None else scale * found.loss_error**2
    return replace(row, output_error=found.output_error, loss=loss)


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
    if config.fit_metric == "kfac" and calibration is not None and not calibration.gradient_products:
        yield "no gradient products: layers are fitted to their outputs (metric covariance), not to the loss (kfac)"
    if config.allocation == "loss" and not (calibration and calibration.gradients):
        yield "no gradients: the budget is shared by each layer's relative error, not by its effect on the loss"
