"""``mponet info``: the figures of the paper as JSON and as tables.  Needs click and rich."""

import re

import pytest

from core.command import facts, run
from core.paper import FIGURE_2_WEIGHTS, MILLIONS, ROWS, VGG_OPERATORS
from mponet.contraction.machine import DEFAULT_COSTS, DEFAULTS
from mponet.draw import render
from mponet.models import build, published, shapes
from mponet.models.outline import TIMES


@pytest.fixture(autouse=True)
def _a_screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize("bond", FIGURE_2_WEIGHTS)
def test_rho_of_fc2_is_that_of_figure_2(bond):
    assert facts("info", "fc2", "--bond", str(bond))["rho"] == FIGURE_2_WEIGHTS[bond] / 203264


@pytest.mark.parametrize("name", ROWS)
def test_info_has_the_totals_and_ratios_of_the_paper(name):
    row, dense, mpo = ROWS[name], facts("info", name, "--variant", "dense"), facts("info", name, "--variant", "mpo")
    assert dense["parameters"] == mpo["dense_parameters"] == row.dense
    assert mpo["parameters"] == row.mpo
    assert (mpo["mpo_weights"], mpo["replaced_weights"]) == (row.weights, row.replaced)
    assert mpo["rho"] == row.weights / row.replaced
    assert f"{mpo['rho']:.{len(row.rho) - 2}f}" == row.rho
    assert f"{mpo['parameter_ratio']:.{len(row.whole) - 2}f}" == row.whole
    for found in (dense, mpo):
        assert found["weights"] + found["biases"] + found["norms"] == found["parameters"]
        assert found["statistics"] == found["norms"]
        assert found["parameters"] == sum(layer["parameters"] for layer in found["layers"])


@pytest.mark.parametrize("name", MILLIONS)
def test_info_has_the_multiplications_of_the_paper(name):
    found = facts("info", name, "--variant", "dense")
    assert round(found["multiplications"] / 1e6) == MILLIONS[name]
    assert found["plan_multiplications"] == found["dense_multiplications"] == found["multiplications"]
    assert facts("info", name)["dense_multiplications"] == found["multiplications"]


def test_info_has_every_operator_of_vgg():
    found = facts("info", "vgg16")
    rows = {layer["name"]: layer for layer in found["layers"] if "notation" in layer}
    assert list(rows) == ["conv5_1", "conv5_2", "fc1", "fc2", "fc3"]
    for row, (inputs, outputs, weights, replaced) in zip(rows.values(), VGG_OPERATORS.values(), strict=True):
        assert (row["input_dims"], row["output_dims"]) == (list(inputs), list(outputs))
        assert (row["mpo_weights"], row["replaced_weights"]) == (weights, replaced)
    # an operator multiplies less than its matrix would, and the totals say so
    saved = sum(row["multiplications"] - row["plan_multiplications"] for row in rows.values())
    assert saved > 0
    assert found["multiplications"] - found["plan_multiplications"] == saved


def test_info_gives_programs_every_layer_inside_the_blocks():
    found = facts("info", "resnet14", "--unit")
    first, last = (layer for layer in (found["layers"][3], found["layers"][-8]))
    assert (first["kind"], first["name"]) == ("Residual", None)
    assert [layer["name"] for layer in first["shortcut"]] == ["group1_block1_shortcut"]
    assert first["body"][0]["name"] == "group1_block1_conv1"
    assert [layer["mpo_weights"] for layer in last["body"] if "notation" in layer] == [1568, 1568]
    assert last["shortcut"] == []
    assert "shortcut" not in facts("info", "densenet7-1")["layers"][1]


def test_info_of_fc2_has_everything():
    found = facts("info", "fc2", "--variant", "mpo", "--bond", "16")
    first = next(layer for layer in found["layers"] if layer["name"] == "fc1")
    assert first.pop("plan")
    assert first.pop("plan_multiplications") <= 200704
    assert first.pop("plan_merge_multiplications") >= 0
    assert first == {
        "name": "fc1",
        "kind": "Dense",
        "input_shape": [784],
        "output_shape": [256],
        "parameters": 14848 + 256,
        "multiplications": 200704,
        "notation": "M^{4,4,4,4}_{4,7,7,4}(16)",
        "input_dims": [4, 7, 7, 4],
        "output_dims": [4, 4, 4, 4],
        "bond_dims": [1, 16, 16, 16, 1],
        "mpo_weights": 14848,
        "replaced_weights": 200704,
    }
    assert [layer["kind"] for layer in found["layers"]] == ["Flatten", "Dense", "ReLU", "Dense"]
    totals = {key: found[key] for key in ("model", "variant", "bond", "parameters", "weights", "dense_parameters")}
    assert totals == {
        "model": "fc2",
        "variant": "mpo",
        "bond": 16,
        "parameters": 15850,
        "weights": 15584,
        "dense_parameters": 203264,
    }
    assert found["parameter_ratio"] == 15850 / 203264
    assert "PRR 2, 023300" in found["source"]


