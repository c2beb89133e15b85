"""The layers of each network, one after the other, and the inference of their shapes."""

import pytest

from mponet.errors import ModelError
from mponet.models import VARIANTS, build, published, shapes
from mponet.models.shapes import operators
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
    PadChannels,
    ReLU,
    Reshape,
    Residual,
    global_maps,
)
from mponet.operators.shape import MPOShape


def network(*layers, input_shape=(6, 6, 1)):
    return Model("odd", "dense", None, input_shape, layers, "a test")


# ---------------------------------------------------------------- the networks


@pytest.mark.parametrize("variant", VARIANTS)
def test_lenet5_has_the_shapes_of_table_1(variant):
    outputs = [info.output_shape for info in shapes.layers(build("lenet5", variant)) if info.kind != "ReLU"]
    assert outputs[:4] == [(28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16)]
    assert outputs[-3:] == [(120,), (84,), (10,)]


def test_the_second_operator_of_fc2_splits_its_outputs_as_in_the_text_or_the_code():
    assert operators(build("fc2"))[1].shape == MPOShape.from_factors((4, 4, 4, 4), (1, 1, 10, 1), 4)
    assert operators(build("fc2-code"))[1].shape == MPOShape.from_factors((4, 4, 4, 4), (1, 10, 1, 1), 4)
    assert build("fc2-code", "dense").layers == build("fc2", "dense").layers


def spelled(name, variant):
    """Layers of a stretch as ``name`` or ``kind``, with the shape behind each."""
    return [(info.name or info.kind, info.output_shape) for info in shapes.leaves(build(name, variant))]


def test_vgg16_is_wired_as_in_the_authors_code():
    layers = spelled("vgg16", "mpo")
    start = layers.index(("bn5_1", (2, 2, 512)))
    flat, wide = (2048,), (4096,)
    assert layers[start - 1] == ("MaxPool", (2, 2, 512))
    assert layers[start:] == [
        *(("bn5_1", (2, 2, 512)), ("ReLU", (2, 2, 512)), ("Flatten", flat), ("conv5_1", flat)),
        *(("bn5_2", flat), ("ReLU", flat), ("conv5_2", flat), ("Reshape", (2, 2, 512))),
        *(("bn5_3", (2, 2, 512)), ("ReLU", (2, 2, 512)), ("conv5_3", (2, 2, 512))),
        *(("MaxPool", (1, 1, 512)), ("Flatten", (512,))),
        *(("fc1", wide), ("ReLU", wide), ("Dropout", wide), ("fc2", wide), ("ReLU", wide), ("Dropout", wide)),
        ("fc3", (10,)),
    ]


def test_vgg19_is_wired_as_in_the_authors_code():
    layers = spelled("vgg19", "mpo")
    start = layers.index(("conv5_2", (2, 2, 512)))
    flat, bent = (2048,), (2, 2, 512)
    assert layers[start : start + 10] == [
        *(("conv5_2", bent), ("bn5_3", bent), ("ReLU", bent), ("Flatten", flat), ("conv5_3", flat)),
        *(("bn5_4", flat), ("ReLU", flat), ("conv5_4", flat), ("Reshape", bent), ("MaxPool", (1, 1, 512))),
    ]


