"""The networks as data: counts and ratios of the paper, names, and what is refused."""

import pytest

from core.paper import FIGURE_2_WEIGHTS, MILLIONS, ROWS, VGG_OPERATORS
from mponet import models
from mponet.errors import ModelError
from mponet.models import FAMILIES, VARIANTS, build, full_name, shapes
from mponet.models.shapes import operators
from mponet.operators.measure import parameter_ratio
from mponet.operators.shape import MPOShape


def weights(model):
    return sum(operator.shape.parameters for operator in operators(model))


def total(name, variant, kinds):
    """Sum of the parameters of layers of some kinds, written out without `shapes.counts`."""
    return sum(info.size for info in shapes.leaves(build(name, variant)) if info.kind in kinds)


# ---------------------------------------------------------------- counts and ratios


@pytest.mark.parametrize("name", ROWS)
def test_every_network_has_the_counts_and_ratios_of_the_paper(name):
    row, dense, mpo = ROWS[name], build(name, "dense"), build(name, "mpo")
    assert shapes.parameter_count(dense) == shapes.counts(dense).parameters == row.dense
    assert shapes.parameter_count(mpo) == shapes.counts(mpo).parameters == row.mpo
    assert sum(operator.replaced_weights for operator in operators(mpo)) == row.replaced
    assert weights(mpo) == row.weights
    assert shapes.compression_ratio(mpo) == row.weights / row.replaced
    assert f"{shapes.compression_ratio(mpo):.{len(row.rho) - 2}f}" == row.rho
    assert f"{parameter_ratio(row.mpo, row.dense):.{len(row.whole) - 2}f}" == row.whole


@pytest.mark.parametrize("name", MILLIONS)
def test_the_normal_networks_multiply_as_often_as_in_the_paper(name):
    found = sum(info.multiplications for info in shapes.layers(build(name, "dense")))
    assert round(found / 1e6) == MILLIONS[name]


@pytest.mark.parametrize(("name", "convs"), [("vgg16", ("conv5_1", "conv5_2")), ("vgg19", ("conv5_3", "conv5_4"))])
def test_the_operators_of_vgg_are_those_of_table_1(name, convs):
    found = {
        each.name: (each.shape.input_dims, each.shape.output_dims, each.shape.parameters, each.replaced_weights)
        for each in operators(build(name))
    }
    assert found == dict(zip((*convs, "fc1", "fc2", "fc3"), VGG_OPERATORS.values(), strict=True))
    assert {operator.shape.bond_dims for operator in operators(build(name))} == {(1, 4, 4, 4, 4, 1)}


@pytest.mark.parametrize(
    ("name", "convs", "norms", "dense"),
    [
        ("vgg16", 9_991_872, 7_430, 18_915_328 + 8_202),
        ("vgg19", 20_018_880, 9_990, 18_915_328 + 8_202),
        ("resnet20", 4_290_992, 5_408, 2_570),
    ],
)
def test_the_parts_of_the_normal_networks_add_up(name, convs, norms, dense):
    assert total(name, "dense", {"Conv2D"}) == convs
    assert total(name, "dense", {"BatchNorm"}) == shapes.counts(build(name, "dense")).norms == norms
    assert total(name, "dense", {"Dense"}) == dense


@pytest.mark.parametrize(
    ("name", "biases", "norms"),
    [
        ("fc2", 256 + 10, 0),
        ("lenet5", 6 + 16 + 120 + 84 + 10, 0),
        # a bias for each of the 2048 outputs of both maps, none in the last layer; the norm between
        # them is over 2048
        ("vgg16", 2 * 2048 + 2 * 4096, 7_430 - 2 * 512 + 2 * 2048),
        ("vgg19", 2 * 2048, 9_990 - 2 * 512 + 2 * 2048),
        # the head gains a norm over its inputs and loses its bias
        ("resnet20", 0, 5_408 + 2 * 256),
        ("densenet40-12", 0, None),
        ("resnet56-unit", 2 * 16_384, None),
        ("densenet40-12-conv", 8 * 8 * 12, None),
    ],
)
def test_what_only_the_mpo_nets_have(name, biases, norms):
    counts = shapes.counts(build(name))
    assert counts.biases == biases
    assert norms is None or counts.norms == norms


def test_the_last_unit_of_resnet_brings_more_norms_and_biases_than_weights():
    dense, unit = shapes.counts(build("resnet56")), shapes.counts(build("resnet56-unit"))
    assert unit.norms - dense.norms == 2 * 16_384 - 2 * 256
    assert unit.weights - dense.weights == 2 * 1568 - 2 * 9 * 256 * 256


