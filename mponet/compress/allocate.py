"""How a budget is shared among layers: one price for all, found by bisection.

At a price ``p`` every layer takes the option with the smallest ``loss + p * cost``.  Only points of
the lower convex hull are ever taken, and the total cost falls as the price rises.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mponet.compress.hull import frontier, lower_hull
from mponet.errors import CompressionError

Array = NDArray[np.float64]
#: Halvings of the range of prices.
BISECTIONS = 100
#: Share of a budget that may be left; exchanges of two layers are tried while more is, so often.
SLACK, EXCHANGES = 0.001, 50


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The options of one layer in the currency of the budget.

    Attributes:
        name: of the layer.
        costs: cost of each option, in weights, multiplications or bytes.
        losses: what each option adds to the loss, in any unit that all layers share.
        allowed: indices of the options that may be taken.

    Raises:
        CompressionError: none may be taken.
    """

    name: str
    costs: Array
    losses: Array
    allowed: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.allowed:
            raise CompressionError(
                f"{self.name} has no option within its limits; raise its keep, error, bond or ceiling, or exclude it"
            )

    def hull(self) -> list[int]:
        """Allowed options on the lower convex hull, from the cheapest on."""
        index = np.asarray(self.allowed)
        return [int(index[k]) for k in lower_hull(self.costs[index], self.losses[index])]

    def frontier(self) -> list[int]:
        """Allowed options that no other is both cheaper and better than, from the cheapest on."""
        index = np.asarray(self.allowed)
        return [int(index[k]) for k in frontier(self.costs[index], self.losses[index])]


def allocate(choices: Sequence[Choice], budget: float) -> list[int]:
    """The option of each layer that together lose least within a budget.

    The price comes first.  What it leaves of the budget is spent on the steps that gain most per
    cost, and then on exchanges: one layer takes a cheaper option so that another can take a better
    one, if both together lose less than before.

    Args:
        choices: the layers.
        budget: the largest total cost.

    Raises:
        CompressionError: the cheapest options together cost more than the budget.

    Examples:
        >>> import numpy as np
        >>> flat = Choice("flat", np.array([4.0, 2.0, 1.0]), np.array([0.0, 0.1, 0.2]), (0, 1, 2))
        >>> steep = Choice("steep", np.array([4.0, 2.0, 1.0]), np.array([0.0, 5.0, 9.0]), (0, 1, 2))
        >>> allocate([flat, steep], 5.0)
        [2, 0]
    """
    hulls = [choice.hull() for choice in choices]
    cheapest = sum(float(c.costs[h[0]]) for c, h in zip(choices, hulls, strict=True))
    if cheapest > budget:
        raise CompressionError(
            f"the budget is {budget:.6g}, and the smallest options together cost {cheapest:.6g}; "
            "raise the budget, lower the floor, or include more modules"
        )
    points = [(c.costs[h], c.losses[h]) for c, h in zip(choices, hulls, strict=True)]
    slopes = [-np.diff(losses) / np.diff(costs) for costs, losses in points]
    taken = _bisect(points, slopes, budget)
    chosen = [h[k] for h, k in zip(hulls, taken, strict=True)]
    fronts = [np.asarray(choice.frontier()) for choice in choices]
    chosen, slack = _spend(choices, chosen, fronts, budget)
    for _ in range(EXCHANGES):
        exchange = _exchange(choices, chosen, fronts, slack) if slack > SLACK * budget else []
        if not exchange:
            break
        for layer, option in exchange:
            chosen[layer] = option
        chosen, slack = _spend(choices, chosen, fronts, budget)
    return chosen


def uniform(choices: Sequence[Choice], share: float, dense: Sequence[float]) -> list[int]:
    """For each layer the best option that costs at most a share of the dense layer.

    Raises:
        CompressionError: a layer has none.
    """
    chosen = []
    for choice, full in zip(choices, dense, strict=True):
        affordable = [k for k in choice.frontier() if choice.costs[k] <= share * full]
        if not affordable:
            raise CompressionError(
                f"{choice.name} has no option at {share:.3g} of its cost; raise the budget, or allocate by loss"
            )
        chosen.append(affordable[-1])
    return chosen


def _bisect(points: Sequence[tuple[Array, Array]], slopes: Sequence[Array], budget: float) -> list[int]:
    """Positions on the hulls at the lowest price within the budget."""

    def at(price: float) -> list[int]:
        # slopes fall along a hull; each step whose gain per cost exceeds the price is taken
        return [int(np.count_nonzero(slope > price)) for slope in slopes]

    def cost(taken: Sequence[int]) -> float:
        return sum(float(costs[k]) for (costs, _), k in zip(points, taken, strict=True))

    if cost(at(0.0)) <= budget:
        return at(0.0)
    every = np.concatenate([slope for slope in slopes if slope.size])
    positive = every[every > 0.0]
    low, high = float(np.log(positive.min())) - 1.0, float(np.log(positive.max())) + 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(at(np.exp(middle))) <= budget else (middle, high)
    return at(float(np.exp(high)))


def _spend(
    choices: Sequence[Choice], chosen: Sequence[int], fronts: Sequence[NDArray[np.int64]], budget: float
) -> tuple[list[int], float]:
    """Spend what is left of the budget on single steps up, the best gain per cost first.

    Also gives what is left then.
    """
    chosen = list(chosen)
    slack = budget - sum(float(c.costs[k]) for c, k in zip(choices, chosen, strict=True))
    while True:
        steps = [
            step
            for layer, (choice, now, front) in enumerate(zip(choices, chosen, fronts, strict=True))
            if (step := _best_step(choice, now, front, slack, layer)) is not None
        ]
        if not steps:
            return chosen, slack
        _, layer, k = max(steps)
        slack -= float(choices[layer].costs[k] - choices[layer].costs[chosen[layer]])
        chosen[layer] = k


def _best_step(
    choice: Choice, now: int, front: NDArray[np.int64], slack: float, layer: int
) -> tuple[float, int, int] | None:
    """Gain per cost, layer and option of the best step up that the slack pays for."""
    rise, gain = choice.costs[front] - choice.costs[now], choice.losses[now] - choice.losses[front]
    possible = (rise > 0.0) & (rise <= slack) & (gain > 0.0)
    if not possible.any():
        return None
    rates = np.where(possible, gain / np.where(possible, rise, 1.0), -1.0)
    best = int(rates.argmax())
    return float(rates[best]), layer, int(front[best])


def _exchange(
    choices: Sequence[Choice], chosen: Sequence[int], fronts: Sequence[NDArray[np.int64]], slack: float
) -> list[tuple[int, int]]:
    """The exchange of two layers that lowers the loss most within the slack; empty if none does.

    Along a frontier losses fall as costs rise, so the best step up is the dearest that is paid for.
    """
    moves = []  # of each layer: what its options cost and lose more than the present one
    for choice, now, front in zip(choices, chosen, fronts, strict=True):
        moves.append((choice.costs[front] - choice.costs[now], choice.losses[front] - choice.losses[now]))
    best, found = 0.0, []
    for down, (saved, lost) in enumerate(moves):
        cheaper = np.flatnonzero(saved < 0.0)
        for up, (rise, change) in enumerate(moves):
            paid = np.searchsorted(rise, slack - saved[cheaper], side="right") - 1
            usable = (paid >= 0) & (up != down)
            total = np.where(usable, lost[cheaper] + change[paid], 0.0)
            if total.size and float(total.min()) < best:
                k = int(total.argmin())
                best = float(total[k])
                found = [(down, int(fronts[down][cheaper[k]])), (up, int(fronts[up][paid[k]]))]
    return found
