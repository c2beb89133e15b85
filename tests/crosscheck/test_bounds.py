"""The parts of the cross-check: task and files, jumps, rounding, bounds, comparison."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

import small as batches
from mponet.backend import load
from mponet.crosscheck import Comparison, Report, markdown
from mponet.crosscheck import case as cases
from mponet.crosscheck.bounds import Bound, bounds, cancelling
from mponet.crosscheck.compare import compare
from mponet.crosscheck.margin import share, shift_biases, smoothest_batch
from mponet.crosscheck.rounding import LOSS, NORM, SINGLE, forward, gradient, input_roundings
from mponet.crosscheck.worker import cross_entropy
from mponet.errors import BackendError
from mponet.models import build, miniatures
from mponet.models.shapes import leaves, parameter_shapes, statistic_shapes
from mponet.models.spec import (
    AvgPool,
    BatchNorm,
    Concat,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    Model,
    ReLU,
    Residual,
)
from mponet.operators.shape import MPOShape

MODELS = (*miniatures.networks("dense"), *miniatures.networks("mpo"))
NORMED = miniatures.networks("mpo")[3]
every_network = pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.name}-{model.variant}")


def network(shape, *chain):
    return Model("m", "dense", None, shape, chain, "a test")


# ---------------------------------------------------------------- the case


@every_network
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_a_case_survives_its_files(model, dtype, tmp_path):
    case = cases.make(model, dtype, 7, 3, choice=2)
    cases.save(case, tmp_path)
    back = cases.load(tmp_path)
    assert (back.model, back.dtype, back.recipes) == (model, dtype, case.recipes)
    for start_state, read in zip(case.starts, back.starts, strict=True):
        assert (read.rates, read.first_step, read.share) == (
            start_state.rates,
            start_state.first_step,
            start_state.share,
        )
        assert len(read.masks) == len(start_state.masks) == len(start_state.rates)
        pairs = [(start_state.images, read.images), (start_state.labels, read.labels)]
        pairs += [pair for kept in zip(start_state.masks, read.masks, strict=True) for pair in zip(*kept, strict=True)]
        for written, found in ((start_state.parameters, read.parameters), (start_state.state, read.state)):
            assert set(found) == set(written)
            pairs += [(written[name], found[name]) for name in written]
        for written, found in pairs:
            assert found.dtype == written.dtype
            np.testing.assert_array_equal(found, written)


def test_a_case_follows_from_its_seed_and_starts_nothing_where_training_starts_it():
    first, again, other = (cases.make(NORMED, "float64", seed, 4).starts[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.masks[3][1], again.masks[3][1])
    assert not np.array_equal(first.images, other.images)
    assert 0.0 <= first.images.min() <= first.images.max() < 1.0
    assert set(first.labels) <= set(range(10))
    assert set(first.parameters) == set(parameter_shapes(NORMED) | statistic_shapes(NORMED))
    for name, value in first.parameters.items():
        assert not np.any(value == (1.0 if name.endswith(("/scale", "/variance")) else 0.0)), name
        assert np.all(value > 0.0) or not name.endswith("/variance")


def test_training_goes_on_end_in_float64_and_in_single_steps_from_other_states_in_float32():
    (start_state,) = cases.make(NORMED, "float64", 0, 2).starts
    assert len(start_state.rates) == len(start_state.masks) == 20
    assert len(set(start_state.rates)) == 2
    assert not np.array_equal(start_state.masks[0][0], start_state.masks[1][0])  # every step drops anew
    assert (start_state.state, start_state.first_step) == ({}, 0)
    starts = cases.make(NORMED, "float32", 0, 2, choice=1).starts
    assert [start_state.rates for start_state in starts] == [(0.01,), (0.01,), (0.001,), (0.001,)]
    kept = {f"{kind}/{name}" for kind in ("velocity", "average") for name in parameter_shapes(NORMED)}
    assert all(set(start_state.state) == kept and start_state.first_step > 0 for start_state in starts)
    assert not np.array_equal(starts[0].parameters["fc2/core1"], starts[1].parameters["fc2/core1"])


def test_without_training_there_is_one_leg_of_no_steps_that_has_masks_all_the_same():
    for dtype in cases.DTYPES:
        (start_state,) = cases.make(NORMED, dtype, 0, 2, recipes=(), choice=1).starts
        assert (start_state.rates, start_state.state) == ((), {})
        assert [mask.shape for mask in start_state.masks[0]] == [(2, 12), (2, 12)]


# ---------------------------------------------------------------- jumps


def shares(model, parameters, images, unit):
    return share(model, parameters, images.reshape(-1, *model.input_shape), (), unit)


def test_a_relu_jumps_where_its_input_is_within_reach_of_zero():
    # a pooling by 1 makes one rounding, and has no second value to change places with
    model = network((1, 4, 1), AvgPool(1, 1), ReLU())
    images = np.array([[1.0, -1.0, 1.0, 1e-3]])  # root mean square 0.87
    assert shares(model, {}, images, 1e-3) == 0.0
    assert shares(model, {}, images, 2e-3) == pytest.approx(sqrt(1 / 3))
    images = np.array([[1.0, 1e-3, 1.0, 1e-3]])
    assert shares(model, {}, images, 2e-3) == pytest.approx(sqrt(2 / 4))


def test_a_window_jumps_where_its_two_largest_values_are_within_reach_unless_it_is_off():
    model = network((2, 6, 1), AvgPool(1, 1), MaxPool())
    images = np.array([[[8.0, 1.0, 3.0, 1.0, 0.0, 0.0], [7.0, 2.0, 3.0, 1.0, 0.0, 0.0]]])
    assert shares(model, {}, images, 1e-3) == pytest.approx(sqrt(1 / 3))  # the second window, a tie
    assert shares(model, {}, images, 0.5) == pytest.approx(sqrt(2 / 3))


def test_smooth_networks_have_no_jumps():
    model = network((2, 2, 1), Flatten(), Dense("d", 1))
    assert shares(model, {"d/kernel": np.ones((4, 1)), "d/bias": np.zeros(1)}, np.zeros((1, 4)), 1.0) == 0.0


def test_jumps_are_those_of_training_mode_with_masks_in_every_branch():
    norm = BatchNorm("n", epsilon=0.0)
    values = {"n/scale": np.ones(1), "n/shift": np.zeros(1), "n/mean": np.full(1, 5.0), "n/variance": np.ones(1)}
    images = np.array([3.0, 5.0, 7.0]).reshape(3, 1, 1, 1)
    assert share(network((1, 1, 1), norm, ReLU()), values, images, (), SINGLE) == 1.0  # 5 is the mean; 7 is active
    assert share(network((1, 1, 1), norm, ReLU()), values, images[:2], (), SINGLE) == 0.0  # 4 is; 5 alone is not
    inside = network((1, 1, 1), Residual((Concat((norm, ReLU())),), (Concat((ReLU(),)),)))
    assert share(inside, values, images, (), SINGLE) == 1.0
    dropped = network((1, 1, 2), Dropout(0.5), ReLU())
    ones = np.ones((1, 1, 1, 2))
    assert share(dropped, {}, ones, (np.array([[[[True, True]]]]),), SINGLE) == 0.0
    assert share(dropped, {}, ones, (np.array([[[[True, False]]]]),), SINGLE) == 1.0


def test_the_calmest_batch_is_the_first_without_a_jump_else_that_with_the_fewest():
    model = network((1, 4, 1), AvgPool(1, 1), ReLU())
    batches = [np.array(values).reshape(1, 1, 4, 1) for values in ([1, 0, 0, 1], [1, 0, 1, 1], [1, 2, 3, 4], [4] * 4)]
    images, _, found = smoothest_batch(model, {}, iter(batches), (), SINGLE)
    assert (found, images.ravel().tolist()) == (0.0, [1, 2, 3, 4])
    images, _, found = smoothest_batch(model, {}, iter(batches[:2]), (), SINGLE)
    assert (found, images.ravel().tolist()) == (pytest.approx(sqrt(1 / 3)), [1, 0, 1, 1])


def test_a_bias_is_moved_to_the_nearest_gap_of_its_own_channel():
    model = network((1, 3, 1), Conv2D("c", 2, (1, 1)), ReLU())
    images = np.array([-0.5, 1e-9, 2.0]).reshape(1, 1, 3, 1)
    values = {"c/kernel": np.array([[[[1.0, 1.0]]]]), "c/bias": np.array([0.0, 0.3])}
    assert share(model, values, images, (), SINGLE) > 0.0
    moved = shift_biases(model, values, images, (), SINGLE)
    # the first channel's gaps are -0.5 .. 0 and 0 .. 2, the second has nothing near 0
    np.testing.assert_allclose(moved["c/bias"], [0.25, 0.3], atol=1e-8)
    assert moved["c/kernel"] is values["c/kernel"]
    assert share(model, moved, images, (), SINGLE) == 0.0


def test_a_channel_of_equal_values_is_moved_off_as_a_whole():
    model = network((1, 3, 1), Conv2D("c", 1, (1, 1)), ReLU())
    images = np.ones((1, 1, 3, 1))
    values = {"c/kernel": np.ones((1, 1, 1, 1)), "c/bias": np.array([-1.0])}
    moved = shift_biases(model, values, images, (), SINGLE)
    assert 0 < abs(moved["c/bias"][0] + 1.0) < 1e-5
    assert share(model, moved, images, (), SINGLE) == 0.0


def test_only_what_stands_directly_in_front_of_a_relu_is_moved():
    values = {"c/kernel": np.ones((1, 1, 1, 1)), "c/bias": np.zeros(1)}
    for between in (MaxPool(1, 1), Residual((ReLU(),))):
        model = network((1, 3, 1), Conv2D("c", 1, (1, 1)), between, ReLU())
        assert shift_biases(model, values, np.zeros((1, 1, 3, 1)), (), 1.0)["c/bias"] == 0.0


@pytest.mark.parametrize("name", ["resnet20", "densenet40-12"])
def test_published_networks_without_windows_have_no_jump_left(name):
    model = build(name, "mpo")
    assert cases.make(model, "float32", 0, 4, recipes=(), choice=1).share == 0.0


@every_network
def test_gradients_of_the_small_networks_keep_away_from_every_jump(model):
    assert cases.make(model, "float32", 0, 8).share == 0.0


# ---------------------------------------------------------------- rounding


def test_a_pass_adds_up_the_roots_of_its_sums():
    fc2 = build("fc2", "dense")
    assert forward(fc2) == forward(fc2, 16) == 28 + 16  # 784 and 256 inputs
    assert gradient(fc2, 16) == pytest.approx(28 + 16 + LOSS + 16 + sqrt(10) + 4)  # 256 and 10 outputs; 16 examples
    pooled = network((8, 8, 4), Conv2D("c", 2, (3, 3)), ReLU(), MaxPool(), AvgPool(4, 4))
    assert forward(pooled) == 6 + 4
    assert gradient(pooled, 4) == pytest.approx(6 + 4 + LOSS + sqrt(18) + 2 + 4 + 16)


def test_an_operator_goes_core_by_core_or_as_a_matrix():
    shape = MPOShape.from_factors((2, 8), (4, 9), (2,))
    model = network((1, 1, 16), Flatten(), Dense("d", 36, mpo=shape))
    assert forward(model) == pytest.approx(4 + sqrt(2 * 2) + sqrt(8))
    there = 6 + sqrt(4 * 2) + sqrt(9)
    assert gradient(model, 4) == pytest.approx(forward(model) + LOSS + there + sqrt(4 * 9))  # 36 / 4 rows of core 1


def test_a_batch_norm_sums_in_training_only():
    model = network((4, 4, 3), BatchNorm("n"))
    assert forward(model) == NORM
    assert forward(model, 4) == NORM + 8


def test_branches_count_by_the_longer_one():
    body, shortcut = (Conv2D("a", 4, (3, 3)), ReLU(), Conv2D("b", 4, (3, 3))), (Conv2D("s", 4, (1, 1)),)
    model = network((4, 4, 4), Residual(body, shortcut), Concat((Conv2D("c", 1, (3, 3)),)), ReLU())
    assert forward(model) == 6 + 6 + 1 + 6
    assert input_roundings(model, 2) == [0, 6, 6, 0, 13, 19]
    assert len(input_roundings(model, 2)) == len(list(leaves(model)))
    assert forward(network((4, 4, 4), Residual((ReLU(),)))) == 1


# ---------------------------------------------------------------- bounds


def test_bounds_of_float64_are_the_contract():
    assert {quantity: bound.error for quantity, bound in bounds(cases.make(NORMED, "float64", 0, 4)).items()} == {
        "forward": 1e-12,
        "dropout": 1e-12,
        "loss": 1e-12,
        "statistics": 1e-12,
        "gradients": 1e-10,
        "sgd": 1e-8,
        "momentum": 1e-8,
        "nesterov": 1e-8,
    }


def test_bounds_of_float32_are_twice_the_roundings_of_a_pass():
    case = cases.make(NORMED, "float32", 0, 8)
    found = bounds(case)
    assert {bound.norm for bound in found.values()} == {"largest"}
    assert found["forward"].error == found["dropout"].error == 2**-23 * forward(NORMED)
    assert found["loss"].error == found["statistics"].error == 2**-23 * (forward(NORMED, 8) + LOSS)
    assert found["gradients"].error == found["nesterov"].error == 2**-23 * gradient(NORMED, 8)


def test_the_share_of_jumps_within_reach_widens_gradients_and_training_and_makes_them_euclidean():
    case = cases.make(NORMED, "float32", 0, 8)
    shaken = bounds(replace(case, starts=(replace(case.starts[0], share=0.01), *case.starts[1:])))
    calm = bounds(case)
    for quantity in ("gradients", "nesterov"):
        assert shaken[quantity] == replace(calm[quantity], error=calm[quantity].error + 0.01, norm="euclidean")
    assert all(shaken[quantity] == calm[quantity] for quantity in ("forward", "dropout", "loss", "statistics"))


# ---------------------------------------------------------------- comparing


def gradients(**tensors):
    return {"gradients": {name: np.array(value, dtype=np.float64) for name, value in tensors.items()}}


def compared(first, second, bound=1e-10, norm="largest"):
    (found,) = compare({"torch": first, "jax": second}, {"gradients": Bound(bound, norm)})
    return found


def test_the_error_is_the_largest_difference_over_the_largest_value():
    found = compared(gradients(a=[1.0, -4.0], b=[1.0]), gradients(a=[1.0, -5.0], b=[1.1]))
    assert found == Comparison("gradients", "torch", "jax", 0.2, "a", 1e-10)
    assert not found.ok
    assert compared(gradients(a=[4.0]), gradients(a=[5.0]), bound=0.2).ok


def test_or_the_euclidean_norm_of_the_one_over_that_of_the_other():
    found = compared(gradients(a=[3.0, 4.0]), gradients(a=[3.0, 4.5]), norm="euclidean")
    assert found.error == pytest.approx(0.5 / sqrt(9 + 4.5**2))
    assert "(Euclidean)" in str(found)


def test_what_is_zero_but_for_rounding_has_no_relative_error():
    found = compared(gradients(large=[1.0], dead=[0.0]), gradients(large=[1.0], dead=[1e-17]))
    assert found.error == pytest.approx(1e-13)
    assert compared(gradients(dead=[0.0]), gradients(dead=[0.0])).error == 0.0


def test_only_biases_right_in_front_of_a_batch_norm_have_another_floor():
    found = {
        str(model): list(cancelling(model)) for model in (*miniatures.networks("dense"), *miniatures.networks("mpo"))
    }
    assert {name: biases for name, biases in found.items() if biases} == {
        "vgg-small-late (mpo)": ["conv2_2/bias"],
        "resnet-small-unit (mpo)": ["group3_block2_conv1/bias"],
    }
    model = next(model for model in miniatures.networks("mpo") if model.name == "resnet-small-unit")
    for dtype in cases.DTYPES:
        allowed = bounds(cases.make(model, dtype, 0, 2, choice=1))
        floors = {name: allowed["gradients"].floor(name) for name in parameter_shapes(model)}
        wide = {name for name, floor in floors.items() if floor != 1e-4}
        assert wide == ({"group3_block2_conv1/bias"} if dtype == "float32" else set())
        assert not any(bound.cancelling for quantity, bound in allowed.items() if quantity != "gradients")


def test_those_biases_have_gradients_that_are_zero_but_for_rounding():
    """Moving one of them changes no loss in training mode; moving any other bias does."""
    for model in miniatures.networks("mpo"):
        values, (images, labels, masks) = batches.values(model), batches.batch(model)

        def loss(name, change, model=model, values=values, images=images, labels=labels, masks=masks):
            native = load("numpy").build(model, {**values, name: values[name] + change})
            return cross_entropy(native(images, training=True, masks=masks), labels)

        for name in values:
            if name.endswith("/bias"):
                change = np.linspace(0.5, 1.0, values[name].size)
                gone = abs(loss(name, change) - loss(name, 0.0)) < 1e-12
                assert gone == (name in set(cancelling(model)))


def test_a_small_gradient_that_is_wrong_is_found_beside_a_large_one_in_float32():
    bound = bounds(cases.make(NORMED, "float32", 0, 8))["gradients"]
    ours, theirs = gradients(large=[1.0], small=[1e-3]), gradients(large=[1.0], small=[1.01e-3])
    (found,) = compare({"torch": ours, "jax": theirs}, {"gradients": bound})
    assert (found.worst, found.ok) == ("small", False)
    assert found.error == pytest.approx(0.01, rel=0.02)  # relative to itself, not to the large one


def test_small_tensors_are_not_hidden_by_large_ones():
    found = compared(gradients(large=[1.0], small=[1e-3]), gradients(large=[1.0], small=[2e-3]))
    assert (found.error, found.worst) == (0.5, "small")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_no_pass(value):
    with pytest.raises(BackendError, match="a of backend 'jax' is not finite"):
        compared(gradients(a=[1.0]), gradients(a=[value]))


def test_other_names_or_shapes_are_refused():
    with pytest.raises(BackendError, match=r"\['b'\]"):
        compared(gradients(a=[1.0]), gradients(a=[1.0], b=[1.0]))
    with pytest.raises(BackendError, match=r"\['a'\]"):
        compared(gradients(a=[1.0]), gradients(a=[[1.0]]))


def test_a_quantity_that_only_one_has_is_not_compared():
    assert compare({"torch": gradients(a=[1.0]), "numpy": {}}, {"gradients": Bound(1.0)}) == ()


def test_the_table_has_the_worst_pair_of_every_quantity():
    found = [
        Comparison("forward", "torch", other, error, "logits", 1e-12)
        for other, error in (("jax", 1e-15), ("tf", 2e-15))
    ]
    report = Report("fc2", "mpo", None, "float64", 0, 8, {}, tuple(found))
    slopes = Comparison("gradients", "torch", "jax", 0.02, "fc1/core1", 0.01, "euclidean")
    other = replace(report, variant="dense", dtype="float32", comparisons=(*found, slopes))
    assert markdown([report, other]).splitlines() == [
        "| network | variant | dtype | forward | gradients | nearest its bound |",
        "| --- | --- | --- | --- | --- | --- |",
        "| fc2 | mpo | float64 | 2e-15 of 1e-12 |  | logits of forward |",
        "| fc2 | dense | float32 | 2e-15 of 1e-12 | 2e-02 BEYOND 1e-02 l2 | fc1/core1 of gradients |",
    ]
