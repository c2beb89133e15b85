"""The sums that a compression needs: given, or gathered from data, in one go or in several."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from itertools import chain, islice
from time import monotonic
from typing import Any

from mponet.compress.adapter import CompressAdapter
from mponet.compress.calibrate import Calibration
from mponet.compress.config import CompressConfig
from mponet.compress.plan import CompressionPlan
from mponet.compress.select import select
from mponet.compress.target import Target
from mponet.compress.work_folder import WorkFolder, batch_key, key_of, weights_key
from mponet.errors import CompressionError

Progress = Callable[[str, int, int], None]
#: Seconds of a pass after which its sums are written, and how much longer than the writing itself.
SAVE_SECONDS, SAVE_SHARE = 30.0, 20.0


def gathered(
    adapter: CompressAdapter,
    targets: Sequence[Target],
    config: CompressConfig | CompressionPlan,
    data: Iterable[Any] | Calibration | None,
    *,
    folder: WorkFolder | None = None,
    progress: Progress | None = None,
) -> Calibration | None:
    """The sums that a config or a plan needs.

    Given, gathered now from data, or None without either.

    Args:
        adapter: of the network.
        targets: all its modules that hold a weight.
        config: what to compress, or a plan that says it.
        data: batches of the network's own inputs, or sums.
        folder: where sums are kept as they grow; None keeps none.
        progress: called with ``calibrate``, the number of batches so far, and that of all; 0 if
            it is not known.

    Raises:
        CompressionError: a pattern matches nothing, or the data hold no batch.
    """
    if data is None or isinstance(data, Calibration):
        return data
    wanted, gradients, products = _needs(targets, config)
    if not wanted:
        return Calibration()  # `make_plan` says why nothing may be replaced
    count = len(data) if isinstance(data, Sized) else 0
    batches = iter(data)
    if folder is None:
        seen = _shown(batches, progress, 0, count)
        return adapter.calibrate(wanted, seen, gradients=gradients, products=products)
    first = list(islice(batches, 1))
    key = key_of(weights_key(wanted), [batch_key(batch) for batch in first], count, gradients, products)
    sums, done = folder.sums(key)
    if done is None:
        return sums
    rest = _after(chain(first, batches), done)
    seconds = SAVE_SECONDS
    while True:
        portion = _Portion(rest, seconds)
        if portion.is_empty and done:
            break
        seen = _shown(portion, progress, done, count)
        sums = adapter.calibrate(wanted, seen, gradients=gradients, products=products, sums=sums)
        done += portion.count
        began = monotonic()
        folder.save_sums(key, sums, done)
        seconds = max(SAVE_SECONDS, SAVE_SHARE * (monotonic() - began))
    folder.save_sums(key, sums, None)
    return sums


def _needs(targets: Sequence[Target], config: CompressConfig | CompressionPlan) -> tuple[list[Target], bool, bool]:
    """Of which targets sums are wanted, whether with gradients, and whether with their products."""
    if isinstance(config, CompressionPlan):
        names = {layer.name for layer in config.replaced}
        weighted = config.config.get("metric") == "kfac"
        return [target for target in targets if target.name in names or target.tied_to in names], weighted, weighted
    wanted = [entry.target for entry in select(targets, config) if not entry.reason]
    return wanted, config.needs_gradients, config.fit_metric == "kfac"


class _Portion:
    """Batches until some seconds have passed.

    Attributes:
        count: number of batches that were taken.
    """

    def __init__(self, batches: Iterator[Any], seconds: float) -> None:
        self.count = 0
        self._first = list(islice(batches, 1))
        self._batches = batches
        self._seconds = seconds

    @property
    def is_empty(self) -> bool:
        """Whether no batch was left."""
        return not self._first

    def __iter__(self) -> Iterator[Any]:
        until = monotonic() + self._seconds
        for batch in chain(self._first, self._batches):
            self.count += 1
            yield batch
            if monotonic() >= until:
                return


def _after(batches: Iterator[Any], count: int) -> Iterator[Any]:
    """The batches after the first few.

    Raises:
        CompressionError: there are fewer.
    """
    skipped = sum(1 for _ in islice(batches, count))
    if skipped < count:
        raise CompressionError(
            f"calibration holds {skipped} batches, and {count} of them are in the sums of the folder; expected the "
            "same data as before; choose another folder"
        )
    return batches


def _shown(batches: Iterable[Any], progress: Progress | None, done: int, count: int) -> Iterator[Any]:
    """The batches, each reported when it is asked for."""
    for number, batch in enumerate(batches, start=done):
        if progress is not None:
            progress("calibrate", number, count)
        yield batch
