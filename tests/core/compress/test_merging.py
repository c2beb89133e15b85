"""How far a stored weight is from the operator that it was made of."""

import numpy as np
import pytest

from mponet.compress.merging import MergeReport, deviation
from mponet.errors import CompressionError


def test_the_deviation_is_relative_and_that_of_the_stored_numbers():
    matrix = np.random.default_rng(0).standard_normal((6, 8))
    assert deviation("a", matrix, matrix) == 0.0
    assert deviation("a", matrix, matrix.reshape(3, 2, 8) * 1.25) == pytest.approx(0.25, rel=1e-12)
    assert 1e-9 < deviation("a", matrix, matrix.astype(np.float32)) < 6e-8  # half a unit of the last place
    assert deviation("a", np.zeros((2, 2)), np.zeros((2, 2))) == 0.0
    assert deviation("a", np.zeros((2, 2)), np.ones((2, 2))) == 1.0


def test_what_does_not_fit_its_dtype_is_an_error():
    with pytest.raises(CompressionError, match="the matrix of head does not fit"), np.errstate(over="ignore"):
        deviation("head", np.full((2, 2), 1e6), np.full((2, 2), 1e6).astype(np.float16))
    with pytest.raises(CompressionError, match="the matrix of head is not finite"):
        deviation("head", np.full((2, 2), np.nan), np.ones((2, 2)))


def test_a_report_names_the_worst():
    report = MergeReport({"a": 1e-8, "b": 2e-7})
    assert report.deviation == 2e-7
    assert "(b)" in str(report)
    assert MergeReport().deviation == 0.0 and str(MergeReport()) == "0 layers merged"