@pytest.mark.parametrize(
    ("name", "features", "kernels"),
    [
        ("vgg16", [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6, "33 33 331 331 331"),  # configuration C
        ("vgg19", [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8, "33 33 3333 3333 3333"),  # configuration E
    ],
)
def test_vgg_convolves_behind_norm_and_relu_without_bias(name, features, kernels):
    layers = build(name, "dense").layers
    convs = [layer for layer in layers if isinstance(layer, Conv2D)]
    assert [conv.features for conv in convs] == features
    assert [conv.kernel for conv in convs] == [(int(k), int(k)) for k in kernels.replace(" ", "")]
    assert all(not conv.bias and conv.stride == 1 and conv.padding == "SAME" for conv in convs)
    for at, layer in enumerate(layers):
        if isinstance(layer, Conv2D):
            assert isinstance(layers[at - 2], BatchNorm)  # in front of the first, too: on the image itself
            assert layers[at - 1] == ReLU()
    pooled = [info.output_shape for info in shapes.layers(build(name, "dense")) if info.kind == "MaxPool"]
    assert pooled == [(16, 16, 64), (8, 8, 128), (4, 4, 256), (2, 2, 512), (1, 1, 512)]


@pytest.mark.parametrize("name", published())
@pytest.mark.parametrize("variant", VARIANTS)
def test_only_vgg_drops_and_only_behind_its_wide_layers(name, variant):
    leaves = [info.layer for info in shapes.leaves(build(name, variant))]
    places = [at for at, layer in enumerate(leaves) if isinstance(layer, Dropout)]
    assert [leaves[at].rate for at in places] == ([0.2, 0.2] if name.startswith("vgg") else [])
    assert [(leaves[at - 2].name, leaves[at - 1]) for at in places] == [("fc1", ReLU()), ("fc2", ReLU())][: len(places)]


@pytest.mark.parametrize(("depth", "k"), [(8, 1), (14, 4), (20, 3)])
def test_a_resnet_has_three_groups_and_projects_from_behind_the_first_relu_of_each(depth, k):
    n = (depth - 2) // 6
    layers = build(f"resnet{depth}-k{k}", "dense").layers
    assert layers[0] == Conv2D("conv", 16, (3, 3), bias=False)
    at = 1
    for group, (width, stride) in enumerate(((16 * k, 1), (32 * k, 2), (64 * k, 2)), start=1):
        name = f"group{group}_block1"
        assert layers[at : at + 2] == (BatchNorm(f"{name}_bn1"), ReLU())
        body, shortcut = layers[at + 2].body, layers[at + 2].shortcut
        assert shortcut == (Conv2D(f"{name}_shortcut", width, (1, 1), stride, bias=False),)
        assert body == (
            Conv2D(f"{name}_conv1", width, (3, 3), stride, bias=False),
            *(BatchNorm(f"{name}_bn2"), ReLU()),
            Conv2D(f"{name}_conv2", width, (3, 3), bias=False),
        )
        for block in range(2, n + 1):
            assert layers[at + 1 + block].shortcut == ()
            assert layers[at + 1 + block].body[:2] == (BatchNorm(f"group{group}_block{block}_bn1"), ReLU())
            assert layers[at + 1 + block].body[2].stride == 1
        at += 2 + n
    assert layers[at:] == (BatchNorm("bn"), ReLU(), AvgPool(8, 8), Flatten(), Dense("fc", 10))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 7, 8, 10])
def test_a_resnet_of_any_width_has_operators_that_fit(k):
    head = operators(build(f"resnet14-k{k}"))[-1]
    assert head.shape == MPOShape.from_factors((4, 4, 4, k), (1, 5, 2, 1), 3)
    assert not build(f"resnet14-k{k}").layers[-1].bias
    for one in operators(build(f"resnet14-k{k}-unit"))[:-1]:
        assert one.shape.in_features == one.shape.out_features == 8 * 8 * 64 * k
        assert one.shape.sites == 8
        assert one.replaced_weights == 9 * (64 * k) ** 2


def test_the_head_of_a_resnet_gains_a_norm_and_a_relu_and_loses_its_bias():
    shape = MPOShape.from_factors((4, 4, 4, 4), (1, 5, 2, 1), 3)
    dense, mpo = build("resnet20", "dense").layers, build("resnet20", "mpo").layers
    assert mpo[:-3] == dense[:-1]
    assert mpo[-3:] == (BatchNorm("fc_bn"), ReLU(), Dense("fc", 10, bias=False, mpo=shape))


def test_the_last_unit_of_resnet_has_the_published_factors_and_an_identity_beside_it():
    unit = next(layer for layer in reversed(build("resnet56-unit").layers) if isinstance(layer, Residual))
    factors = (2, 4, 4, 4, 4, 4, 4, 2)
    shape = MPOShape.from_factors(factors, factors, 4)
    first, second = (Dense(f"group3_block9_conv{i}", 16_384, mpo=shape, replaces=9 * 256 * 256) for i in (1, 2))
    assert unit.shortcut == ()
    assert unit.body == (
        *(BatchNorm("group3_block9_bn1"), ReLU(), Flatten(), first),
        *(BatchNorm("group3_block9_bn2"), ReLU(), second, Reshape((8, 8, 256))),
    )


@pytest.mark.parametrize(("name", "n", "m", "k"), [("densenet40-12", 16, 12, 12), ("densenet16-5-n7", 7, 4, 5)])
def test_a_densenet_has_no_bottleneck_and_no_compression(name, n, m, k):
    layers = build(name, "dense").layers
    assert layers[0] == Conv2D("conv", n, (3, 3), bias=False)
    at, features = 1, n
    for block in (1, 2, 3):
        for layer in range(1, m + 1):
            part = f"block{block}_layer{layer}"
            conv = Conv2D(f"{part}_conv", k, (3, 3), bias=False)
            assert layers[at] == Concat((BatchNorm(f"{part}_bn"), ReLU(), conv))
            at, features = at + 1, features + k
        if block < 3:
            conv = Conv2D(f"transition{block}_conv", features, (1, 1), bias=False)
            assert layers[at : at + 4] == (BatchNorm(f"transition{block}_bn"), ReLU(), conv, AvgPool(2, 2))
            at += 4
    assert layers[at:] == (BatchNorm("bn"), ReLU(), AvgPool(8, 8), Flatten(), Dense("fc", 10))
    assert shapes.layers(build(name, "dense"))[-1].input_shape == (n + 3 * k * m,)


