"""The outline of a network: what is folded, what it is called, and that nothing gets lost."""

import pytest

import small
from mponet.models import VARIANTS, build, published, shapes
from mponet.models.outline import TIMES, count, dimensions, outline
from mponet.models.spec import BatchNorm, Concat, Conv2D, Dense, Dropout, Flatten, MaxPool, Model, ReLU, Residual

NETWORKS = [
    *(model for variant in VARIANTS for model in small.networks(variant)),
    *(build(name, variant) for name in published() for variant in VARIANTS),
]


def network(*layers):
    return Model("odd", "dense", None, (6, 6, 2), layers, "a test")


def block(name, features=2, **options):
    return Residual((BatchNorm(f"{name}_bn"), ReLU(), Conv2D(f"{name}_conv", features, (3, 3), **options)))


def leaves(lines):
    for line in lines:
        if line.branches:
            for branch in line.branches:
                yield from leaves(branch)
        else:
            yield from line.infos


def shown(line):
    return line.name, line.title, line.output, line.parameters


@pytest.mark.parametrize("model", NETWORKS, ids=str)
def test_every_layer_is_in_one_line(model):
    found = [id(info.layer) for info in leaves(outline(model))]
    assert sorted(found) == sorted(id(info.layer) for info in shapes.leaves(model))
    assert sum(line.parameters for line in outline(model)) == shapes.parameter_count(model)


@pytest.mark.parametrize("model", NETWORKS, ids=str)
def test_the_lines_inside_add_up_to_their_block(model):
    for line in outline(model):
        if line.branches:
            assert line.parameters == sum(inside.parameters for branch in line.branches for inside in branch)


def test_blocks_that_are_alike_are_one_line():
    first, second = outline(build("resnet110"))[3:5]
    assert shown(first) == ("group1_block1", "Residual", "32x32x64", 47_232)
    assert shown(second) == ("group1_block2..18", f"Residual {TIMES}17", "32x32x64", 17 * 73_984)
    (body, shortcut), (_, identity) = first.branches, second.branches
    assert [line.name for line in body] == ["conv1", "bn2", "", "conv2"]
    assert [line.title for line in shortcut] == ["Conv2D 1x1"]
    assert identity == ()


def test_blocks_that_grow_are_one_line_with_the_range():
    first = outline(build("densenet40-12"))[1]
    # m layers of 9 k weights and two numbers of a norm for each of their n + i k inputs
    inputs = sum(16 + 12 * i for i in range(12))
    assert shown(first) == ("block1_layer1..12", f"Concat {TIMES}12", "32x32x28..160", (9 * 12 + 2) * inputs)
    assert [shown(line) for line in first.branches[0]] == [
        ("bn", "BatchNorm", "32x32x16..148", 2 * inputs),
        ("", "ReLU", "32x32x16..148", 0),
        ("conv", "Conv2D 3x3", "32x32x12", 9 * 12 * inputs),
    ]


def test_what_differs_in_more_than_names_and_sizes_is_not_folded():
    odd = block("c", bias=False)
    lines = outline(network(block("a"), block("b"), odd, block("d"), ReLU(), block("e")))
    assert [(line.name, line.title) for line in lines] == [
        ("a..b", f"Residual {TIMES}2"),
        ("c", "Residual"),
        ("d", "Residual"),
        ("", "ReLU"),
        ("e", "Residual"),
    ]
    assert len(outline(network(ReLU(), ReLU(), MaxPool(), MaxPool()))) == 4  # only blocks are
    (line,) = outline(network(block("one_2"), block("two_3")))
    assert line.name == "one_2..two_3"  # and no number stands for another beginning


def test_the_replaced_block_stands_apart():
    names = [(line.name, len(line.infos)) for line in outline(build("resnet56-unit")) if line.branches]
    assert names[-2:] == [("group3_block2..8", 7), ("group3_block9", 1)]
    assert [line.name for line in outline(build("resnet56", "dense")) if line.branches][-1] == "group3_block2..9"


def test_blocks_inside_blocks_are_folded_too():
    inside = Concat((Conv2D("x_one_conv", 1, (1, 1)),)), Concat((Conv2D("x_two_conv", 1, (1, 1)),))
    (line,) = outline(network(Residual(inside, (Conv2D("x_conv", 4, (1, 1)),))))
    assert line.name == "x"
    assert [(one.name, one.title, one.output) for one in line.branches[0]] == [
        ("x_one..x_two", f"Concat {TIMES}2", "6x6x3..4")
    ]


def test_blocks_without_names_inside_have_none():
    (line,) = outline(network(Residual((ReLU(),)), Residual((ReLU(),))))
    assert (line.name, line.title) == ("", f"Residual {TIMES}2")


def test_settings_that_are_not_the_usual_ones_are_in_the_title():
    layers = (
        *(Conv2D("a", 2, (5, 3), 2, "VALID"), MaxPool(1, 1), MaxPool(1, 2), Dropout(0.2)),
        *(Flatten(), Dense("b", 10)),
    )
    assert [line.title for line in outline(network(*layers))] == [
        *("Conv2D 5x3, stride 2, VALID", "MaxPool 1x1", "MaxPool 1x1, stride 2", "Dropout 0.2"),
        *("Flatten", "Dense"),
    ]
    assert outline(build("fc2"))[1].title == "MPO"
    assert "PadChannels 4" in [one.title for one in outline(build("densenet40-12-conv"))[-8].branches[0]]


def test_numbers_for_people():
    assert (count(0), count(15_104), count(4_016_491_008)) == ("0", "15 104", "4 016 491 008")
    assert (dimensions((28, 28, 1)), dimensions((8, 8, 3), (8, 8, 9)), dimensions((7,))) == ("28x28x1", "8x8x3..9", "7")
