"""The whole of compression over an adapter: targets, sums, plan, operators in place, report."""

from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import Any

from mponet.compress.adapter import CompressAdapter
from mponet.compress.calibrate import Calibration
from mponet.compress.config import CompressConfig
from mponet.compress.pipeline import Progress, fitted, make_plan
from mponet.compress.plan import CompressionPlan
from mponet.compress.report import Report
from mponet.compress.select import select
from mponet.compress.target import Target


def plan(
    adapter: CompressAdapter,
    config: CompressConfig,
    calibration: Iterable[Any] | Calibration | None = None,
    *,
    progress: Progress | None = None,
) -> tuple[CompressionPlan, Calibration | None]:
    """Plan a compression and touch nothing.

    Args:
        adapter: of the network.
        config: what to compress, and to what budget.
        calibration: the network's own inputs, batch by batch, or what an earlier pass gathered.
        progress: called with a step's name, how many are done and how many there are.

    Raises:
        CompressionError: as `mponet.compress.pipeline.make_plan` does.
    """
    targets = adapter.targets()
    sums = gathered(adapter, targets, config, calibration)
    made = make_plan(targets, config, sums, other_weights=adapter.other_weights(), progress=progress)
    return made, sums


def compress(
    adapter: CompressAdapter,
    config: CompressConfig | CompressionPlan,
    calibration: Iterable[Any] | Calibration | None = None,
    *,
    progress: Progress | None = None,
) -> Report:
    """Compress the adapter's network in place.

    Args:
        adapter: of the network.
        config: what to compress, or a plan that says it layer by layer.
        calibration: as in `plan`.
        progress: as in `plan`.

    Raises:
        CompressionError: as `mponet.compress.pipeline.make_plan` does, or the plan belongs to
            another network.  Nothing has been touched then.
    """
    seconds: dict[str, float] = {}
    began = perf_counter()
    targets = adapter.targets()
    sums = gathered(adapter, targets, config, calibration)
    seconds["calibrate"] = perf_counter() - began
    began = perf_counter()
    if isinstance(config, CompressConfig):
        made = make_plan(targets, config, sums, other_weights=adapter.other_weights(), progress=progress)
        seconds["plan"] = perf_counter() - began
    else:
        made = config
    began = perf_counter()
    errors: dict[str, float] = {}
    for layer in fitted(targets, made, sums, progress=progress):
        adapter.replace(layer)
        errors[layer.name] = layer.output_error
        errors |= {use.name: use.output_error for use in layer.tied}
    seconds["fit"] = perf_counter() - began
    return Report(made, errors, seconds)


def gathered(
    adapter: CompressAdapter,
    targets: Sequence[Target],
    config: CompressConfig | CompressionPlan,
    data: Iterable[Any] | Calibration | None,
) -> Calibration | None:
    """The sums that a config or a plan needs.

    Given, gathered now from data, or None without either.
    """
    if data is None or isinstance(data, Calibration):
        return data
    if isinstance(config, CompressionPlan):
        names = {layer.name for layer in config.replaced}
        wanted = [target for target in targets if target.name in names or target.tied_to in names]
        weighted = config.config.get("metric") == "kfac"
        return adapter.calibrate(wanted, data, gradients=weighted, products=weighted)
    wanted = [entry.target for entry in select(targets, config) if not entry.reason]
    return adapter.calibrate(wanted, data, gradients=config.needs_gradients, products=config.fit_metric == "kfac")
