"""The picture and the page of a compression plan."""

import re
from xml.etree import ElementTree

import pytest

from mponet.compress import CompressionPlan, LayerPlan, Layout
from mponet.draw import render, save
from mponet.draw.compression import place
from mponet.errors import InputError

RANK = Layout("low-rank", (64, 1), (1, 64))
CHAIN = Layout("mpo", (8, 8), (8, 8))


def layer(name, layout=None, bonds=(), **options):
    chosen = {"reason": "dense is best"} if layout is None else {"layout": layout, "bonds": bonds}
    sizes = {"dense_weights": 4096, "dense_multiplications": 4096, "multiplications": 1024}
    return LayerPlan(name=name, kind="linear", type_name="Linear", **(sizes | chosen | options))


PLAN = CompressionPlan(
    layers=(
        layer("blocks.0.up", RANK, (8,), output_error=0.25, loss=0.03),
        layer("blocks.1.up", CHAIN, (4,), output_error=0.5, loss=0.01),
        layer("blocks.11.up"),
        layer("head <b>", RANK, (16,), output_error=0.125, loss=0.0),
        layer("norm", reason="norm is not in kinds", matched=False),
    ),
    config={"allocation": "loss", "metric": "kfac"},
    rows=600,
    notes=("errors are <predicted>",),
)


def texts(picture):
    return [node.text for node in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]


def test_the_picture_shows_every_matched_layer_with_its_figures():
    found = texts(render(PLAN, "svg"))
    assert [word for word in found if word in ("blocks.*.up", "head <b>", "norm")] == ["blocks.*.up", "head <b>"] * 3
    assert {"0", "1", "11"} <= set(found)
    for keep in (25, 12, 50):  # 8 * 128, 4 * 128 and 16 * 128 weights of 4096
        assert str(keep) in found
    for error in (25, 50, 12):
        assert str(error) in found
    assert "75" in found  # 0.03 of 0.04
    titles = re.findall("<title>([^<]*)</title>", render(PLAN, "svg"))
    assert sum("blocks.1.up: mpo 8×8 · 8×8, D = 4" in title for title in titles) == 3  # noqa: RUF001
    assert sum("blocks.11.up: dense is best" in title for title in titles) == 3


def test_the_page_lists_every_module_and_escapes_its_name():
    page = PLAN.to_html()
    assert page.count("<tr>") == 1 + len(PLAN)
    assert "head &lt;b&gt;" in page
    assert "errors are &lt;predicted&gt;" in page
    assert "<b>" not in page.split("<main>")[1].replace("head &lt;b&gt;", "")
    assert "norm is not in kinds" in page


def test_the_ending_of_a_name_is_the_format(tmp_path):
    for ending in ("svg", "html", "txt"):
        PLAN.save(tmp_path / f"plan.{ending}")
        save(PLAN, tmp_path / f"other.{ending}")
        assert (tmp_path / f"plan.{ending}").read_bytes() == (tmp_path / f"other.{ending}").read_bytes()
    assert (tmp_path / "plan.txt").read_text() == f"{PLAN}\n"
    PLAN.save(tmp_path / "plan.json")
    assert CompressionPlan.load(tmp_path / "plan.json") == PLAN
    assert PLAN._repr_svg_().startswith("<svg")
    with pytest.raises(InputError, match="not a graph"):
        save(PLAN, tmp_path / "plan.dot")


def test_a_plan_without_losses_or_layers_has_a_picture_too():
    bare = CompressionPlan(layers=(layer("a", RANK, (8,)), layer("b", matched=False)))
    assert not any("predicted rise" in (word or "") for word in texts(render(bare, "svg")))
    assert "0 of 0 layers" in render(CompressionPlan(layers=()), "html")


@pytest.mark.parametrize("count", [3, 60, 300])
def test_pictures_stay_narrow_however_many_layers_there_are(count):
    plan = CompressionPlan(layers=tuple(layer(f"b.{k}", RANK, (8,), output_error=0.1) for k in range(count)))
    width = float(ElementTree.fromstring(render(plan, "svg")).get("width"))
    assert width < (1000 if count < 100 else 3000)


def test_rows_and_columns_of_names():
    assert place("model.layers.12.mlp.0.up") == ("model.layers.*.mlp.0.up", "12")
    assert place("0") == ("*", "0")
    assert place("conv1") == ("conv1", "")
