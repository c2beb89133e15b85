"""The options of one layer: errors that fits have, and chains that are worth one."""

import numpy as np
import pytest

from mponet.compress import Calibration, InputSums, Target
from mponet.compress import search as searching
from mponet.compress.search import bond_ladder, is_promising, low_rank_curve, search, split_curve
from mponet.compress.structures import Layout
from mponet.compress.uses import Uses
from mponet.operators.chain import to_matrix

LOW_RANK = Layout("low-rank", (96, 1), (1, 120))
SPLIT = Layout("balanced", (4, 6), (6, 6))
THREE = Layout("mpo", (4, 4, 6), (6, 5, 4))


def target(matrix):
    n, m = matrix.shape
    return Target(name="fc", kind="linear", type_name="Linear", in_features=n, out_features=m, load=lambda: matrix)


def uses_of(matrix, calibration=None):
    return Uses.of([target(matrix)], calibration, kind="covariance", correct_bias=False)


def calibration(size, rows=400):
    data = Calibration(inputs={"fc": "fc"}, sums={"fc": InputSums.zeros(size)})
    data.sums["fc"].add(np.random.default_rng(9).standard_normal((rows, size)) * np.geomspace(1, 50, size))
    return data


def test_without_data_the_errors_of_two_sites_are_those_of_fits():
    matrix = np.random.default_rng(0).standard_normal((24, 36))
    uses = uses_of(matrix)
    curve = split_curve(uses, [target(matrix)], SPLIT)
    assert curve.weights[-1] < matrix.size <= curve.weights[-1] + curve.weights[0]
    for k in range(len(curve.bonds)):
        shape = SPLIT.shape(tuple(map(int, curve.bonds[k])))
        found = uses.fit(shape)
        assert found.error**2 == pytest.approx(curve.errors[k], rel=1e-9)
        assert shape.parameters == curve.weights[k]
        assert searching._multiplications([target(matrix)], shape) == curve.multiplications[k]


def test_a_chain_is_fitted_everywhere_only_where_low_rank_loses_more(monkeypatch):
    noise = 1e-6 * np.random.default_rng(1).standard_normal((96, 120))
    data = calibration(96)
    for matrix, wins in ((planted(THREE) + noise, True), (planted(LOW_RANK) + noise, False)):
        uses = uses_of(matrix, data)
        rivals = low_rank_curve(uses, [target(matrix)], LOW_RANK, uses.spectrum(0))
        assert is_promising(uses, THREE, rivals) == wins
        monkeypatch.setattr(searching, "screened", lambda matrix, layouts, **_: layouts)
        options = search(uses, [target(matrix)], [LOW_RANK, THREE])
        assert [curve.layout.structure for curve in options.curves] == ["low-rank", "mpo"][: 1 + wins]


def planted(layout):
    """A matrix that a few bonds of a layout hold."""
    rng = np.random.default_rng(4)
    shape = layout.shape((2,) * (len(layout.input_dims) - 1))
    return to_matrix(tuple(rng.standard_normal(size) for size in shape.core_shapes))


def test_layouts_whose_smallest_chain_is_too_large_have_no_ladder():
    assert bond_ladder(np.ones((96, 120)), THREE, (0.001,)).shape == (0, 2)
