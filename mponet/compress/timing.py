"""The time of a layer over that of the operator that replaces it, measured side by side."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

#: A pair of calls is repeated until both of these are reached: pairs, and seconds.
LEAST_PAIRS, LEAST_SECONDS = 7, 0.1
#: Calls before the first that counts: they choose plans, fill caches and compile.
WARM_UP = 3


def median_ratio(
    dense: Callable[[], object],
    operator: Callable[[], object],
    *,
    clock: Callable[[], float] = perf_counter,
) -> float:
    """Time of a dense layer over that of its operator: above 1 the operator is faster.

    Both are called in turn, the first one alternating, so that a machine that slows down slows both
    down; the median over the pairs ignores interruptions.

    Args:
        dense: runs the dense layer, and waits until it is done.
        operator: runs the operator, and waits until it is done.
        clock: seconds since some time.
    """
    for _ in range(WARM_UP):
        dense()
        operator()
    ratios: list[float] = []
    began = clock()
    while len(ratios) < LEAST_PAIRS or clock() - began < LEAST_SECONDS:
        calls = (dense, operator) if len(ratios) % 2 == 0 else (operator, dense)
        times = {call: _seconds(call, clock) for call in calls}
        ratios.append(times[dense] / max(times[operator], 1e-9))
    return median(ratios)


def _seconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    call()
    return clock() - began
