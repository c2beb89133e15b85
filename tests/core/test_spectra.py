"""Spectra during training: contents of the file, and equal bytes after a resumed run."""

import json
from dataclasses import replace
from math import log

import numpy as np
import pytest

from core.toy import FAMILY, RECIPE, Killed, ToyBackend
from mponet.errors import CheckpointError
from mponet.models import FAMILIES
from mponet.models.init import start
from mponet.operators.mpo import MPO, to_matrix
from mponet.recipe import PRESETS
from mponet.training import checkpoint
from mponet.training.data import load
from mponet.training.run import RunFolder, Settings, metrics, run, spectra

MPO_ONLY = ("mpo",)


@pytest.fixture(autouse=True)
def _a_toy_network(monkeypatch):
    monkeypatch.setitem(FAMILIES, "toy", FAMILY)
    monkeypatch.setitem(PRESETS, "toy", {"short": RECIPE, "paper": RECIPE})


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture
def settings():
    return Settings("toy", None, "digits", replace(RECIPE, evaluate_every=20), 0)


def of_the_matrix(settings, parameters):
    """Singular values of the only bond, from the full matrix."""
    model = settings.networks["mpo"]
    shape = model.layers[1].mpo
    cores = tuple(np.asarray(parameters[f"fc1/core{k}"], np.float64) for k in (1, 2))
    unfolded = to_matrix(MPO(shape, cores)).reshape(8, 8, 5, 2).transpose(0, 2, 1, 3).reshape(40, 16)
    return np.linalg.svd(unfolded, compute_uv=False)[:2]


def test_there_is_a_line_for_the_start_and_for_every_evaluation(tmp_path, digits, settings):
    run(settings, ToyBackend(), digits, tmp_path, variants=MPO_ONLY)
    home = RunFolder(tmp_path, settings)
    found = spectra.read(home.spectra("mpo"))
    evaluations = [(one.step, one.epoch) for one in metrics.read(home.metrics("mpo")) if one.accuracy is not None]
    assert [(one.step, one.epoch) for one in found] == [(0, 0.0), *evaluations]
    first, last = found[0].operators["fc1"], found[-1].operators["fc1"]
    beginning = {name: value.astype(np.float32) for name, value in start(settings.networks["mpo"], 0).items()}
    for bonds, parameters in (
        (first, beginning),
        (last, checkpoint.load(home.checkpoint("mpo")).parameters),
    ):
        expected = of_the_matrix(settings, parameters)
        assert np.allclose(bonds.singular_values, [expected], rtol=10.0 ** (1 - spectra.DIGITS))
        shares = expected**2 / (expected**2).sum()
        assert bonds.entropy[0] == pytest.approx(-(shares * np.log(shares)).sum(), rel=10.0 ** (1 - spectra.DIGITS))
        assert bonds.entropy[0] <= log(2)


def test_an_average_is_measured_where_it_is_evaluated(tmp_path, digits, settings):
    averaging = replace(settings, recipe=replace(settings.recipe, average=0.9))
    run(averaging, ToyBackend(), digits, tmp_path, variants=MPO_ONLY)
    home = RunFolder(tmp_path, averaging)
    state = checkpoint.load(home.checkpoint("mpo")).optimizer
    expected = of_the_matrix(averaging, {f"fc1/core{k}": state[f"average/fc1/core{k}"] for k in (1, 2)})
    found = spectra.read(home.spectra("mpo"))[-1].operators["fc1"].singular_values
    assert np.allclose(found, [expected], rtol=10.0 ** (1 - spectra.DIGITS))


@pytest.mark.parametrize("kill_at", [0, 1, 20, 21, 77, RECIPE.steps - 1])
def test_a_killed_run_ends_with_the_same_bytes(tmp_path, digits, settings, kill_at, monkeypatch):
    monkeypatch.setattr("mponet.training.run.execute.SAVE_EVERY", 0.0)  # checkpoints between evaluations, too
    run(settings, ToyBackend(), digits, tmp_path / "whole", variants=MPO_ONLY)
    killed = RunFolder(tmp_path / "killed", settings).spectra("mpo")
    with pytest.raises(Killed):
        run(settings, ToyBackend(kill_at=kill_at), digits, tmp_path / "killed", variants=MPO_ONLY)
    with killed.open("a") as stream:
        stream.write('{"step": 999, "half a li')
    run(settings, ToyBackend(), digits, tmp_path / "killed", variants=MPO_ONLY, resume=True)
    assert killed.read_bytes() == RunFolder(tmp_path / "whole", settings).spectra("mpo").read_bytes()


def test_a_run_of_an_older_mponet_goes_on_without_its_earlier_spectra(tmp_path, digits, settings):
    with pytest.raises(Killed):
        run(settings, ToyBackend(kill_at=50), digits, tmp_path, variants=MPO_ONLY)
    path = RunFolder(tmp_path, settings).spectra("mpo")
    path.unlink()
    assert spectra.read(path) == []
    run(settings, ToyBackend(), digits, tmp_path, variants=MPO_ONLY, resume=True)
    assert [one.step for one in spectra.read(path)] == [60, 80, 100, 120]


def test_a_normal_network_has_no_spectra(tmp_path, digits, settings):
    run(settings, ToyBackend(), digits, tmp_path, variants=("dense",))
    assert not RunFolder(tmp_path, settings).spectra("dense").exists()


@pytest.mark.parametrize(
    "line",
    [
        b"\xff",
        b"[]",
        b'{"step": 20}',
        b'{"step": -1, "epoch": 0, "operators": {}}',
        b'{"step": 1, "epoch": 0, "operators": {"fc1": {"entropy": [], "singular_values": [[1]]}}}',
    ],
)
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / spectra.NAME
    good = json.dumps({"step": 0, "epoch": 0.0, "operators": {}}).encode()
    path.write_bytes(good + b"\n" + line + b"\n")
    for reading in (lambda: spectra.read(path), lambda: spectra.truncate_after(path, 5)):
        with pytest.raises(CheckpointError, match="line 2 of"):
            reading()
