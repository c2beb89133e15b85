"""A budget of multiplications is one of time: layers that would be slower are left dense."""

from collections.abc import Callable, Collection, Sequence

from mponet.compress.config import CompressConfig
from mponet.compress.hull import Option, Options
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.select import Selected
from mponet.errors import CompressionError

#: An operator may take this many times as long as the dense layer.
MAX_SLOWDOWN = 1.05


class Speeds:
    """The speed of rows of a plan, measured once for all that are alike, or predicted.

    Args:
        measure: time of a layer over that of the operator that a row names, None where it cannot
            be measured; no function takes predictions.
    """

    def __init__(self, measure: Callable[[LayerPlan], float | None] | None) -> None:
        self._measure = measure
        self._known: dict[tuple[object, ...], float | None] = {}

    def measured(self, row: LayerPlan) -> float | None:
        """Measured time of a layer over that of its operator; None if it was not measured."""
        if self._measure is None or row.layout is None:
            return None
        key = (row.type_name, row.dense_multiplications, row.layout, row.bonds)
        if key not in self._known:
            self._known[key] = self._measure(row)
        return self._known[key]

    def is_slow(self, row: LayerPlan) -> bool:
        """Whether an operator takes longer than its dense layer by more than `MAX_SLOWDOWN`."""
        measured = self.measured(row)
        speed = row.speed if measured is None else measured
        return row.layout is not None and speed is not None and speed * MAX_SLOWDOWN < 1.0


def allocated_in_time(
    allocate: Callable[[Sequence[Collection[int]]], list[int]],
    matched: Sequence[Selected],
    options: Sequence[Options],
    config: CompressConfig,
    is_slow: Callable[[Selected, Option], bool],
) -> list[int]:
    """The index of the option that each layer takes.

    Where the budget is one of multiplications, slow options are forbidden, and the budget is shared
    again, until none is taken.  Layers whose bond is given keep it.

    Args:
        allocate: shares the budget, given the options that each layer may not take.
        matched: the layers.
        options: of each.
        config: the budget.
        is_slow: whether an operator takes longer than its layer.

    Raises:
        CompressionError: the budget cannot be met, or only by operators that are slow.
    """
    forbidden: list[set[int]] = [set() for _ in options]
    while True:
        try:
            indices = allocate(forbidden)
        except CompressionError as error:
            slow_layers = sum(map(bool, forbidden))
            if not slow_layers:
                raise
            raise CompressionError(
                f"{error}; operators of {slow_layers} layers would be slower than the layers and are left out; a "
                "budget of weights, keep, allows them"
            ) from error
        if config.multiplications is None:
            return indices
        slow = [
            k
            for k, (entry, opts, index) in enumerate(zip(matched, options, indices, strict=True))
            if entry.override.bond is None and is_slow(entry, opts.option(index))
        ]
        if not slow:
            return indices
        for k in slow:
            forbidden[k] |= options[k].at_least(indices[k])
