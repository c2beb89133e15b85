"""The hull and the price: the best allocation of small problems by enumeration is the oracle."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mponet.compress.allocate import Choice, allocate, uniform
from mponet.compress.hull import frontier, lower_hull
from mponet.errors import CompressionError

numbers = st.floats(0.0, 10.0, allow_subnormal=False)


@given(st.lists(st.tuples(st.floats(1.0, 10.0), numbers), min_size=1, max_size=12))
def test_nothing_lies_below_the_hull_and_its_slopes_flatten(points):
    costs, errors = (np.array(column) for column in zip(*points, strict=True))
    hull = lower_hull(costs, errors)
    x, y = costs[hull], errors[hull]
    assert y[-1] == errors.min()
    assert x[0] == costs.min()
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) < 0).all()
    inside = np.interp(costs, x, y)
    assert (errors >= inside - 1e-9).all()
    best = frontier(costs, errors)
    assert set(hull) <= set(best) or len({*points}) < len(points)
    for k in range(len(costs)):
        assert any(costs[b] <= costs[k] and errors[b] <= errors[k] for b in best)


def choices_of(rows):
    return [Choice(str(k), np.array(c), np.array(e), tuple(range(len(c)))) for k, (c, e) in enumerate(rows)]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 1.0))
def test_the_price_is_as_good_as_enumeration_but_for_one_step(seed, share):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(3):
        cost = np.sort(rng.uniform(1, 10, 5))
        rows.append((cost, np.sort(rng.uniform(0, 10, 5))[::-1].copy()))
    choices = choices_of(rows)
    budget = sum(c[0] for c, _ in rows) + share * sum(c[-1] - c[0] for c, _ in rows)
    taken = allocate(choices, budget)

    def total(of, indices):
        return sum(float(getattr(c, of)[k]) for c, k in zip(choices, indices, strict=True))

    assert total("costs", taken) <= budget + 1e-9
    best = min(
        total("losses", combination)
        for combination in product(range(5), repeat=3)
        if total("costs", combination) <= budget + 1e-9
    )
    largest_step = max(float(np.diff(c.losses[c.hull()][::-1]).max(initial=0.0)) for c in choices)
    assert best - 1e-9 <= total("losses", taken) <= best + largest_step + 1e-9


def total(choices, taken, of):
    return sum(float(getattr(choice, of)[k]) for choice, k in zip(choices, taken, strict=True))


def toy(seed, ranks):
    """Ranks of four layers; a step of the largest is a hundredth of the whole or less."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(90, 260, 4)
    losses = [0.8 ** np.arange(ranks) * rng.uniform(0.5, 2.0) for _ in steps]
    choices = choices_of(
        [(np.arange(1, ranks + 1) * float(step), loss) for step, loss in zip(steps, losses, strict=True)]
    )
    return choices, ranks * float(steps.sum())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 0.9))
def test_no_exchange_of_two_layers_is_better(seed, share):
    choices, whole = toy(seed, ranks=12)
    taken = allocate(choices, share * whole)
    assert total(choices, taken, "costs") <= share * whole
    if total(choices, taken, "costs") >= 0.999 * share * whole:
        return
    for (a, b), i, j in product(combinations(range(4), 2), range(12), range(12)):
        other = [i if k == a else j if k == b else now for k, now in enumerate(taken)]
        if total(choices, other, "costs") <= share * whole:
            assert total(choices, other, "losses") >= total(choices, taken, "losses") - 1e-12


def test_exchanges_close_what_single_steps_leave_of_a_budget():
    left = []
    for seed in range(60):
        choices, whole = toy(seed, ranks=40)
        left.append(1.0 - total(choices, allocate(choices, 0.45 * whole), "costs") / (0.45 * whole))
    assert np.mean(np.array(left) > 0.005) < 0.1  # 0.52 without exchanges


def test_weighted_allocation_beats_uniform_on_a_planted_problem():
    ranks = np.arange(1, 101)
    rows = [(ranks * 1.0, weight * np.exp(-ranks / decay)) for weight, decay in ((1.0, 5.0), (1.0, 50.0), (20.0, 50.0))]
    choices = choices_of(rows)
    joint, same = allocate(choices, 150.0), uniform(choices, 0.5, [100.0] * 3)

    def loss(taken):
        return sum(float(c.losses[k]) for c, k in zip(choices, taken, strict=True))

    assert [ranks[k] for k in same] == [50, 50, 50]
    assert loss(joint) < 0.75 * loss(same)
    assert ranks[joint[2]] > ranks[joint[1]] > ranks[joint[0]]
    assert sum(ranks[k] for k in joint) == 150


def test_dense_layers_are_left_where_the_budget_allows():
    (choice,) = choices_of([([10.0, 2.0], [0.0, 1.0])])
    assert allocate([choice], 10.0) == [0]
    assert allocate([choice], 9.0) == [1]


def test_a_budget_that_cannot_be_met_is_an_error():
    choices = choices_of([([10.0, 2.0], [0.0, 1.0])])
    with pytest.raises(CompressionError, match=r"budget is 1.*together cost 2"):
        allocate(choices, 1.0)
    with pytest.raises(CompressionError, match=r"no option at 0\.1"):
        uniform(choices, 0.1, [10.0])
    with pytest.raises(CompressionError, match=r"fc has no option within its limits"):
        Choice("fc", np.ones(1), np.ones(1), ())