@pytest.mark.parametrize("name", models.published())
@pytest.mark.parametrize("variant", VARIANTS)
def test_running_statistics_are_no_parameters(name, variant):
    model = build(name, variant)
    assert shapes.counts(model).statistics == shapes.counts(model).norms
    assert not set(shapes.statistic_shapes(model)) & set(shapes.parameter_shapes(model))


@pytest.mark.parametrize("bond", FIGURE_2_WEIGHTS)
def test_fc2_has_the_compression_ratios_of_figure_2(bond):
    for name in ("fc2", "fc2-code"):
        model = build(name, "mpo", bond)
        assert weights(model) == FIGURE_2_WEIGHTS[bond]
        assert shapes.compression_ratio(model) == FIGURE_2_WEIGHTS[bond] / 203_264


def test_lenet5_has_the_operators_of_table_1():
    found = operators(build("lenet5"))
    assert [operator.shape.parameters for operator in found] == [1792, 944, 124]
    assert [operator.replaced_weights for operator in found] == [48_000, 10_080, 840]


def test_bonds_beyond_the_exact_maximum_are_clamped_as_in_figure_2():
    assert operators(build("fc2", "mpo", 22))[0].shape.bond_dims == (1, 16, 22, 16, 1)


def test_the_last_convolution_of_densenet_has_the_clamped_bonds_and_a_padded_input():
    model = build("densenet40-12-conv")
    conv, head = operators(model)
    assert (conv.shape.bond_dims, conv.shape.parameters) == ((1, 8, 20, 20, 20, 8, 1), 31_888)
    assert (conv.shape.in_features, conv.replaced_weights) == (8 * 8 * 440, 9 * 436 * 12)
    assert f"{shapes.compression_ratio(model):.2f}" == "0.63"
    assert head.shape == operators(build("densenet40-12"))[0].shape


# ---------------------------------------------------------------- low rank


@pytest.mark.parametrize("name", models.published())
@pytest.mark.parametrize("bond", [None, 1, 3, 22])
def test_low_rank_operators_have_factors_of_one_and_the_nearest_number_of_weights(name, bond):
    pairs = zip(operators(build(name, "low-rank", bond)), operators(build(name, "mpo", bond)), strict=True)
    for low_rank, mpo in pairs:
        n, m = low_rank.shape.in_features, low_rank.shape.out_features
        assert (low_rank.shape.input_dims, low_rank.shape.output_dims) == ((n, 1), (1, m))
        assert (low_rank.name, low_rank.replaced_weights) == (mpo.name, mpo.replaced_weights)
        possible = [rank * (n + m) for rank in range(1, min(n, m) + 1)]
        least = min(abs(weights - mpo.shape.parameters) for weights in possible)
        assert abs(low_rank.shape.parameters - mpo.shape.parameters) == least


@pytest.mark.parametrize("bond", FIGURE_2_WEIGHTS)
def test_fc2_has_the_low_rank_weights_counted_by_hand(bond):
    """1040 weights per rank of the first layer, rank 3 of 266 for the 736 of the second."""
    first = operators(build("fc2", "mpo", bond))[0].shape.parameters
    rank = max(1, round(first / 1040))
    assert weights(build("fc2", "low-rank", bond)) == 1040 * rank + 3 * 266


def test_the_low_rank_variant_differs_in_nothing_else():
    for name in models.published():
        mpo, low_rank = build(name), build(name, "low-rank")
        kinds = [[info.kind for info in shapes.leaves(model)] for model in (mpo, low_rank)]
        assert kinds[0] == kinds[1]
        assert shapes.counts(mpo).biases == shapes.counts(low_rank).biases
        assert shapes.counts(mpo).norms == shapes.counts(low_rank).norms


@pytest.mark.parametrize("name", models.published())
def test_the_published_bonds_are_the_default_and_another_one_is_asked_of_all_operators(name):
    assert build(name).bond is None
    asked = [operator.shape for operator in operators(build(name, "mpo", 3))]
    for ours, published in zip(asked, [operator.shape for operator in operators(build(name))], strict=True):
        fixed = name == "fc2" and published.output_dims == (1, 1, 10, 1)  # Fig. 2 varies the first layer's alone
        wanted = published if fixed else MPOShape.from_factors(published.input_dims, published.output_dims, 3)
        assert ours == wanted


