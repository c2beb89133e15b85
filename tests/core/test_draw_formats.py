"""Every picture in every format: the same bytes every time, escaped names, complete text."""

import os
import re
import struct
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from math import log
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tensornetwork as tn
from hypothesis import given
from hypothesis import strategies as st

import mponet
from core import networks
from core.strategies import random_mpo
from mponet.contraction.plan import Plan
from mponet.display import NotebookRepr
from mponet.draw import FORMATS, DrawOptions, line, notebook_html, notebook_svg, operators, render, save
from mponet.draw.dot import dot
from mponet.draw.graph import of_mpo, of_nodes, of_shape
from mponet.draw.markup import element, escaped, number
from mponet.draw.overlay import entropy, error, share
from mponet.draw.png import png
from mponet.draw.theme import COLOURS, ON_SHADES, SERIES, SHADES
from mponet.errors import CheckpointError, GraphError, InputError
from mponet.models import build, published, shapes
from mponet.models.init import start
from mponet.models.spec import Dense, Model, Residual
from mponet.operators.mpo import MPO
from mponet.operators.nodes import network
from mponet.operators.shape import MPOShape

GOLDEN = Path(__file__).parent / "golden"
SHAPE = MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 16)
EVIL = "<script>alert(1)</script>\"'&\x00]]>"


def smooth(shape):
    """An operator whose numbers are the same on every machine."""
    cores = (np.cos(np.arange(np.prod(size)) * (k + 1.7)) for k, size in enumerate(shape.core_shapes))
    return MPO(shape, tuple(core.reshape(size) for core, size in zip(cores, shape.core_shapes, strict=True)))


def things():
    """Something of every kind that has a picture."""
    small = MPOShape.from_factors((2, 3, 2), (3, 2, 2), 4)
    return {
        "shape": SHAPE,
        "operator": smooth(small).canonical(2),
        "plan": Plan(MPOShape.from_factors((8, 8, 8, 8), (8, 8, 8, 8), 8), (2, 2), (1, 0), 128),
        "ring": networks.ring(5),
        "tree": networks.tree([0, 0, 1, 1]),
        "network": Model("blocks", "mpo", None, (2, 2, 2), LAYERS, "a test"),
    }


LAYERS = (
    mponet.models.spec.Flatten(),
    *(Residual((Dense(f"block{k}_map", 8, mpo=MPOShape.from_factors((2, 4), (2, 4), 3)),)) for k in (1, 2)),
    Residual((Dense("last_map", 8),), (Dense("last_shortcut", 8, bias=False),)),
)


def drawn(thing, format):
    picture = render(thing, format)
    return picture if isinstance(picture, bytes) else picture.encode()


# ---------------------------------------------------------------- the same bytes


@pytest.mark.parametrize("format", ["txt", "svg", "dot"])
@pytest.mark.parametrize("name", things())
def test_pictures_look_as_they_did(name, format):
    """After an intended change: ``UPDATE_GOLDEN=1 pytest tests/core/test_draw_formats.py``."""
    path, picture = GOLDEN / f"{name}.{format}", drawn(things()[name], format)
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture)
    assert picture == path.read_bytes()


