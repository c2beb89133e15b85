"""Text diagrams: what they look like, and that everything can be read off them again."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mponet.draw import diagram, sheet
from mponet.draw.text import sites
from mponet.models import build, shapes
from mponet.models.outline import TIMES
from mponet.models.spec import BatchNorm, Concat, Conv2D, Dense, Model, ReLU, Residual, global_maps
from mponet.operators.mpo import MPO
from mponet.operators.nodes import network
from mponet.operators.shape import MPOShape

FC2 = """\
fc2 (mpo)                                                    shape    parameters

  image                                                    28x28x1
  │
  ├─ Flatten                                                   784
  │
  ├─ fc1: MPO M^{4,4,4,4}_{4,7,7,4}(16)                        256        15 104
  │
  │    outputs      4              4              4              4
  │                 │              │              │              │
  │             ┌───┴───┐      ┌───┴───┐      ┌───┴───┐      ┌───┴───┐
  │             │ core1 ├─ 16 ─┤ core2 ├─ 16 ─┤ core3 ├─ 16 ─┤ core4 │
  │             └───┬───┘      └───┬───┘      └───┬───┘      └───┬───┘
  │                 │              │              │              │
  │    inputs       4              7              7              4
  │
  ├─ ReLU                                                      256
  │
  ├─ fc2: MPO M^{1,1,10,1}_{4,4,4,4}(4)                         10           746
  │
  │    outputs      1             1             10            1
  │                 │             │             │             │
  │             ┌───┴───┐     ┌───┴───┐     ┌───┴───┐     ┌───┴───┐
  │             │ core1 ├─ 4 ─┤ core2 ├─ 4 ─┤ core3 ├─ 4 ─┤ core4 │
  │             └───┬───┘     └───┬───┘     └───┬───┘     └───┬───┘
  │                 │             │             │             │
  │    inputs       4             4             4             4
  ▼
  logits                                                        10

15 850 parameters, 266 of them biases
rho = 0.07667: 15 584 weights in cores replace 203 264"""

BLOCKS = f"""\
blocks (mpo)                                                 shape    parameters

  image                                                      4x4x2
  │
  ├──┐ a: Residual                                           4x4x3            67
  │  ├─ bn: BatchNorm                                        4x4x2             4
  │  ├─ ReLU                                                 4x4x2
  │  ├─ conv: Conv2D 3x3                                     4x4x3            57
  ■  │ shortcut: Conv2D 1x1                                  4x4x3             6
  ■  │ ReLU                                                  4x4x3
  +──┘
  │
  ├──┐ b1..3: Residual {TIMES}3                                    4x4x3           270
  │  ├─ conv1: Conv2D 3x3                                    4x4x3           252
  │  ├─ bn: BatchNorm                                        4x4x3            18
  +──┘
  │
  ├──┐ c1..2: Concat {TIMES}2                                   4x4x5..7           156
  │  ├─ conv: Conv2D 3x3                                     4x4x2           148
  │  ├─ bn: BatchNorm                                        4x4x2             8
  ├──┘ more channels
  │
  ├──┐ d: Residual                                           4x4x7           646
  │  ├─ Flatten                                                112
  │  ├─ map: MPO M^{{8,14}}_{{8,14}}(2)                            112           632
  │  │
  │  │    outputs      8             14
  │  │                 │             │
  │  │             ┌───┴───┐     ┌───┴───┐
  │  │             │ core1 ├─ 2 ─┤ core2 │
  │  │             └───┬───┘     └───┬───┘
  │  │                 │             │
  │  │    inputs       8             14
  │  ├─ Reshape                                              4x4x7
  │  ├─ norm: BatchNorm                                      4x4x7            14
  +──┘
  ▼
  logits                                                     4x4x7

1 139 parameters, 128 of them biases
rho = 0.04145: 520 weights in cores replace 12 544"""

LONG = """\
outputs    3        3        3        3        3
           │        │        │        │        │
         ┌─┴─┐    ┌─┴─┐    ┌─┴─┐    ┌─┴─┐    ┌─┴─┐
cores    │ 1 ├─6──┤ 2 ├─20─┤ 3 ├─20─┤ 4 ├─20─┤ 5 ├─20─▸
         └─┬─┘    └─┬─┘    └─┬─┘    └─┬─┘    └─┬─┘
           │        │        │        │        │
inputs     2        2        2        2        2

outputs      3        3        3        3        3
             │        │        │        │        │
           ┌─┴─┐    ┌─┴─┐    ┌─┴─┐    ┌─┴─┐    ┌─┴─┐
cores    ▸─┤ 6 ├─20─┤ 7 ├─20─┤ 8 ├─20─┤ 9 ├─6──┤ 10│
           └─┬─┘    └─┬─┘    └─┬─┘    └─┬─┘    └─┬─┘
             │        │        │        │        │
