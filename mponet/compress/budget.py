"""A config's budget in numbers.

What may be taken, what it costs, and which option each layer takes.
"""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from mponet.compress.allocate import Choice, allocate, uniform
from mponet.compress.config import CompressConfig
from mponet.compress.hull import Options
from mponet.compress.select import Selected
from mponet.compress.target import Target

Array = NDArray[np.float64]


def allocated(
    matched: Sequence[Selected],
    options: Sequence[Options],
    scales: Sequence[float],
    config: CompressConfig,
    targets: Sequence[Target],
    other_weights: int,
    forbidden: Sequence[Collection[int]] = (),
) -> list[int]:
    """The index of the option that each layer takes.

    Args:
        matched: the layers that may be replaced.
        options: of each.
        scales: what a relative squared error of one in each counts; with outputs weighted by the
            loss's gradient where the config allocates by loss.
        config: budget and limits.
        targets: all modules that hold a weight.
        other_weights: weights of the network outside of them.
        forbidden: indices that each layer may not take; empty for none.

    Raises:
        CompressionError: a layer has no option within its limits, or the budget cannot be met.
    """
    name, value = config.budget
    choices = [
        Choice(e.target.name, _costs(e.target, o, name), scale * _errors(o, config), _allowed(e, o, config, not_these))
        for e, o, scale, not_these in zip(matched, options, scales, forbidden or [()] * len(options), strict=True)
    ]
    dense_costs = [float(choice.costs[0]) for choice in choices]
    if name == "error":
        return [choice.frontier()[0] for choice in choices]
    total = sum(dense_costs)
    own = {entry.target.name for entry in matched}
    others = [t for t in targets if t.name not in own and t.tied_to not in own]
    rest = _rest(name, others, other_weights) if config.of == "network" else 0.0
    budget = (value if name == "bytes" else value * (total + rest)) - rest
    return (
        uniform(choices, budget / total, dense_costs) if config.allocation == "uniform" else allocate(choices, budget)
    )


def _rest(name: str, others: Sequence[Target], other_weights: int) -> float:
    """What the budget counts outside of the layers that may be replaced."""
    if name == "multiplications":
        return float(sum(target.multiplications for target in others))
    size = max((target.itemsize for target in others), default=4) if name == "bytes" else 1
    own = sum(t.weights * (t.itemsize if name == "bytes" else 1) for t in others if not t.tied_to)
    return float(own + other_weights * size)


def _errors(options: Options, config: CompressConfig) -> Array:
    return options.losses if config.allocation == "loss" else options.errors


def _costs(target: Target, options: Options, budget: str) -> Array:
    costs = options.costs(budget)
    return costs * target.itemsize if budget == "bytes" else costs


def _allowed(entry: Selected, options: Options, config: CompressConfig, forbidden: Collection[int]) -> tuple[int, ...]:
    """Options within floor, ceiling and what the layer's override says."""
    override, dense_weights = entry.override, options.dense.weights
    shares, errors = options.costs("keep") / dense_weights, np.sqrt(options.errors)
    allowed = (shares <= min(config.ceiling, override.keep or 1.0)) & (shares >= min(config.floor, 1.0))
    limit = override.error if override.error is not None else config.error
    if override.keep is None:
        allowed[0] = True
    if limit is not None:
        allowed &= errors <= limit
    if override.bond is not None:
        allowed[0] = False  # the one other option is the operator that was asked for
    return tuple(int(k) for k in np.flatnonzero(allowed) if k not in forbidden)
