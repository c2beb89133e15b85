"""Arrays that the core reads.

Real, finite numbers of any kind, and a message of ours for all else.
"""

import numpy as np
import pytest
from scipy import sparse

from mponet import MPO, choose_factors, from_matrix
from mponet.errors import InputError
from mponet.operators.arrays import as_float64, norm
from mponet.operators.nodes import apply
from mponet.operators.topology import NetworkShape, check_tensors

EYE = np.eye(4)
#: Every function of the core that takes an array, called with one in the shape of a 4 x 4 matrix.
DOORS = {
    "from_matrix": lambda array: from_matrix(array, (2, 2), (2, 2)),
    "MPO.from_matrix": lambda array: MPO.from_matrix(array, (2, 2), (2, 2)),
    "MPO.from_cores": lambda array: MPO.from_cores([array]),
    "from_cores(matrix=)": lambda array: MPO.from_cores([EYE], matrix=array),
    "MPO": lambda array: MPO(MPO.from_cores([EYE]).shape, (array[None, :, :, None],)),
    "apply": lambda array: MPO.from_cores([EYE]).apply(array),
    "pad": lambda array: choose_factors(4, 4, 1).pad(array),
    "nodes.apply": lambda array: apply(MPO.from_cores([EYE]), array),
    "check_tensors": lambda array: check_tensors(NetworkShape(("a",), (("in1", "out1"),), ((4, 4),)), [array]),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, np.clongdouble])
def test_complex_numbers_are_refused_at_every_door(door, dtype):
    with pytest.raises(InputError, match=r"complex.*imaginary part would be lost"):
        DOORS[door](EYE.astype(dtype))


@pytest.mark.parametrize("door", DOORS)
def test_a_mask_is_not_dropped(door):
    with pytest.raises(InputError, match="masked"):
        DOORS[door](np.ma.masked_equal(EYE, 1.0))


@pytest.mark.parametrize("bad", [sparse.eye(4), "text", None, object(), {"a": 1}, [[1], [1, 2]], np.array(["a"])])
def test_what_is_no_array_is_an_error_of_ours(bad):
    with pytest.raises(InputError, match=r"matrix.*expected real numbers"):
        as_float64(bad, "matrix")


class Tensor:
    """Behaves as PyTorch's tensors do.

    Numpy refuses it while it has a gradient, and does not know bfloat16.
    """

    def __init__(self, values, gradient=True, half=True):
        self.values, self.gradient, self.half = values, gradient, half

    def detach(self):
        return Tensor(self.values, False, self.half)

    def cpu(self):
        return self

    def double(self):
        return Tensor(self.values, self.gradient, False)

    def is_floating_point(self):
        return self.values.dtype.kind == "f"

    def __array__(self, dtype=None, copy=None):
        if self.gradient or (self.half and self.values.dtype.kind == "f"):
            raise TypeError("no array")
        return self.values


def test_parameters_with_a_gradient_are_read():
    assert np.array_equal(as_float64(Tensor(EYE), "matrix"), EYE)
    with pytest.raises(InputError, match="complex"):
        as_float64(Tensor(EYE * 1j), "matrix")


def test_a_masked_array_without_masked_entries_is_read():
    assert np.array_equal(as_float64(np.ma.array(EYE, mask=False), "matrix"), EYE)


def test_read_only_arrays_are_read():
    frozen = EYE.copy()
    frozen.flags.writeable = False
    assert from_matrix(frozen, (2, 2), (2, 2)).error <= 1e-15


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1.0, 1e300, 1.7e308])
def test_the_norm_of_extreme_numbers(scale):
    assert norm(np.array([scale, 0.0])) == scale
    assert norm(np.zeros(3)) == 0.0


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("bad", [np.full((4, 4), np.nan), np.full((4, 4), "a"), np.full((4, 4), None)])
def test_every_error_of_a_door_is_one_of_ours(door, bad):
    with pytest.raises(InputError, match="expected"):
        DOORS[door](bad)