def test_the_published_bond_is_the_default():
    assert facts("info", "fc2")["rho"] == facts("info", "fc2", "--bond", "16")["rho"]
    assert facts("info", "fc2")["bond"] is None


def test_lenet5_has_the_published_ratio():
    assert facts("info", "lenet5")["rho"] == 2860 / 58920


@pytest.mark.parametrize(("name", "parameters"), [("fc2", 203264), ("lenet5", 61612)])
def test_the_dense_variant_has_no_rho(name, parameters):
    found = facts("info", name, "--variant", "dense")
    assert (found["parameters"], found["rho"], found["parameter_ratio"]) == (parameters, None, 1.0)
    assert not any("notation" in layer for layer in found["layers"])


def test_the_table_shows_rho_beside_the_whole_ratio():
    text = run("info", "fc2", "--bond", "8").stdout
    assert re.search(r"parameters +4 842  of 203 264: whole ratio 0.02382", text)
    assert re.search(r"rho +0.02251  Eq. 9: 4 576 weights for 203 264", text)
    assert "M^{4,4,4,4}_{4,7,7,4}(8)" in text


def test_the_table_of_a_dense_network_says_that_there_is_no_rho():
    text = run("info", "lenet5", "--variant", "dense").stdout
    assert re.search(r"rho +none  nothing is replaced", text)
    assert "whole ratio" not in text
    assert "plans" not in text


@pytest.mark.parametrize("name", ["resnet116", "vgg19", "resnet56-unit", "densenet100-24", "densenet40-12-conv"])
@pytest.mark.parametrize("variant", ["dense", "mpo"])
@pytest.mark.parametrize("width", ["80", "120"])
def test_the_table_of_a_deep_network_fits_a_terminal_and_a_screen(name, variant, width):
    lines = run("info", name, "--variant", variant, COLUMNS=width).stdout.splitlines()
    assert max(map(len, lines)) <= int(width)
    assert len(lines) < 75
    assert not any("…" in line for line in lines)  # nothing is cut


def test_the_table_folds_blocks_and_counts_them_together():
    text = run("info", "resnet110").stdout
    assert re.search(rf"\ngroup1_block2..18 +Residual {TIMES}17 +32x32x64 +1 257 728 +1 283 457 024\n  bn1 ", text)
    assert re.search(r"\n\+ shortcut +Conv2D 1x1, stride 2 +8x8x256 +32 768 ", text)
    assert f"{TIMES}N: blocks that are alike, counted together." in text
    assert TIMES not in run("info", "vgg16").stdout


def test_without_a_model_all_networks_are_listed():
    rows = {row["model"]: row for row in facts("info")["models"]}
    assert list(rows) == list(published())
    for name, row in ROWS.items():
        assert (rows[name]["dense_parameters"], rows[name]["parameters"]) == (row.dense, row.mpo)
        assert rows[name]["rho"] == row.weights / row.replaced
        assert rows[name]["parameter_ratio"] == row.mpo / row.dense
    assert {name: rows[name]["data"] for name in ("fc2", "vgg16")} == {"fc2": "mnist", "vgg16": "cifar10"}
    sources = {rows[name]["source"] for name in rows}
    assert sources == {"Fig. 2", "Table I", "Fig. 3", "Table II", "text"}


def test_the_list_fits_a_terminal():
    text = run("info", COLUMNS="80").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert re.search(r"vgg16 +cifar10 +28 922 832 +5 307 014 +0.1835 +0.000463 +Table I", text)
    assert "resnet<6n+2>[-k<K>][-unit]" in text


@pytest.mark.parametrize("option", [["--bond", "4"], ["--variant", "mpo"], ["--batch", "3"], ["--k", "2"], ["--unit"]])
def test_the_list_takes_no_option_of_a_model(option):
    result = run("info", *option)
    assert result.exit_code == 2
    assert option[0] in result.stderr
    assert "MODEL" in result.stderr


@pytest.mark.parametrize("columns", ["20", "40", "80"])
@pytest.mark.parametrize("model", ["", "fc2", "vgg16", "densenet40-12-conv"])
def test_no_name_is_cut_on_any_terminal(model, columns):
    result = run("info", *([model] if model else []), COLUMNS=columns)
    assert result.exit_code == 0, result.output
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= int(columns)
    names = [operator.name for operator in shapes.operators(build(model))] if model else published()
    unbroken = result.stdout if int(columns) > 20 else result.stdout.replace("\n", "")  # longer names are folded
    assert not [name for name in names if name not in unbroken]


def test_info_and_drawings_say_which_machine_their_plans_assume():
    """The constants without a framework are those of PyTorch on a CPU, which is what is said."""
    assert DEFAULTS["torch"] is DEFAULT_COSTS
    assumption = "PyTorch on a CPU"
    assert facts("info", "fc2")["plan_machine"] == assumption
    assert f"plans: batch 128, {assumption}." in " ".join(run("info", "fc2").stdout.split())
    for form in ("svg", "html"):
        assert f"for 128 images per batch, {assumption}" in render(build("fc2"), form)
    assert assumption not in run("info", "fc2", "--variant", "dense").stdout
