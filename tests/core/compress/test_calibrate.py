"""Sums over inputs: those of the whole data, in any portions, processes and files."""

import numpy as np
import pytest

from mponet.compress import Calibration, InputSums, Target
from mponet.compress.symmetric import SymmetricSum
from mponet.errors import CheckpointError, CompressionError, ShapeError


def rows_of(seed, count=60, size=7):
    return np.random.default_rng(seed).standard_normal((count, size)) + 3.0


def test_sums_are_those_of_all_rows_at_once():
    rows = rows_of(0)
    sums = InputSums.zeros(7)
    for part in np.array_split(rows, 7):
        sums.add(part.astype(np.float64))
    np.testing.assert_allclose(sums.products, rows.T @ rows, rtol=1e-13)
    np.testing.assert_allclose(sums.mean, rows.mean(0), rtol=1e-13)
    centred = rows - rows.mean(0)
    np.testing.assert_allclose(sums.metric(centred=True).covariance, centred.T @ centred, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(sums.metric("diagonal").covariance, (rows**2).sum(0), rtol=1e-13)
    np.testing.assert_array_equal(sums.metric("none").covariance, np.ones(7))


def test_an_embedding_needs_counts_only():
    sums = InputSums.zeros(5, diagonal=True)
    sums.add_counts(np.array([[0, 1], [1, 4]]))
    np.testing.assert_array_equal(sums.metric().covariance, [1, 2, 0, 0, 1])
    assert sums.count == 4


def passes(seed, gradient):
    calibration = Calibration(inputs={"a": "a", "b": "a"})
    calibration.sums["a"] = InputSums.zeros(7)
    calibration.sums["a"].add(rows_of(seed))
    calibration.add_gradient("a", gradient, 60)
    return calibration


def test_passes_of_two_processes_add_up():
    first, second = passes(0, 1.0), passes(1, 4.0)
    first.merge(second)
    rows = np.concatenate([rows_of(0), rows_of(1)])
    np.testing.assert_allclose(first.of("b").products, rows.T @ rows, rtol=1e-13)
    assert first.of("a").count == 120
    assert first.gradients["a"] == pytest.approx(2.5)
    np.testing.assert_allclose(second.of("a").products, rows_of(1).T @ rows_of(1), rtol=1e-13)
    with pytest.raises(CompressionError, match="different networks"):
        first.merge(Calibration(inputs={"c": "c"}))


def test_files_give_back_what_was_saved(tmp_path):
    calibration = passes(0, 2.0)
    calibration.save(tmp_path / "sums.safetensors")
    again = Calibration.load(tmp_path / "sums.safetensors")
    np.testing.assert_array_equal(again.of("b").products, calibration.of("b").products)
    np.testing.assert_array_equal(again.of("b").total, calibration.of("b").total)
    assert (again.inputs, again.gradients, again.gradient_rows) == (
        calibration.inputs,
        calibration.gradients,
        calibration.gradient_rows,
    )
    assert again.of("a").count == 60


@pytest.mark.parametrize("damage", [b"", b"no safetensors", None])
def test_files_that_are_no_calibration_are_refused(tmp_path, damage):
    path = tmp_path / "sums.safetensors"
    if damage is None:
        from safetensors.numpy import save_file

        save_file({"weight": np.zeros(3)}, path)
    else:
        path.write_bytes(damage)
    with pytest.raises(CheckpointError):
        Calibration.load(path)


def test_poor_data_are_reported_and_unusable_data_refused():
    calibration = Calibration(sums={"a": InputSums.zeros(7), "b": InputSums.zeros(7)})
    calibration.sums["a"].add(rows_of(0, count=14))
    calibration.sums["b"].add(rows_of(0, count=70))
    (text,) = calibration.warnings()
    assert "1 of 2 inputs" in text
    assert "2.0" in text
    with pytest.raises(ShapeError, match=r"\(3, 6\)"):
        calibration.sums["a"].add(np.zeros((3, 6)))
    with pytest.raises(CompressionError, match="not finite"):
        calibration.sums["a"].add(np.full((1, 7), np.nan))
    with pytest.raises(CompressionError, match="gradient at the output of a"):
        calibration.add_gradient("a", np.inf, 3)


def test_rows_per_example_are_those_of_the_data(tmp_path):
    target = Target(name="a", kind="linear", type_name="L", in_features=3, out_features=2, load=lambda: np.ones((3, 2)))
    calibration = Calibration()
    assert calibration.placed(target) is target
    for rows in (24, 12):
        part = Calibration(inputs={"a": "a"}, sums={"a": InputSums.zeros(3)}, examples=rows // 6)
        part.sums["a"].add(np.ones((rows, 3)))
        calibration.merge(part)
    assert calibration.examples == 6
    calibration.save(tmp_path / "sums")
    assert Calibration.load(tmp_path / "sums").placed(target).positions == 6
    only = calibration.only("a")
    assert only.of("a").count == 36 and calibration.only("b").of("b") is None


@pytest.mark.parametrize("size", [1, 2, 7])
def test_one_triangle_of_a_symmetric_sum_gives_the_whole_matrix(size):
    rng = np.random.default_rng(size)
    matrices = [rows.T @ rows for rows in rng.standard_normal((3, 5, size))]
    total = SymmetricSum.zeros(size)
    for matrix in matrices[:2]:
        total.add(matrix)
    other = SymmetricSum.zeros(size)
    other.add(matrices[2])
    kept = other.copy()
    total.merge(other)
    np.testing.assert_allclose(total.full(), sum(matrices), rtol=1e-15)
    np.testing.assert_allclose(total.diagonal(), np.diagonal(sum(matrices)), rtol=1e-15)
    np.testing.assert_array_equal(other.full(), kept.full())
    assert total.values.nbytes == 4 * size * (size + 1)  # half of what the matrix takes
    with pytest.raises(ShapeError, match=str(size + 1)):
        total.add(np.zeros((size + 1, size + 1)))
    with pytest.raises(ShapeError, match="do not add"):
        total.merge(SymmetricSum.zeros(size, diagonal=True))


def test_files_keep_diagonal_sums_apart(tmp_path):
    calibration = Calibration(sums={"a": InputSums.zeros(5, diagonal=True)}, inputs={"a": "a"})
    calibration.sums["a"].add_counts(np.array([0, 3, 3]))
    calibration.add_gradient("a", 1.0, 3, np.arange(1.0, 7.0))
    calibration.save(tmp_path / "sums.safetensors")
    again = Calibration.load(tmp_path / "sums.safetensors")
    np.testing.assert_array_equal(again.of("a").products, [1, 0, 0, 2, 0])
    np.testing.assert_array_equal(again.gradient_products["a"].full(), np.arange(1.0, 7.0))
    assert again.of("a").is_diagonal
    assert again.gradient_products["a"].is_diagonal
