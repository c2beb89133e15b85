"""The Python code in the pages of the documentation, run with the framework that it imports."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from documents import SESSIONS, Session, code

README = Path("README.md")


def test_every_python_block_runs(backend_name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = [session for session in SESSIONS if session.framework == backend_name]
    assert chosen, f"no page shows {backend_name}"
    for session in chosen:
        session.run()


def test_ten_lines_of_the_readme_give_a_layer_its_plan_its_spectrum_and_its_picture(
    backend_name, tmp_path, monkeypatch
):
    if backend_name != "torch":
        pytest.skip("the README begins with PyTorch")
    monkeypatch.chdir(tmp_path)
    first = code(README, "python")[0]
    assert first.count("\n") <= 10
    variables, printed = Session(README, "torch", first).run()
    layer = variables["layer"]
    assert variables["outputs"].shape == (32, 256)
    mpo = layer.to_mpo()
    assert printed == f"{layer.explain(32)}\n{mpo.spectra()}\n{mpo.entropy()}\n"
    assert layer.plans(32).explain() in layer.explain(32)
    unfolded = np.linalg.svd(mpo.to_matrix().reshape(28, 28, 16, 16).swapaxes(1, 2).reshape(448, 448), compute_uv=False)
    np.testing.assert_allclose(mpo.spectra()[0], unfolded[:16], rtol=1e-10)
    picture = ElementTree.parse(tmp_path / "layer.svg").getroot()
    assert picture.tag.endswith("svg") and "core1" in "".join(picture.itertext())