@pytest.mark.parametrize("seed", ["1", "2"])
def test_pictures_are_the_same_in_every_process(seed):
    code = (
        f"import sys, hashlib; sys.path[:0] = {sys.path!r}\n"
        "from mponet.draw import render; from mponet.models import build\n"
        "print(*(hashlib.sha256(str(render(build('resnet14'), f)).encode()).hexdigest() for f in sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "txt", "svg", "html", "dot"]
    first, second = (
        subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": one}).stdout
        for one in ("0", seed)
    )
    assert first == second


# ---------------------------------------------------------------- what can be read


@pytest.mark.parametrize("name", ["fc2", "lenet5", "vgg16", "resnet20-unit", "densenet40-12-conv"])
@pytest.mark.parametrize("format", ["svg", "html"])
def test_every_factor_and_bond_can_be_read_off_a_sheet(name, format):
    """Layer by layer, the labels of each diagram are exactly those of the operator's graph."""
    model = build(name)
    picture = render(model, format)
    if format == "html":
        picture = "".join(re.findall(r'<div class="wide">(<svg.*?</svg>)</div>', picture, flags=re.DOTALL))
    labels = re.findall(r"<title>((?:in|out|bond)\d+): dimension (\d+)", picture)
    written = re.findall(r'class="(?:strong middle output|strong middle input|strong middle)">(\d+)</text>', picture)
    edges = [edge for operator in shapes.operators(model) for edge in of_shape(operator.shape).edges]
    assert labels == [(edge.name, str(edge.dim)) for edge in edges]
    assert sorted(written) == sorted(str(edge.dim) for edge in edges)


@pytest.mark.parametrize("variant", ["dense", "mpo"])
@pytest.mark.parametrize("name", ["fc2", "lenet5", "vgg16", "resnet20", "densenet40-12"])
def test_a_sheet_says_what_the_network_counts(name, variant):
    model = build(name, variant)
    for format in ("svg", "html"):
        text = unescape(re.sub("<[^>]*>", " ", render(model, format)))
        assert f"{shapes.parameter_count(model):,}".replace(",", " ") in text
        if variant == "mpo":
            assert f"{shapes.compression_ratio(model):.4g}" in text
            assert f"{shapes.parameter_count(build(name, 'dense')):,}".replace(",", " ") in text


def test_a_sheet_of_a_hundred_layers_is_small():
    model = build("densenet100-24")
    assert len(render(model, "svg").encode()) < 1_000_000
    assert f"{mponet.models.outline.TIMES}32" in render(model, "svg")  # blocks that are alike are drawn once


@pytest.mark.parametrize("name", things())
def test_svg_is_xml_and_names_what_it_shows(name):
    root = ElementTree.fromstring(render(things()[name], "svg"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.find("{http://www.w3.org/2000/svg}title").text
    assert {"light", "dark"} == {
        "dark" if "dark" in rule else "light" for rule in re.split("(?=@media)", render(things()[name], "svg"))
    }


class Balance(HTMLParser):
    """Notes elements that are not closed in their order, and addresses of anything outside."""

    VOID = frozenset({"meta", "input", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.addresses = [], [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.mark.parametrize("name", things())
def test_a_page_is_whole_and_fetches_nothing(name):
    page = render(things()[name], "html")
    reader = Balance()
    reader.feed(page)
    assert (reader.open, reader.wrong, reader.addresses) == ([], [], [])
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import|//(?!www\.w3\.org/2000/svg)\w+\.\w", page)


# ---------------------------------------------------------------- names of users


def test_names_are_escaped_everywhere():
    nodes = networks.build({EVIL: [("in1", 2), (f"bond{EVIL}", 3)], "other": [(f"bond{EVIL}", 3), ("out1", 2)]})
    model = Model(EVIL, "mpo", None, (1, 1, 4), (mponet.models.spec.Flatten(), Dense(EVIL, 4, mpo=SMALL)), EVIL)
    for thing in (nodes, model):
        for format in ("svg", "html"):
            picture = render(thing, format)
            assert "<script>alert" not in picture
            assert "\x00" not in picture
            assert "&lt;script&gt;" in picture
        ElementTree.fromstring(render(thing, "svg"))
        assert "<script>alert" not in notebook_html(thing)
    assert '\\"' in render(nodes, "dot")


SMALL = MPOShape.from_factors((2, 2), (2, 2), 2)


@given(st.text())
def test_any_text_survives_as_text(text):
    root = ElementTree.fromstring(element("text", text, name=text))
    # XML reads a line end of any kind as one of its own
    assert root.text in (None, "") if not text else len(root.text) <= len(text)
    printable = "".join(c for c in text if c.isprintable())
    assert all(c in root.text for c in printable)
    assert escaped(text).count("<") == 0


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (-0.001, "0"), (1.5, "1.5"), (1 / 3, "0.33"), (100.0, "100")])
def test_numbers_are_short(value, text):
    assert number(value) == text


# ---------------------------------------------------------------- colours


def luminance(colour):
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    bright, dim = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("side", ["light", "dark"])
def test_text_and_lines_stand_out_from_the_ground(side):
    """WCAG 2.1: 4.5 for text, 3 for what is not text."""
    of = {name: getattr(colour, side) for name, colour in COLOURS.items()}
    for ground in ("surface", "raised", "node", "mark"):
        assert contrast(of["ink"], of[ground]) >= 4.5, ground
    for text in ("muted", "output", "input", "accent", "alert"):
        assert contrast(of[text], of["surface"]) >= 4.5, text
    for one in ("line", "focus"):
        assert contrast(of[one], of["surface"]) >= 3, one
    for shade, on in zip(SHADES, ON_SHADES, strict=True):
        assert contrast(getattr(shade, side), getattr(on, side)) >= 4.5
    for colour in SERIES:
        assert contrast(getattr(colour, side), of["surface"]) >= 3


@pytest.mark.parametrize("side", ["light", "dark"])
def test_shades_grow_in_one_direction(side):
    values = [luminance(getattr(shade, side)) for shade in SHADES]
    assert values == sorted(values, reverse=side == "light")


# ---------------------------------------------------------------- overlays


def test_overlays_are_what_is_measured():
    mpo = smooth(SHAPE)
    assert sum(share(of_shape(SHAPE)).nodes.values()) == pytest.approx(1)
    assert tuple(entropy(mpo).edges.values()) == mpo.entropy()
    assert max(entropy(mpo).edges.values()) <= log(16)
    cut = error(mpo, 4)
    norm = mpo.norm()
    assert list(cut.edges.values()) == pytest.approx([e / norm for e in mpo.truncation_error(4)])
    picture = render(mpo, "svg", options=DrawOptions("error", 4))
    assert [cut.text(amount) in picture for amount in cut.edges.values()] == [True] * 3


def test_a_network_has_one_scale_for_all_its_operators():
    model = build("fc2")
    cores = operators(model, start(model, 0))
    options = DrawOptions("entropy", operators=cores).for_model(model)
    assert options.top == max(max(mpo.entropy()) for mpo in cores.values())
    assert options.operator(cores["fc2"])[1].largest == options.top


def test_looks_that_make_no_sense_are_refused():
    for wrong in (("heat", None), ("error", None), ("share", 4), ("error", 0)):
        with pytest.raises(InputError, match="expected"):
            DrawOptions(*wrong)
    with pytest.raises(InputError, match="draw a checkpoint"):
        render(build("fc2"), "svg", options=DrawOptions("entropy"))


# ---------------------------------------------------------------- one line


def test_an_operator_in_one_line():
    mpo = random_mpo(SHAPE, np.random.default_rng(2))
    assert line(of_shape(SHAPE)) == "●━16━●━16━●━16━●  in 4·7·7·4  out 4·4·4·4"
    assert line(of_mpo(mpo.canonical(3))) == ">━16━>━16━●━16━<  in 4·7·7·4  out 4·4·4·4"
    assert line(of_mpo(mpo.canonical(mpo.shape.sites))).startswith(">━16━>━16━>━16━●")
    assert line(of_shape(MPOShape.from_factors((3,), (2,), 1))) == "●  in 3  out 2"
    long = line(of_shape(MPOShape.from_factors((2,) * 40, (2,) * 40, 3)))
    assert max(map(len, long.splitlines())) <= 80
    with pytest.raises(GraphError, match="chain"):
        line(of_nodes(networks.ring(4)))


# ---------------------------------------------------------------- Graphviz


@pytest.mark.parametrize(
    "nodes", [network(random_mpo(SHAPE, np.random.default_rng(0))), networks.ring(4), networks.tucker()]
)
def test_dot_is_tensornetworks_with_dimensions(nodes):
    theirs, ours = tn.to_graphviz(nodes).source, dot(of_nodes(nodes))
    joins = [(edge.name, edge.dimension) for node in nodes for edge in node.edges]

    names = re.findall(r'^  node\d+ \[label="([^"]*)", shape', ours, flags=re.MULTILINE)
    assert names == [node.name for node in nodes]
    assert sorted(re.findall(r'-- \w+ \[label="([^"]*)"', ours)) == sorted({f"{name} {dim}" for name, dim in joins})
    assert sorted(re.findall(r"-- \d+ \[label=([^\]]*)\]", theirs)) == sorted({name for name, _ in joins})
    assert ours.count("invis") == theirs.count("invis")


# ---------------------------------------------------------------- PNG and files


def test_png_has_the_picture_of_the_svg():
    light, dark = (render(SHAPE, "png"), png(render(SHAPE, "svg").replace("#ffffff", "#14171c")))
    assert light.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", light[16:24])
    svg = ElementTree.fromstring(render(SHAPE, "svg"))
    assert (width, height) == pytest.approx((2 * float(svg.get("width")), 2 * float(svg.get("height"))), abs=2)
    assert light != dark
    assert render(SHAPE, "png") == light


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", things())
def test_files_are_written_whole(name, format, tmp_path):
    path = tmp_path / f"picture.{format}"
    save(things()[name], path)
    assert path.read_bytes() == drawn(things()[name], format)
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_drawn_or_written_is_said(tmp_path):
    with pytest.raises(InputError, match="no picture of int"):
        render(3)
    with pytest.raises(InputError, match="expected one of txt, svg"):
        save(SHAPE, tmp_path / "picture.jpg")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(SHAPE, tmp_path / "nowhere" / "picture.svg")


# ---------------------------------------------------------------- notebooks


@pytest.mark.parametrize("name", ["shape", "operator", "plan", "network"])
def test_notebooks_show_values(name):
    thing = things()[name]
    assert thing._repr_svg_() == notebook_svg(thing) == render(thing, "svg").rstrip("\n")
    assert thing._repr_html_() == notebook_html(thing)
    assert "<svg" in unescape(thing._repr_html_())


def test_showing_values_in_notebooks_loads_no_drawing_before():
    code = f"import sys; sys.path[:0] = {sys.path!r}\nimport mponet, mponet.models\nprint(*sys.modules)\n"
    code += "mponet.MPOShape.from_factors((2, 2), (2, 2), 2)._repr_svg_(); print('mponet.draw' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "mponet.draw" not in done.splitlines()[0].split()
    assert done.splitlines()[1] == "True"


def test_a_layer_without_cores_yet_shows_nothing():
    """Keras makes the cores of a layer when it first sees inputs."""

    class Unbuilt(NotebookRepr):
        built = False

    assert (Unbuilt()._repr_svg_(), Unbuilt()._repr_html_()) == (None, None)


# ---------------------------------------------------------------- everything there is


@pytest.mark.parametrize("name", [*published(), "resnet20-unit", "densenet7-1", "fc2-code"])
def test_every_network_has_every_picture(name):
    for variant in ("dense", "mpo"):
        model = build(name, variant)
        root = ElementTree.fromstring(render(model, "svg"))
        width, height = float(root.get("width")), float(root.get("height"))
        assert all(0 <= float(text.get("x", 0)) <= width for text in root.iter("{http://www.w3.org/2000/svg}text"))
        assert height < 8000  # blocks that are alike are drawn once
        page = render(model, "html")
        assert page.count('class="layer operator"') == len(shapes.operators(model))
        assert render(model, "dot").count("subgraph cluster") == page.count('class="layer operator"')


def test_drawing_needs_no_memory_for_the_cores():
    huge = MPOShape.from_factors((1024, 1024, 1024), (1024, 1024, 1024), 65536)  # a core of half a terabyte
    for format in ("txt", "svg", "html", "dot"):
        assert "65536" in render(huge, format)
