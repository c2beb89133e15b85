"""Error against weights and entropies of the matrices of a checkpoint."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.command import facts, run
from core.compress.planted import calibrated, linear, network, weight
from mponet.compress import Layout
from mponet.compress.spectrum import SHARES, bond_entropy, spectra

RNG = np.random.default_rng(0)


def test_low_rank_errors_are_those_of_the_dropped_singular_values():
    matrix = weight(RNG, 40, 24, 0.7)
    (layer,) = spectra([linear("a", matrix)], ("low-rank",))
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    (found,) = layer.structures
    for point in found.points:
        (rank,) = point.bonds
        assert point.keep == rank * 64 / 960
        assert point.error == pytest.approx(np.sqrt(squares[rank:].sum() / squares.sum()), rel=1e-9)
    assert [point.keep for point in found.points] == sorted(point.keep for point in found.points)
    assert found.error_at(0.5) == next(p.error for p in found.points if p.bonds == (7,))  # 7 * 64 / 960 = 0.47
    assert found.error_at(0.05) is None
    (bond,) = found.bonds
    shares = squares / squares.sum()
    assert bond.entropies[0] == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-9)
    assert bond.largest[0] == pytest.approx(np.log(24))


def test_entropies_tell_one_product_from_many():
    one = np.kron(RNG.standard_normal((4, 4)), RNG.standard_normal((6, 6)))
    layout = Layout("balanced", (4, 6), (4, 6))
    assert bond_entropy(one, layout).entropies[0] == pytest.approx(0.0, abs=1e-9)
    assert bond_entropy(one, Layout("balanced", (6, 4), (6, 4))).entropies[0] > 0.1
    swap = np.eye(16).reshape(4, 4, 4, 4).transpose(1, 0, 2, 3).reshape(16, 16)
    found = bond_entropy(swap, Layout("balanced", (4, 4), (4, 4)))  # it mixes the sites as much as it can
    assert found.entropies[0] == pytest.approx(found.largest[0]) == np.log(16)


def test_with_a_covariance_errors_are_those_of_the_outputs():
    targets, inputs, _ = network(bias=False)
    target = targets[0]
    (layer,) = spectra([target], ("low-rank",), calibrated(targets, inputs))
    squares = np.linalg.svd(inputs[target.name] @ target.load(), compute_uv=False) ** 2
    for point in layer.structures[0].points:
        expected = np.sqrt(squares[point.bonds[0] :].sum() / squares.sum())
        assert point.error == pytest.approx(expected, rel=1e-6)


@pytest.fixture
def checkpoint(tmp_path):
    tensors = {f"blocks.{k}.up.weight": weight(RNG, 48, 32, 0.5).astype(np.float32) for k in range(3)}
    save_file(tensors | {"norm.weight": np.ones(48, np.float32)}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_command_prints_a_table_json_and_a_page(checkpoint, tmp_path):
    arguments = ("spectrum", str(checkpoint), "--min-weights", "100")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.split("\n"))) <= 110
    assert "blocks.1.up" in result.stdout
    found = facts(*arguments)
    assert [layer["name"] for layer in found["layers"]] == [f"blocks.{k}.up" for k in range(3)]
    assert {one["structure"] for one in found["layers"][0]["structures"]} == {"low-rank", "balanced"}
    page = tmp_path / "spectrum.html"
    assert run(*arguments, "-o", str(page)).exit_code == 0
    text = page.read_text()
    assert text.count("<figure>") == 1  # the three layers differ in their number only
    assert "3 layers" in text
    assert all(f"keep {share:g}" in text for share in SHARES)
    run(*arguments, "-o", str(tmp_path / "again.html"))
    assert (tmp_path / "again.html").read_text() == text
    assert run(*arguments, "-o", str(tmp_path / "all.json")).exit_code == 0
    assert json.loads((tmp_path / "all.json").read_text()) == found


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--include", "blok.*"), ("blok", "matches no module")),
        ((), ("no matrix", "min_weights")),
        (("-o", "x.svg"), (".html, .json",)),
        (("--calibration", "none"), ("none",)),
    ],
)
def test_the_command_refuses_what_it_cannot_do(checkpoint, arguments, parts):
    result = run("spectrum", str(checkpoint), *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr
