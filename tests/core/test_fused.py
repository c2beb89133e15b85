"""Which plans kernels take, what they do, and what the cost model makes of it."""

from dataclasses import replace

import pytest

from mponet.contraction.cost import cost, dense, predict, workspace
from mponet.contraction.kernels import Sizes, fusable, multiplications, padded, speed, uses_dense_gradient
from mponet.contraction.machine import DEFAULTS
from mponet.contraction.plan import Plan
from mponet.contraction.planner import PlanningContext, _plans_for, plans_for
from mponet.contraction.search import choose
from mponet.operators.shape import MPOShape

SHORT = DEFAULTS["torch-cuda-16bit"]


def plan(dims, bond, groups=None, **changes):
    shape = MPOShape.from_factors(dims, dims, bond)
    groups = groups or (1,) * len(dims)
    return replace(Plan(shape, groups, tuple(range(len(groups) - 1, -1, -1))), **changes)


@pytest.mark.parametrize(("size", "wanted"), [(1, 16), (16, 16), (17, 32), (100, 128), (128, 128)])
def test_sizes_are_padded_to_powers_of_two_that_a_matrix_unit_takes(size, wanted):
    assert padded(size) == wanted


@pytest.mark.parametrize(
    ("one", "wanted"),
    [
        (plan((64, 64), 4), True),
        (plan((64, 128), 64), True),
        (plan((4, 4, 8, 8, 4), 4, (3, 2)), True),
        (plan((16, 16, 16), 4), True),
        (plan((64, 64), 4, tile=8), False),  # of a whole batch only
        (plan((64, 64), 4, order=(0, 1)), False),  # from the right only
        (plan((64, 64), 4, (2,), order=(0,)), False),
        (plan((8, 8, 8, 8), 4), False),  # four groups
        (plan((16, 256), 4), False),  # too wide
        (plan((128, 129), 4), False),
        (plan((32, 32, 32), 4), False),  # more than a program holds
        (plan((64, 1), 4), False),  # a bond that leads nowhere
    ],
    ids=str,
)
def test_what_a_kernel_takes(one, wanted):
    assert fusable(one) == wanted


@pytest.mark.parametrize("bond", [1, 4, 16])
def test_without_padding_a_kernel_multiplies_as_often_as_a_sweep(bond):
    two, three = plan((32, 64), bond), plan((16, 32, 16), bond)
    assert multiplications(two) == replace(two, order=(0, 1)).sweep_multiplications  # it begins with the first group
    assert multiplications(three) == three.sweep_multiplications


def test_padding_counts():
    assert multiplications(plan((5, 3), 2)) == multiplications(plan((16, 16), 2))


def test_the_transposed_operator_has_the_sizes_turned():
    sizes = Sizes.of(Plan(MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 2), 3), (2, 2), (1, 0)))
    assert sizes == Sizes((28, 28), (16, 8), (3,))
    assert sizes.transposed == Sizes((16, 8), (28, 28), (3,))


def test_gradients_by_the_matrix_where_they_are_fewer_multiplications():
    assert not uses_dense_gradient(plan((64, 64), 4), 16384)
    assert uses_dense_gradient(plan((64, 64), 16), 16384)
    assert not uses_dense_gradient(plan((64, 64), 16), 512)  # the way from the matrix to the cores takes longer
    assert uses_dense_gradient(plan((16, 16, 16), 4), 1)  # three groups always


@pytest.mark.parametrize(("dims", "share"), [((64, 64), 1.0), ((32, 64), 0.5), ((128, 64), 1.0), ((16, 16, 16), 0.25)])
def test_small_sizes_are_slow(dims, share):
    assert speed(plan(dims, 4)) == share


# ---------------------------------------------------------------- costs


def test_a_kernel_takes_no_memory_for_states():
    one, apart = plan((64, 64), 4), replace(SHORT, kernel_flops=0.0)
    for purpose in ("forward", "training"):
        assert workspace(one, 512, purpose=purpose, machine=SHORT) == workspace(
            one, 4096, purpose=purpose, machine=SHORT
        )
        assert workspace(one, 4096, purpose=purpose, machine=SHORT) < workspace(
            one, 4096, purpose=purpose, machine=apart
        )


def test_the_gradient_of_the_matrix_is_accounted_for():
    one = plan((64, 64), 16)
    taken = {purpose: workspace(one, 4096, purpose=purpose, machine=SHORT) for purpose in ("forward", "training")}
    assert taken["training"] - taken["forward"] == one.shape.dense_parameters


@pytest.mark.parametrize("one", [plan((64, 64), 4), plan((64, 64), 16), plan((16, 16, 16), 4)], ids=str)
def test_the_parts_of_a_cost_grow_with_the_batch_and_training_costs_more(one):
    for purpose in ("inference", "forward", "training"):
        small, large = (cost(one, batch, purpose=purpose, itemsize=2, machine=SHORT) for batch in (4096, 16384))
        assert large.products > small.products and large.moving > small.moving
        assert (large.merging, large.calls) == (small.merging, small.calls)
    seconds = [predict(one, 4096, purpose=p, itemsize=2, machine=SHORT) for p in ("inference", "forward", "training")]
    assert seconds == sorted(seconds) and len(set(seconds)) == 3


@pytest.mark.parametrize(("dims", "bond"), [((64, 64), 4), ((64, 64), 16), ((64, 128), 16)])
def test_wide_layers_in_16_bit_numbers_are_chosen_a_kernel_and_small_ones_are_rebuilt(dims, bond):
    shape = MPOShape.from_factors(dims, dims, bond)
    chosen = choose(shape, 16384, purpose="training", itemsize=2, machine=SHORT)
    assert fusable(chosen)
    wanted = dense(shape, 16384, purpose="training", itemsize=2, machine=SHORT).seconds
    assert predict(chosen, 16384, purpose="training", itemsize=2, machine=SHORT) < wanted
    small = MPOShape.from_factors((16, 16), (16, 16), 4)
    assert len(choose(small, 64, purpose="training", itemsize=2, machine=SHORT).groups) == 1


# ---------------------------------------------------------------- devices


def planner(device, *, fuses=False):
    return PlanningContext("torch", lambda: {"torch": "0"}, lambda *_: lambda: None, device, fuses=fuses)


@pytest.mark.parametrize(
    ("device", "dtype", "wanted"),
    [
        ("", "float32", "torch"),
        ("", "bfloat16", "torch"),
        ("cuda", "float32", "torch-cuda"),
        ("cuda", "float64", "torch-cuda"),
        ("cuda", "float16", "torch-cuda-16bit"),
    ],
)
def test_constants_are_those_of_the_device_and_the_numbers(device, dtype, wanted, tmp_path, monkeypatch):
    monkeypatch.setenv("MPONET_CACHE", str(tmp_path))
    one = planner(device, fuses=True)
    assert one.key(dtype) == wanted
    assert one.machine(dtype) == DEFAULTS[wanted]


@pytest.mark.parametrize(("speed", "wanted"), [(1e30, True), (1e3, False)])
def test_only_a_planner_with_kernels_plans_for_them(speed, wanted, monkeypatch):
    """Whatever the constants.

    Infinitely fast kernels are chosen, slow ones are not, and none without kernels.
    """
    monkeypatch.setattr(
        "mponet.contraction.planner.machine_of", lambda *_: replace(SHORT, kernel_flops=speed, call_overhead=1e-12)
    )
    _plans_for.cache_clear()
    shape = MPOShape.from_factors((64, 64), (64, 64), 4)
    with_kernels, without = (plans_for(shape, 4096, "bfloat16", planner("cuda", fuses=f)) for f in (True, False))
    _plans_for.cache_clear()
    assert fusable(with_kernels.training) == fusable(with_kernels.forward) == wanted
    slow = replace(SHORT, kernel_flops=0.0, call_overhead=1e-12)
    assert without.request.machine == slow
    for purpose in ("forward", "training"):
        assert getattr(without, purpose) == choose(shape, 4096, purpose=purpose, itemsize=2, machine=slow)


def test_what_is_traced_is_planned_without_kernels(tmp_path, monkeypatch):
    monkeypatch.setenv("MPONET_CACHE", str(tmp_path))
    shape = MPOShape.from_factors((64, 64), (64, 64), 4)
    found = [plans_for(shape, batch, "bfloat16", planner("cuda", fuses=True)).request for batch in (4096, None)]
    assert [one.machine.kernel_flops for one in found] == [SHORT.kernel_flops, 0.0]
