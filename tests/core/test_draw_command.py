"""``mponet draw``: files of every format, single operators, checkpoints, refusals."""

import re
import sys
from pathlib import Path

import pytest

from core.command import facts, failing, run
from mponet.draw import FORMATS, DrawOptions, operators, render
from mponet.errors import BackendError, InputError
from mponet.models import build
from mponet.models.init import start
from mponet.recipe import preset
from mponet.training.checkpoint import Checkpoint, save


@pytest.fixture
def folder(tmp_path):
    """A run of both variants, at its first step."""
    for variant in ("dense", "mpo"):
        model = build("fc2", variant)
        (tmp_path / "run" / variant).mkdir(parents=True)
        checkpoint = Checkpoint(model, start(model, 0), {}, preset("fc2", "short"), "digits", 0, 0)
        save(tmp_path / "run" / variant / "checkpoint.safetensors", checkpoint)
    return tmp_path / "run"


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_every_format(format, tmp_path):
    path = tmp_path / f"picture.{format}"
    done = run("draw", "fc2", "-o", str(path))
    assert (done.exit_code, done.stdout) == (0, "")
    size = f"{path.stat().st_size:,}".replace(",", " ")
    assert re.fullmatch(rf"wrote {re.escape(str(path))}: {size} bytes in \d+\.\d\d s\n", done.stderr)
    expected = render(build("fc2"), format)
    assert path.read_bytes() == (expected if isinstance(expected, bytes) else expected.encode())


def test_one_layer_alone():
    model = build("lenet5")
    (shape,) = (layer.mpo for layer in model.layers if getattr(layer, "name", "") == "conv3")
    assert run("draw", "lenet5", "--layer", "conv3").stdout == render(shape, "txt", name="conv3 of lenet5 (mpo)")
    failing(run("draw", "lenet5", "--layer", "conv1"), "conv1", "conv3, fc1, fc2")


def test_one_line_for_each_operator():
    assert run("draw", "fc2", "--line").stdout.splitlines() == [
        "fc1: ●━16━●━16━●━16━●  in 4·7·7·4  out 4·4·4·4",
        "fc2: ●─4─●─4─●─4─●  in 4·4·4·4  out 1·1·10·1",
    ]


def test_a_checkpoint_is_drawn_with_its_numbers(folder, tmp_path):
    path = tmp_path / "trained.svg"
    assert run("draw", str(folder), "-o", str(path), "--colour", "entropy").exit_code == 0
    model = build("fc2")
    cores = operators(model, start(model, 0))
    text = path.read_text()
    assert text == render(model, "svg", options=DrawOptions("entropy", operators=cores))
    for mpo in cores.values():
        assert all(f"S {entropy:.3g}" in text for entropy in mpo.entropy())


def test_a_run_is_drawn_in_the_variant_asked_for(folder):
    assert facts("draw", str(folder))["variant"] == "mpo"
    assert facts("draw", str(folder), "--variant", "dense")["variant"] == "dense"
    assert facts("draw", str(folder / "dense"))["variant"] == "dense"  # there is no other
    failing(run("draw", str(folder / "dense" / "nothing")), "nothing")


def test_a_folder_called_like_a_network_is_none(folder, monkeypatch):
    monkeypatch.chdir(folder)
    Path("lenet5").mkdir()
    assert facts("draw", "lenet5")["model"] == "lenet5"


def test_what_makes_no_sense_is_refused(folder, tmp_path):
    failing(run("draw", "fc2", "-o", str(tmp_path / "a.jpg")), "'jpg'", ".svg")
    failing(run("draw", "fc2", "-o", str(tmp_path / "a.svg"), "--colour", "entropy"), "draw a checkpoint")
    failing(run("draw", "fc2", "-o", str(tmp_path / "a.svg"), "--colour", "error"), "cut is None")
    for arguments in (["fc2", "--colour", "share"], [str(folder), "--bond", "3"], [str(folder), "--k", "2"]):
        assert run("draw", *arguments).exit_code == 2
    assert not (tmp_path / "a.svg").exists()


def test_png_without_a_converter_or_a_font_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(BackendError, match=r"pip install 'mponet\[draw\]'"):
        render(build("fc2"), "png")
    monkeypatch.undo()
    monkeypatch.setattr("resvg_py.svg_to_bytes", lambda **_: b"the same for every picture")
    with pytest.raises(InputError, match="none of the fonts"):
        render(build("fc2"), "png")