@pytest.mark.parametrize("name", ["densenet40-12", "densenet100-24", "densenet7-1", "densenet16-5-n7"])
def test_the_head_of_a_densenet_is_an_operator_of_four_cores(name):
    norm, relu, head = build(name).layers[-3:]
    assert (norm, relu, head.bias) == (BatchNorm("fc_bn"), ReLU(), False)
    assert (head.mpo.output_dims, head.mpo.sites) == ((1, 5, 2, 1), 4)


def test_maps_of_a_whole_feature_map_stay_flat_between_each_other():
    one, two = (Dense(name, 8, mpo=MPOShape.from_factors((4, 2), (4, 2), 2), replaces=9) for name in ("a", "b"))
    assert global_maps([one], (2, 2, 2)) == (Flatten(), one, Reshape((2, 2, 2)))
    between = (BatchNorm("n"), ReLU())
    assert global_maps([one, two], (2, 2, 2), ["n"]) == (Flatten(), one, *between, two, Reshape((2, 2, 2)))
    sizes = shapes.parameter_shapes(network(*global_maps([one, two], (2, 2, 2), ["n"]), input_shape=(2, 2, 2)))
    assert sizes["n/scale"] == sizes["a/bias"] == (8,)  # over all values, not over channels
    with pytest.raises(ValueError, match="zip"):
        global_maps([one, two], (2, 2, 2))


# ---------------------------------------------------------------- inference


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((Dense("a", 3),), "put a Flatten before it"),
        ((Flatten(), Conv2D("a", 3, (3, 3))), "expected a feature map"),
        ((Flatten(), MaxPool()), "expected a feature map"),
        ((Flatten(), PadChannels(1)), "expected a feature map"),
        ((AvgPool(8, 8),), "expected one of at least its size"),
        ((Conv2D("a", 3, (9, 9), padding="VALID"),), "expected one that fits the map"),
        ((Flatten(), Dense("a", 3), ReLU(), Dense("a", 3)), "two layers named a; expected different names"),
        ((Flatten(), Dense("a", 4, mpo=MPOShape.from_factors((2, 2), (2, 2), 2))), "expected 36 -> 4"),
        ((Reshape((6, 7, 1)),), "expected one of as many values"),
        ((Dropout(1.0),), r"rate is 1.0; expected a share in \[0, 1\)"),
        ((Dropout(-0.1),), r"rate is -0.1; expected a share in \[0, 1\)"),
        ((Residual((Conv2D("a", 2, (3, 3)),)),), r"body ends in \(6, 6, 2\), its shortcut in \(6, 6, 1\)"),
        ((Residual((), (MaxPool(),)),), r"body ends in \(6, 6, 1\), its shortcut in \(3, 3, 1\)"),
        ((Concat((MaxPool(),)),), r"body ends in \(3, 3, 1\); expected a map of 6 x 6"),
        ((Concat((Flatten(),)),), r"body ends in \(36,\); expected a map of 6 x 6"),
        ((Flatten(), Concat(())), "expected a feature map"),
        ((Conv2D("a", 1, (1, 1)), Residual((Conv2D("a", 1, (1, 1)),))), "two layers named a"),
        ((Residual((BatchNorm("a"),), (BatchNorm("a"),)),), "two layers named a"),
        ((Residual((Concat((Dense("a", 3),)),)),), "put a Flatten before it"),
    ],
)
def test_layers_that_do_not_follow_one_another_are_refused(layers, message):
    with pytest.raises(ModelError, match=message):
        shapes.layers(network(*layers))


def test_a_block_has_the_parameters_and_multiplications_of_what_is_inside():
    body, shortcut = (Conv2D("a", 2, (3, 3)), BatchNorm("b")), (Conv2D("c", 2, (1, 1), bias=False),)
    (info,) = shapes.layers(network(Residual(body, shortcut)))
    assert list(info.parameters) == ["a/kernel", "a/bias", "b/scale", "b/shift", "c/kernel"]
    assert list(info.statistics) == ["b/mean", "b/variance"]
    assert info.multiplications == 36 * (9 * 2 + 2)
    assert [[one.kind for one in branch] for branch in info.branches] == [["Conv2D", "BatchNorm"], ["Conv2D"]]
    assert info.output_shape == (6, 6, 2)
    (info,) = shapes.layers(network(Concat(body)))
    assert info.output_shape == (6, 6, 3)


def test_an_empty_branch_is_the_input_itself():
    (info,) = shapes.layers(network(Residual((ReLU(),))))
    assert info.output_shape == (6, 6, 1)
    (info,) = shapes.layers(network(Concat(())))
    assert info.output_shape == (6, 6, 2)


def test_the_average_of_a_whole_map_keeps_its_channels():
    assert shapes.layers(network(AvgPool(6, 6), input_shape=(6, 6, 3)))[0].output_shape == (1, 1, 3)
    assert shapes.layers(network(PadChannels(2)))[0].output_shape == (6, 6, 3)
