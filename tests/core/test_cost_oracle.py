"""The cost model's products against those that a plan really takes: a library that counts them."""

from collections import Counter
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from core.strategies import mpos, pair_plans, wirings
from mponet.contraction import execute
from mponet.contraction.cost import MERGES, MERGES_SAVING, cost, gathering, product_seconds, step_products
from mponet.contraction.machine import Machine
from mponet.contraction.planner import PURPOSES
from mponet.contraction.search import candidates
from mponet_numpy.ops.arrays import Ops as NumpyOps

#: Only calls cost anything, and each costs a second.
CALLS = Machine(
    flops=1e300, half_speed_size=1e-300, cache_bandwidth=1e300, llc_bandwidth=1e300, memory_bandwidth=1e300,
    call_overhead=1.0, bmm_overhead=1e-300,
)  # fmt: skip
#: Only multiplications cost anything, and each costs a second (two operations).
ARITHMETIC = Machine(
    flops=2.0, half_speed_size=1e-300, cache_bandwidth=1e300, llc_bandwidth=1e300, memory_bandwidth=1e300,
    call_overhead=1e-300, bmm_overhead=1e-300,
)  # fmt: skip


class Counting(NumpyOps):
    """Counts products by where they are used: with the batch, or among tensors."""

    def __init__(self):
        self.merging, self.sweeping = [], []
        self.tensors = True

    def _count(self, result, inner):
        (self.merging if self.tensors else self.sweeping).append(result.size * inner)

    def matmul(self, a, b, out=None):
        result = super().matmul(a, b, out)
        self._count(result, a.shape[-1])
        return result

    def matmul_permuted(self, a, b, sizes, axes, shape):
        return self.matmul(a, b).reshape(sizes).transpose(axes).reshape(shape)

    def linear(self, a, b, bias):
        self.tensors = False
        result = self.matmul(a, b)
        self.tensors = True
        return result

    def accumulate_gradient(self, total, a, b):
        assert not self.tensors
        contracted = a.shape[0] if a.ndim == 2 else a.shape[0] * a.shape[2]
        self.sweeping.append(a.shape[1] * b.shape[1] * contracted)
        return super().accumulate_gradient(total, a, b)

    def map_tiles(self, body, arrays, widths, tile):
        return super().map_tiles(self._with_the_batch(body), arrays, widths, tile)

    def _with_the_batch(self, body):
        def run(*arguments):
            self.tensors = False
            found = body(*arguments)
            self.tensors = True
            return found

        return run


def counted(plan, tensors, inputs, gradient, purpose, monkeypatch):
    """The products that are taken for a purpose, as the frameworks' layers take them."""
    ops = Counting()
    over_rows = execute.over_rows
    with monkeypatch.context() as patched:
        # whole batches do not go through map_tiles
        patched.setattr(
            execute,
            "over_rows",
            lambda tile, body, arrays, widths, ops: over_rows(tile, ops._with_the_batch(body), arrays, widths, ops),
        )
        if purpose == "inference":
            weights = execute.weights_of(plan, tensors, NumpyOps())
            execute.sweep(plan, weights, inputs, ops)
        elif purpose == "forward":
            execute.forward(plan, tensors, inputs, ops)
        else:
            _, saved = execute.forward_saving(plan, tensors, inputs, ops)
            execute.backward(plan, tensors, inputs, gradient, ops, saved=saved)
    return ops


def check(plan, tensors, rows, purpose, monkeypatch):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(rows, plan.program.in_features))
    gradient = rng.normal(size=(rows, plan.program.out_features))
    ops = counted(plan, tensors, inputs, gradient, purpose, monkeypatch)
    calls, arithmetic = (cost(plan, rows, purpose=purpose, itemsize=4, machine=one) for one in (CALLS, ARITHMETIC))
    assert calls.calls == len(ops.sweeping), plan
    assert arithmetic.products == pytest.approx(sum(ops.sweeping), rel=1e-12), plan
    assert arithmetic.merging == pytest.approx(sum(ops.merging), rel=1e-12, abs=1e-200), plan
    products = len(plan.program.products)
    times = {"inference": 0, "forward": 1, "training": 3 if plan.saves_states else 4}[purpose]
    assert len(ops.merging) == times * products


@settings(max_examples=20)
@given(mpos(max_sites=4, max_size=256), st.sampled_from([1, 5]), st.sampled_from([None, 1, 5]))
def test_products_of_every_sweep_are_predicted(mpo, rows, tile):
    with pytest.MonkeyPatch.context() as monkeypatch:
        for plan in candidates(mpo.shape, transposed=True, saving=True):
            for purpose in PURPOSES:
                check(plan.with_tile(tile), mpo.cores, rows, purpose, monkeypatch)


@settings(max_examples=40)
@given(st.data(), st.sampled_from([1, 5]), st.sampled_from([None, 1, 5]), st.sampled_from(PURPOSES))
def test_products_of_every_path_are_predicted(data, rows, tile, purpose):
    """Tiles divide the batch here: a last, shorter tile is predicted to cost a whole one."""
    plan = data.draw(pair_plans(data.draw(wirings()))).with_tile(tile)
    plan = plan.saving() if data.draw(st.booleans()) else plan
    with pytest.MonkeyPatch.context() as monkeypatch:
        check(plan, graphs.tensors_of(plan.shape), rows, purpose, monkeypatch)


@settings(max_examples=20)
@given(mpos(max_sites=4, max_size=256), st.sampled_from([1, 5]))
def test_a_plan_that_saves_its_states_multiplies_less(mpo, rows):
    """By one product for each step but the last, and by one merging of the tensors."""
    for plan in candidates(mpo.shape, transposed=True):
        again, saves = (cost(one, rows, purpose="training", machine=ARITHMETIC) for one in (plan, plan.saving()))
        less = rows * sum(step.multiplications for step in plan.steps[:-1])
        assert again.products - saves.products == pytest.approx(less, rel=1e-12, abs=1e-200)
        assert again.merging - saves.merging == pytest.approx(plan.merge_multiplications, rel=1e-12, abs=1e-200)
        for purpose in ("forward", "inference"):
            assert cost(plan, rows, purpose=purpose) == cost(plan.saving(), rows, purpose=purpose)


@settings(max_examples=40)
@given(mpos(max_sites=4, max_size=256), st.sampled_from(PURPOSES), st.booleans())
def test_a_step_is_run_as_often_as_its_purpose_asks(mpo, purpose, recomputed):
    """Forward once.

    In training again if a later step needs its result, then pulled back and summed up.
    """
    times = {"inference": 1, "forward": 1, "training": 4 if recomputed else 3}[purpose]
    for plan in candidates(mpo.shape):
        for step in plan.steps:
            found = list(step_products(step, 7, purpose, gathering(step, ARITHMETIC), recomputed=recomputed))
            assert Counter(count * prod(sizes) for sizes, count, _ in found) == {7 * step.multiplications: times}


def test_merging_is_free_only_where_weights_are_kept():
    sizes = 5, 3, 7
    merges = [*(MERGES[purpose] for purpose in ("inference", "forward", "training")), MERGES_SAVING]
    assert [product_seconds(sizes, one, 4, ARITHMETIC) for one in merges] == pytest.approx([0.0, 105.0, 420.0, 315.0])
