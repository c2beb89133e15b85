"""The whole of compression over an adapter: targets, sums, plan, operators in place, report."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from mponet.compress.adapter import CompressAdapter
from mponet.compress.calibrate import Calibration
from mponet.compress.config import CompressConfig
from mponet.compress.correction import corrected_plan
from mponet.compress.execution import fitted
from mponet.compress.gather import Progress, gathered
from mponet.compress.pipeline import make_plan
from mponet.compress.plan import CompressionPlan
from mponet.compress.report import Report
from mponet.compress.upstream import CrossSums
from mponet.compress.work_folder import WorkFolder
from mponet.errors import CompressionError


def calibrate(
    adapter: CompressAdapter,
    config: CompressConfig,
    data: Iterable[Any],
    *,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """The sums over the inputs of the layers that a config matches.

    Args:
        adapter: of the network.
        config: what to compress.
        data: the network's own inputs, batch by batch.
        folder: as in `plan`.
        progress: as in `plan`.

    Raises:
        CompressionError: a pattern matches no module, or the data hold no batch.
    """
    work = None if folder is None else WorkFolder(folder)
    sums = gathered(adapter, adapter.targets(), config, data, folder=work, progress=progress)
    assert sums is not None
    return sums


def plan(
    adapter: CompressAdapter,
    config: CompressConfig,
    calibration: Iterable[Any] | Calibration | None = None,
    *,
    measure: bool = False,
    correct: Sequence[Any] | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[CompressionPlan, Calibration | None]:
    """Plan a compression and touch nothing.

    Args:
        adapter: of the network.
        config: what to compress, and to what budget.
        calibration: the network's own inputs, batch by batch, or what an earlier pass gathered.
        measure: whether to time every layer against its operator, in addition to the prediction.
        correct: batches on which losses are measured to correct the plan
            (`mponet.compress.correction.corrected_plan`); None takes the predictions.
        folder: keeps finished steps (`mponet.compress.work_folder`): a call that was killed goes
            on when it is made again with the same network, data and loss, and gives the same bytes.
            None keeps none.
        progress: called with a step's name, how many are done and how many there are; 0 if that is
            not known.

    Raises:
        CompressionError: as `mponet.compress.pipeline.make_plan` does.
    """
    work = None if folder is None else WorkFolder(folder)
    sums = gathered(adapter, adapter.targets(), config, calibration, folder=work, progress=progress)
    return _planned(adapter, config, sums, measure, correct, work, progress), sums


def compress(
    adapter: CompressAdapter,
    config: CompressConfig | CompressionPlan,
    calibration: Iterable[Any] | Calibration | None = None,
    *,
    measure: bool = False,
    correct: Sequence[Any] | None = None,
    upstream: bool = False,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compress the adapter's network in place.

    Args:
        adapter: of the network.
        config: what to compress, or a plan that says it layer by layer.
        calibration: as in `plan`.
        measure: as in `plan`.
        correct: as in `plan`; not with a plan.
        upstream: whether each layer is fitted to the inputs that it gets after the blocks that are
            compressed already.  It runs the data once more for every block.
        folder: as in `plan`.
        progress: as in `plan`.

    Raises:
        CompressionError: as `mponet.compress.pipeline.make_plan` does, or the plan belongs to
            another network; or ``upstream`` has no data that can be read several times.  Nothing
            has been touched then.
    """
    if upstream and (calibration is None or isinstance(calibration, Calibration | Iterator)):
        raise CompressionError(
            f"upstream is set, and calibration is {type(calibration).__name__}; expected data that can be read several "
            "times, as a list of batches"
        )
    if correct is not None and isinstance(config, CompressionPlan):
        raise CompressionError("correct is set and a plan is given; expected a config; correct when the plan is made")
    seconds: dict[str, float] = {}
    began = perf_counter()
    targets, work = adapter.targets(), None if folder is None else WorkFolder(folder)
    sums = gathered(adapter, targets, config, calibration, folder=work, progress=progress)
    seconds["calibrate"] = perf_counter() - began
    began = perf_counter()
    if isinstance(config, CompressConfig):
        made = _planned(adapter, config, sums, measure, correct, work, progress)
        seconds["plan"] = perf_counter() - began
    else:
        made = config
    began = perf_counter()
    errors: dict[str, float] = {}
    crossed = partial(_crossed, adapter, calibration) if upstream else None
    for layer in fitted(targets, made, sums, cross_sums=crossed, folder=work, progress=progress):
        adapter.replace(layer)
        errors[layer.name] = layer.output_error
        errors |= {use.name: use.output_error for use in layer.tied}
    seconds["fit"] = perf_counter() - began
    return Report(made, errors, seconds)


def _planned(
    adapter: CompressAdapter,
    config: CompressConfig,
    sums: Calibration | None,
    measure: bool,
    correct: Sequence[Any] | None,
    work: WorkFolder | None,
    progress: Progress | None,
) -> CompressionPlan:
    """The plan of a config, corrected if there are batches for it."""
    timed = adapter.measure if measure else None
    if correct is not None:
        return corrected_plan(adapter, config, sums, correct, folder=work, measure=timed, progress=progress)
    others = adapter.other_weights()
    return make_plan(
        adapter.targets(), config, sums, other_weights=others, folder=work, measure=timed, progress=progress
    )


def _crossed(adapter: CompressAdapter, data: Any, names: Sequence[str]) -> Mapping[str, CrossSums]:
    return adapter.cross_sums(names, data)
