"""A plan corrected by the loss itself.

What a plan predicts for the loss is a quadratic form of each layer's own errors.  It misses what
layers do together, and what is beyond the second order.  So parts of a first plan are carried out
on copies of the network, one group of layers at a time, and the rise of the loss is measured.  The
ratio to what was predicted, relative to that of the other groups, weighs the group's layers when
the budget is shared again.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from math import exp, log
from typing import Any

import numpy as np

from mponet.compress.adapter import CompressAdapter
from mponet.compress.calibrate import Calibration
from mponet.compress.config import CompressConfig
from mponet.compress.execution import fitted
from mponet.compress.gather import Progress
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.options import search_layers
from mponet.compress.pipeline import Measure, decide
from mponet.compress.plan import CompressionPlan
from mponet.compress.work_folder import WorkFolder
from mponet.errors import CompressionError

#: Layers up to which each is measured alone; of more, those whose names differ in numbers only are
#: measured together.
MAX_ALONE = 24
#: Bound of the factors, and of their inverses.
MAX_FACTOR = 8.0


def corrected_plan(
    adapter: CompressAdapter,
    config: CompressConfig,
    sums: Calibration | None,
    data: Sequence[Any],
    *,
    folder: WorkFolder | None = None,
    measure: Measure | None = None,
    progress: Progress | None = None,
) -> CompressionPlan:
    """The plan of a config, corrected by losses that are measured on data.

    Args:
        adapter: of the network, which is not changed.
        config: what to compress, and to what budget; it allocates by loss.
        sums: over the inputs, and gradients.
        data: the network's own inputs, batch by batch; read once for every group of layers.
        folder: keeps finished steps.
        measure: measures the time of a layer over that of its operator.
        progress: called with a step's name, how many are done and how many there are.

    Raises:
        CompressionError: the config does not allocate by loss, the calibration has no gradients, or
            the data hold no batch; or as `mponet.compress.pipeline.make_plan` does.
    """
    if config.allocation != "loss" or sums is None or not sums.gradients:
        raise CompressionError(
            f"correct is set, allocation is {config.allocation!r}, and "
            f"{'there are' if sums is not None and sums.gradients else 'there are no'} gradients; expected allocation "
            "'loss' and calibration data with gradients, whose predictions are corrected"
        )
    if not data:
        raise CompressionError("correct holds no batch; expected at least one of the network's own inputs")
    targets, others = adapter.targets(), adapter.other_weights()
    found = search_layers(targets, config, sums, folder=folder, progress=progress)
    first = decide(found, config, sums, other_weights=others, folder=folder)
    factors, note = _factors(adapter, first, sums, data, folder, progress)
    plan = decide(
        found,
        config,
        sums,
        other_weights=others,
        folder=folder,
        measure=measure,
        progress=progress,
        factors=factors,
    )
    return replace(plan, notes=(*plan.notes, note))


def groups_of(layers: Sequence[LayerPlan]) -> dict[str, list[LayerPlan]]:
    """The layers that are measured together, by what their names have in common.

    Examples:
        >>> from mponet.compress.layer_plan import LayerPlan
        >>> sizes = dict(dense_weights=64, dense_multiplications=64, reason="small")
        >>> names = [f"blocks.{k}.{end}" for k in range(20) for end in ("up", "down")]
        >>> sizes |= dict(kind="linear", type_name="Linear")
        >>> rows = [LayerPlan(name=name, **sizes) for name in names]
        >>> {name: len(group) for name, group in groups_of(rows).items()}
        {'blocks.*.up': 20, 'blocks.*.down': 20}
    """
    groups: dict[str, list[LayerPlan]] = {}
    for layer in layers:
        name = layer.name if len(layers) <= MAX_ALONE else re.sub(r"\d+", "*", layer.name)
        groups.setdefault(name, []).append(layer)
    return groups


def relative_factors(predicted: Sequence[float], measured: Sequence[float]) -> list[float]:
    """Measured over predicted rises of the loss, their geometric mean one, within `MAX_FACTOR`.

    Examples:
        >>> relative_factors([1.0, 1.0], [0.2, 0.8])
        [0.5, 2.0]
        >>> found = relative_factors([1.0, 1.0, 1.0], [-0.1, 0.8, 0.8])  # the first is noise
        >>> [round(factor, 3) for factor in found]
        [0.125, 4.0, 4.0]
    """
    tiny = float(np.finfo(np.float64).tiny)
    ratios = np.log(np.maximum(measured, tiny)) - np.log(np.maximum(predicted, tiny))
    bound = log(MAX_FACTOR)
    middle = float(np.median(ratios))
    ratios = np.clip(ratios, middle - 2 * bound, middle + 2 * bound)  # no outlier moves the mean far
    return [exp(min(max(float(ratio), -bound), bound)) for ratio in ratios - ratios.mean()]


def _factors(
    adapter: CompressAdapter,
    plan: CompressionPlan,
    sums: Calibration,
    data: Sequence[Any],
    folder: WorkFolder | None,
    progress: Progress | None,
) -> tuple[dict[str, float], str]:
    """A factor for every replaced layer, and what to say of them."""
    groups = groups_of([layer for layer in plan.replaced if layer.loss])
    if len(groups) < 2:
        return {}, "one group of layers: there is nothing that losses could correct"
    predicted, measured = [], []
    for done, layers in enumerate(groups.values()):
        if progress is not None:
            progress("correct", done, len(groups))
        predicted.append(sum(layer.loss or 0.0 for layer in layers))
        measured.append(_rise(adapter, plan, layers, sums, data, folder))
    factors = relative_factors(predicted, measured)
    said = ", ".join(f"{name} {factor:.2g}" for name, factor in zip(groups, factors, strict=True))
    return (
        {layer.name: factor for layers, factor in zip(groups.values(), factors, strict=True) for layer in layers},
        f"corrected by measured losses: {said}",
    )


def _rise(
    adapter: CompressAdapter,
    plan: CompressionPlan,
    layers: Sequence[LayerPlan],
    sums: Calibration,
    data: Sequence[Any],
    folder: WorkFolder | None,
) -> float:
    """How much the mean loss of an example rises when some layers of a plan are replaced."""
    trial = adapter.trial()
    for layer in fitted(adapter.targets(), replace(plan, layers=tuple(layers)), sums, folder=folder):
        trial.replace(layer)
    return trial.loss_rise(adapter.model, data)