@pytest.mark.parametrize("name", models.published())
def test_the_normal_networks_have_no_ratio(name):
    assert shapes.compression_ratio(build(name, "dense")) is None


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [*models.published(), "fc2-code", "resnet8", "resnet1202", "resnet20-k1", "resnet32-k10-unit", "densenet22-24-n16"],
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_name_comes_back_from_its_network(name, variant):
    model = build(name, variant)
    assert (model.name, model.variant) == (name, variant)
    assert build(model.name, variant) == model


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("resnet20-k4", "resnet20"),
        ("resnet56-k4-unit", "resnet56-unit"),
        ("resnet020", "resnet20"),
        ("densenet40-12-n16", "densenet40-12"),
        ("densenet40-12-n16-conv", "densenet40-12-conv"),
        ("densenet100-24-n96", "densenet100-24"),
        ("densenet22-10-n20", "densenet22-10"),
    ],
)
def test_what_goes_without_saying_is_left_out_of_the_name(alias, name):
    assert build(alias) == build(name)
    assert build(alias).name == name


@pytest.mark.parametrize(
    ("arguments", "options", "name"),
    [
        (("resnet20",), {}, "resnet20"),
        (("resnet20", 2), {"unit": True}, "resnet20-k2-unit"),
        (("resnet20", 4), {}, "resnet20"),
        (("resnet20-unit", 2), {}, "resnet20-k2-unit"),
        (("resnet20-k2", 2), {"unit": True}, "resnet20-k2-unit"),
        (("resnet20-unit",), {"unit": True}, "resnet20-unit"),
        (("densenet40-12",), {"conv": True}, "densenet40-12-conv"),
        (("vgg16",), {}, "vgg16"),
    ],
)
def test_a_name_is_completed_by_what_is_said_beside_it(arguments, options, name):
    assert full_name(*arguments, **options) == name


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("vgg16", 2), {}, "k is given for vgg16; expected a network of the resnet family"),
        (("fc2",), {"unit": True}, "unit is given for fc2; expected a network of the resnet family"),
        (("resnet20",), {"conv": True}, "conv is given for resnet20; expected a network of the densenet family"),
        (("densenet40-12", 12), {}, "k is given for densenet40-12; expected a network of the resnet family"),
        (("resnet20-k2", 3), {}, "k is 3 for resnet20-k2; expected 2, as in its name"),
        (("resnet20", 0), {}, "resnet20-k0 has depth 20 and k 0; expected a depth of 6n"),
        (("resnet20", -1), {}, "model is 'resnet20-k-1'"),
        (("densenet40-24",), {"conv": True}, "expected densenet40-12-conv"),
        (("resnet", 2), {}, "model is 'resnet'"),
    ],
)
def test_what_does_not_complete_a_name_is_refused(arguments, options, message):
    with pytest.raises(ModelError, match=message):
        full_name(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fc3",), "model is 'fc3'; expected one of fc2.*lenet5, vgg16, vgg19, resnet<6n\\+2>"),
        (("vgg17",), "model is 'vgg17'; expected one of"),
        (("vgg",), "model is 'vgg'; expected one of"),
        (("resnet20-conv",), "model is 'resnet20-conv'"),
        (("resnet20-unit-k2",), "model is 'resnet20-unit-k2'"),
        (("densenet40",), "model is 'densenet40'"),
        (("lenet5 ",), "model is 'lenet5 '"),
        (("resnet21",), "resnet21 has depth 21 and k 4; expected a depth of 6n \\+ 2 \\(8, 14, 20"),
        (("resnet2",), "resnet2 has depth 2"),
        (("resnet20-k0",), "resnet20-k0 has depth 20 and k 0; .* k from 1"),
        (("resnet8-unit",), "resnet8-unit has one block in each group, whose shortcut changes shape"),
        (("densenet41-12",), "densenet41-12 has depth 41, k 12, n 24; expected a depth of 3m \\+ 4 \\(7, 10"),
        (("densenet4-12",), "densenet4-12 has depth 4"),
        (("densenet40-0",), "has depth 40, k 0"),
        (("densenet40-12-n0",), "k 12, n 0"),
        (("densenet40-24-conv",), "densenet40-24-conv has no published factors .* expected densenet40-12-conv"),
        (("densenet40-12-n20-conv", "dense"), "densenet40-12-n20-conv has no published factors"),
        (("fc2", "tt"), "variant is 'tt'; expected one of dense, mpo"),
        (("fc2", "dense", 4), "bond is 4 for the dense variant of fc2; expected none"),
        (("vgg16", "mpo", 0), "bond is 0; expected a whole number of at least 1"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(arguments, message):
    with pytest.raises(ModelError, match=message):
        build(*arguments)


def test_every_name_belongs_to_the_family_that_publishes_it():
    for family in FAMILIES.values():
        assert all(models.family(name) is family for name in family.published)
        assert all(name.startswith(family.name) for name in family.published)


def test_a_model_says_what_it_is():
    assert str(build("fc2", "mpo")) == "fc2 (mpo)"
    assert build("fc2").variant == "mpo"
    assert all("PRR 2, 023300 (2020), " in build(name).source for name in models.published())
