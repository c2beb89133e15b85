"""Steps of a training in blocks.

A loss is read, which waits for the device, only at the end of a block, or when a slow block has
reported nothing for a while.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

BLOCK = 50  # steps between two readings of the loss
PATIENCE = 5.0  # seconds after which a slow block reports in between
WARM_UP = 10  # first steps of a process, which compile: no block is timed over them


@dataclass(frozen=True, slots=True)
class Block:
    """What is known at the end of a block of steps, or within one.

    Attributes:
        step: steps done.
        loss: what the last step gave.
        steps_per_s: over the block; None for a block that was all warm-up, and within one.
        seconds: since the training began, pauses between two processes excluded.
        interim: reported within a block because time passed.
    """

    step: int
    loss: float
    steps_per_s: float | None
    seconds: float
    interim: bool = False


def blocks(
    losses: Iterable[Any],
    *,
    start: int = 0,
    seconds: float = 0.0,
    length: int = BLOCK,
    ends: Callable[[int], bool] = lambda step: False,
) -> Iterator[Block]:
    """Carry out steps, and report on blocks of them.

    Args:
        losses: carries out one step for each item, which ``float()`` reads as its loss.
        start: steps done before.
        seconds: taken by them.
        length: steps of a block, whose ends are multiples of it.
        ends: further steps, by their number from 1, at which a block ends.

    Example:
        >>> [(block.step, block.loss) for block in blocks([3.0, 2.0, 1.0], length=2)]
        [(2, 2.0), (3, 1.0)]
    """
    began = perf_counter() - seconds
    first, since = start, perf_counter()
    reported, step, open_block = since, start, False
    loss: Any = None
    for step, loss in enumerate(losses, start + 1):
        if step == start + WARM_UP:
            float(loss)  # waits for the device; a bad value lasts until the block ends
            first, since = step, perf_counter()
        open_block = bool(step % length) and not ends(step)
        if open_block and perf_counter() - reported < PATIENCE:
            continue
        value = float(loss)
        reported = perf_counter()
        if open_block:
            yield Block(step, value, None, reported - began, interim=True)
            continue
        yield Block(step, value, _speed(step - first, reported - since, step > start + WARM_UP), reported - began)
        first, since = step, perf_counter()
    if open_block:
        value = float(loss)
        now = perf_counter()
        yield Block(step, value, _speed(step - first, now - since, step > start + WARM_UP), now - began)


def _speed(steps: int, seconds: float, warm: bool) -> float | None:
    return steps / max(seconds, 1e-9) if warm else None
