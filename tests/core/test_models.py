"""The networks as data: counts and ratios of the paper, starting values, and what is refused."""

import numpy as np
import pytest

from core.paper import FIGURE_2_WEIGHTS
from mponet import models
from mponet.errors import ModelError
from mponet.measure import whole_ratio
from mponet.models import TABLE, VARIANTS, build, infer
from mponet.models.layers import Conv2D, Dense, Flatten, MaxPool, Model, ReLU
from mponet.models.start import check, start
from mponet.mpo import MPO, to_matrix
from mponet.shape import MPOShape

COUNTS = {("fc2", "dense"): 203_264, ("fc2", "mpo"): 15_850, ("lenet5", "dense"): 61_612, ("lenet5", "mpo"): 5_646}


def weights(model):
    return sum(info.mpo.parameters for info in infer.layers(model) if info.mpo)


@pytest.mark.parametrize(("name", "variant"), COUNTS)
def test_the_whole_networks_have_the_published_numbers_of_parameters(name, variant):
    assert infer.parameter_count(build(name, variant)) == COUNTS[name, variant]


def test_lenet5_has_the_compression_ratio_of_table_1():
    model = build("lenet5", "mpo")
    replaced = [info for info in infer.layers(model) if info.mpo]
    assert [info.mpo.parameters for info in replaced] == [1792, 944, 124]
    assert [infer.replaced_weights(info) for info in replaced] == [48_000, 10_080, 840]
    assert infer.rho(model) == 2860 / 58_920
    assert whole_ratio(5_646, 61_612) == pytest.approx(0.0916, abs=5e-5)


@pytest.mark.parametrize("bond", FIGURE_2_WEIGHTS)
def test_fc2_has_the_compression_ratios_of_figure_2(bond):
    model = build("fc2", "mpo", bond)
    assert weights(model) == FIGURE_2_WEIGHTS[bond]
    assert infer.rho(model) == FIGURE_2_WEIGHTS[bond] / 203_264


def test_bonds_beyond_the_exact_maximum_are_clamped_as_in_figure_2():
    first = next(info.mpo for info in infer.layers(build("fc2", "mpo", 22)) if info.mpo)
    assert first.bond_dims == (1, 16, 22, 16, 1)


def test_the_published_bond_is_the_default():
    assert infer.parameter_shapes(build("fc2", "mpo")) == infer.parameter_shapes(build("fc2", "mpo", 16))


def test_the_normal_networks_have_no_ratio():
    assert [infer.rho(build(name, "dense")) for name in TABLE] == [None] * len(TABLE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_lenet5_has_the_shapes_of_table_1(variant):
    shapes = [info.output_shape for info in infer.layers(build("lenet5", variant)) if info.kind != "ReLU"]
    assert shapes[:4] == [(28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16)]
    assert shapes[-3:] == [(120,), (84,), (10,)]


@pytest.mark.parametrize("name", TABLE)
def test_each_variant_starts_with_its_own_parameters_of_finite_size(name):
    for variant in VARIANTS:
        model = build(name, variant)
        for scheme in ("exact", "paper"):
            parameters = start(model, 0, scheme)
            check(model, parameters)
            assert list(parameters) == list(infer.parameter_shapes(model))
            assert all(np.isfinite(value).all() for value in parameters.values())
            assert all(not value.any() for key, value in parameters.items() if key.endswith("/bias"))


def test_a_seed_decides_the_start_and_another_one_changes_every_weight():
    model = build("lenet5", "mpo")
    one, again, other = start(model, 1), start(model, 1), start(model, 2)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not any(np.array_equal(one[name], other[name]) for name in one if not name.endswith("/bias"))


def test_variants_share_the_start_of_the_layers_that_they_share():
    dense, mpo = start(build("lenet5", "dense"), 3), start(build("lenet5", "mpo"), 3)
    assert np.array_equal(dense["conv1/kernel"], mpo["conv1/kernel"])
    assert np.array_equal(dense["conv2/kernel"], mpo["conv2/kernel"])


def test_the_exact_start_gives_an_operator_the_variance_of_a_matrix():
    model = build("fc2", "mpo")
    shape = next(info.mpo for info in infer.layers(model) if info.mpo)
    variances = []
    for seed in range(20):
        cores = [value for name, value in start(model, seed).items() if name.startswith("fc1/core")]
        variances.append(to_matrix(MPO(shape, tuple(cores))).var())
    assert np.mean(variances) == pytest.approx(2 / 784, rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fc3",), "model is 'fc3'; expected one of fc2, lenet5"),
        (("fc2", "tt"), "variant is 'tt'; expected one of dense, mpo"),
        (("fc2", "dense", 4), "bond is 4 for the dense variant of fc2; expected none"),
        (("fc2", "mpo", 0), "bond is 0; expected a whole number of at least 1"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(arguments, message):
    with pytest.raises(ModelError, match=message):
        build(*arguments)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((Dense("a", 3),), "put a Flatten before it"),
        ((Flatten(), Conv2D("a", 3, (3, 3))), "expected a feature map"),
        ((Flatten(), MaxPool()), "expected a feature map"),
        ((Conv2D("a", 3, (9, 9), padding="VALID"),), "expected one that fits the map"),
        ((Flatten(), Dense("a", 3), ReLU(), Dense("a", 3)), "expected different names"),
        ((Flatten(), Dense("a", 4, mpo=MPOShape.of((2, 2), (2, 2), 2))), "expected 36 -> 4"),
    ],
)
def test_layers_that_do_not_follow_one_another_are_refused(layers, message):
    with pytest.raises(ModelError, match=message):
        infer.layers(Model("odd", "dense", None, (6, 6, 1), layers, "a test"))


def test_parameters_of_another_model_are_refused():
    model, parameters = build("fc2", "dense"), start(build("fc2", "dense"), 0)
    with pytest.raises(ModelError, match=r"differ in the names \['fc2/kernel'\]"):
        check(model, {"fc1/kernel": parameters["fc1/kernel"]})
    with pytest.raises(ModelError, match=r"has the shape \(256, 784\); expected \(784, 256\)"):
        check(model, {**parameters, "fc1/kernel": parameters["fc1/kernel"].T})
    with pytest.raises(ModelError, match="initialiser is 'magic'"):
        start(model, 0, "magic")


def test_a_model_says_what_it_is():
    assert str(build("fc2", "mpo")) == "fc2 (mpo)"
    assert models.build("fc2").variant == "mpo"