inputs       2        2        2        2        2"""


def read(text):
    """The dimensions in a diagram as a reader sees them: outputs, inputs, bonds, box names."""
    rows = [block.splitlines() for block in text.split("\n\n")]
    outputs = [int(n) for row in rows for n in re.findall(r"\d+", row[0])]
    inputs = [int(n) for row in rows for n in re.findall(r"\d+", row[-1])]
    chain = "".join(row[3].removeprefix("cores").strip() for row in rows).replace("▸▸─", "")
    bonds = [int(n) for n in re.findall(r"├─* ?(\d+) ?─*┤", chain)]
    names = re.findall(r"[│┤] *(core\d+|\d+) *[├│]", chain)
    return outputs, inputs, bonds, names


@st.composite
def long_shapes(draw):
    sizes = st.integers(1, 70)
    count = draw(st.integers(1, 30))
    factors = [draw(st.lists(sizes, min_size=count, max_size=count)) for _ in range(2)]
    bonds = draw(st.lists(st.integers(1, 1200), min_size=count - 1, max_size=count - 1))
    return MPOShape.from_factors(*factors, bonds)


def test_fc2_looks_like_this():
    assert sheet(build("fc2")) == FC2


def test_long_chains_go_on_in_the_next_row():
    assert diagram(MPOShape.from_factors((2,) * 10, (3,) * 10, 20)) == LONG


@given(long_shapes())
def test_a_diagram_says_every_factor_and_bond(shape):
    outputs, inputs, bonds, names = read(diagram(shape))
    assert (tuple(outputs), tuple(inputs), tuple(bonds)) == (shape.output_dims, shape.input_dims, shape.bond_dims[1:-1])
    numbers = [str(k) for k in range(1, shape.sites + 1)]
    assert names in (numbers, [f"core{n}" for n in numbers])


@given(long_shapes(), st.integers(30, 100))
def test_a_diagram_stays_within_its_width(shape, width):
    lines = diagram(shape, width).splitlines()
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)


@given(long_shapes())
def test_legs_and_boxes_stand_in_line(shape):
    for block in diagram(shape).split("\n\n"):
        lines = block.splitlines()
        legs = [column for column, sign in enumerate(lines[1]) if sign == "│"]
        assert legs == [column for column, sign in enumerate(lines[5]) if sign == "│"]
        assert all(lines[2][column] == "┴" and lines[4][column] == "┬" for column in legs)


@pytest.mark.parametrize(
    "shape", [MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 16), MPOShape.from_factors((6,), (5,), 3)]
)
def test_what_is_drawn_is_the_node_graph(shape):
    nodes = network(MPO(shape, tuple(np.zeros(size) for size in shape.core_shapes)))
    for site, node in zip(sites(shape), nodes, strict=True):
        assert site.name == node.name
        assert site.output_dim == node["output"].dimension
        assert site.input_dim == node["input"].dimension
        bond = node["right"].dimension if "right" in node.axis_names else None
        assert site.bond_dim == bond


def test_the_bond_that_is_drawn_is_the_one_there_is_not_the_one_asked_for():
    assert read(diagram(MPOShape.from_factors((2, 2), (2, 2), 1000)))[2] == [4]


def test_blocks_have_a_wire_of_their_own_and_are_drawn_once():
    layers = (
        Residual(
            (BatchNorm("a_bn"), ReLU(), Conv2D("a_conv", 3, (3, 3))),
            (Conv2D("a_shortcut", 3, (1, 1), bias=False), ReLU()),
        ),
        *(Residual((Conv2D(f"b{i}_conv1", 3, (3, 3)), BatchNorm(f"b{i}_bn"))) for i in (1, 2, 3)),
        *(Concat((Conv2D(f"c{i}_conv", 2, (3, 3)), BatchNorm(f"c{i}_bn"))) for i in (1, 2)),
        Residual(
            (
                *global_maps([Dense("d_map", 112, mpo=MPOShape.from_factors((8, 14), (8, 14), 2))], (4, 4, 7)),
                BatchNorm("d_norm"),
            )
        ),
    )
    assert sheet(Model("blocks", "mpo", None, (4, 4, 2), layers, "a test")) == BLOCKS


NETWORKS = ("fc2", "lenet5", "vgg16", "vgg19", "resnet8", "resnet116", "resnet20-k3-unit", "resnet56-unit")
NETWORKS += ("densenet40-12-conv", "densenet100-24", "densenet7-1")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("variant", ["dense", "mpo"])
@pytest.mark.parametrize("bond", [None, 1, 200])
def test_every_network_fits_a_terminal(name, variant, bond):
    text = sheet(build(name, variant, bond if variant == "mpo" else None))
    assert max(map(len, text.splitlines())) <= 80
    assert ("rho" in text) == (variant == "mpo")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("variant", ["dense", "mpo"])
def test_a_drawing_counts_and_draws_everything(name, variant):
    model = build(name, variant)
    text = sheet(model)
    rows = re.findall(r"^  ├─.{62}(.{14})$", text, flags=re.MULTILINE)  # on the outer wire: blocks count what is inside
    assert sum(int(row.replace(" ", "")) for row in rows) == shapes.parameter_count(model)
    assert text.count("outputs  ") >= len(shapes.operators(model))
    for info in shapes.leaves(model):
        for operator in info.operators:
            wires = "  │  │" if re.match("group|block", info.layer.name) else "  │"
            lines = [
                f"{wires}    {line}".rstrip() for line in diagram(operator.shape, 80 - len(wires) - 4).splitlines()
            ]
            assert "\n".join(lines) in text


def test_a_deep_network_is_no_longer_than_a_shallow_one():
    assert len(sheet(build("resnet116")).splitlines()) == len(sheet(build("resnet20")).splitlines())
    assert len(sheet(build("densenet100-12")).splitlines()) == len(sheet(build("densenet40-12")).splitlines())


def test_drawing_needs_no_memory_for_the_cores():
    # a core of half a terabyte
    assert read(diagram(MPOShape.from_factors((1024, 1024, 1024), (1024, 1024, 1024), 65536)))[2] == [65536, 65536]


def test_a_drawing_is_the_same_in_every_process():
    code = f"import sys; sys.path[:0] = {sys.path!r}\nfrom mponet.draw import sheet; from mponet.models import build\n"
    code += "sys.stdout.buffer.write(sheet(build('lenet5')).encode())"
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        )
        assert run.stdout.decode() == sheet(build("lenet5"))
