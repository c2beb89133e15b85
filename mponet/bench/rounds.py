"""Interleaved timing: all calls in one order, then in the reverse order, round by round.

Disturbances of the machine affect calls that follow one another alike, so the ratio of two
interleaved times varies less than either time.
"""

import gc
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from time import perf_counter
from typing import Any

WARM_UP = 2  # calls before the clock starts: compilers, allocators, caches
ROUNDS = 15
LEAST_ROUNDS = 3
#: Seconds of the shortest sample; a faster call is repeated within a sample.
SAMPLE = 2e-3
#: Seconds for all samples of one call; a slower call takes part in fewer rounds.
PATIENCE = 20.0


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int = ROUNDS,
    *,
    always: Collection[str] = (),
    patience: float = PATIENCE,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, list[float]]:
    """Seconds of a call, two samples a round, by name.

    Args:
        calls: functions to time; each returns when its work is done.
        rounds: number of rounds; a call that would need more than ``patience`` seconds for them
            takes part in fewer, at least three, spread evenly over the run.
        always: names of calls that take part in every round.
        patience: seconds for the samples of one call.
        clock: returns the time in seconds.

    >>> calls = {"short": lambda: sum(range(10)), "long": lambda: sum(range(1000))}
    >>> times = interleave(calls, rounds=3)
    >>> {name: len(samples) for name, samples in times.items()}
    {'short': 6, 'long': 6}
    """
    once = {name: _once(call, clock) for name, call in calls.items()}
    repeats = {name: max(1, ceil(SAMPLE / max(seconds, 1e-9))) for name, seconds in once.items()}
    shares = {
        name: rounds if name in always else _share(max(seconds, SAMPLE), rounds, patience)
        for name, seconds in once.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in calls}
    with _no_collection():
        for number in range(rounds):
            order = [name for name in calls if _takes_part(number, shares[name], rounds)]
            for name in (*order, *reversed(order)):
                call, often = calls[name], range(repeats[name])
                began = clock()
                for _ in often:
                    call()
                samples[name].append((clock() - began) / len(often))
    return samples


def _once(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Seconds of one call after the warm-up."""
    for _ in range(WARM_UP):
        call()
    began = clock()
    call()
    return clock() - began


def _share(seconds: float, rounds: int, patience: float) -> int:
    """The number of rounds in which a call of so many seconds takes part."""
    return min(rounds, max(LEAST_ROUNDS, int(patience / (2 * seconds))))


def _takes_part(number: int, share: int, rounds: int) -> bool:
    """Whether round ``number`` is one of ``share`` spread evenly over ``rounds``."""
    return (number + 1) * share // rounds > number * share // rounds


@contextmanager
def _no_collection() -> Iterator[None]:
    """Stops Python's garbage collector, which would pause a call."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
