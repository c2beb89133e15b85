"""Chains whose product overflows float64: norm, entropy and errors are those at scale one."""

from math import inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.strategies import EPS, mass, norm, random_mpo, seeds, shapes, walk_rounding
from mponet import MPO, MPOShape, truncate
from mponet.errors import InputError

exponents = st.integers(-900, 900)


def scaled(mpo, powers):
    return MPO(mpo.shape, tuple(np.ldexp(core, power) for core, power in zip(mpo.cores, powers, strict=True)))


@given(shapes(min_sites=2, max_sites=5, max_size=256), seeds, st.data())
def test_a_power_of_two_on_each_core_changes_the_scale_only(shape, seed, data):
    mpo = random_mpo(shape, np.random.default_rng(seed))
    powers = data.draw(st.lists(exponents, min_size=shape.sites, max_size=shape.sites))
    other = scaled(mpo, powers)
    assert other.entropy() == mpo.entropy()
    assert other.truncation_error(1, relative=True) == mpo.truncation_error(1, relative=True)
    assert abs(other.log_norm() - mpo.log_norm() - sum(powers) * log(2)) <= 1e-9
    first, second = truncate(mpo, max_bond=1), truncate(other, max_bond=1)
    assert second.mpo.shape == first.mpo.shape
    assert abs(second.relative_error - first.relative_error) <= 1e-12
    assert abs(second.mpo.log_norm() - first.mpo.log_norm() - sum(powers) * log(2)) <= 1e-9


@given(shapes(min_sites=2, max_sites=5, max_size=256), seeds, exponents)
def test_scales_that_cancel_leave_the_matrix(shape, seed, power):
    mpo = random_mpo(shape, np.random.default_rng(seed))
    other = scaled(mpo, (power, -power) + (0,) * (shape.sites - 2))
    allowed = EPS * walk_rounding(shape, 2) * mass(mpo)
    assert np.array_equal(other.to_matrix(), mpo.to_matrix())
    assert norm(other.canonical(shape.sites).to_matrix() - mpo.to_matrix()) <= allowed
    assert (other - mpo).norm() <= 4 * allowed
    assert np.array_equal(other.apply(np.eye(shape.in_features)), mpo.apply(np.eye(shape.in_features)))


def test_what_float64_cannot_hold_is_said():
    core = np.ones((1, 2, 2, 1))
    huge, tiny = MPO.from_cores([1e300 * core] * 3), MPO.from_cores([1e-300 * core] * 3)
    assert (huge.norm(), tiny.norm()) == (inf, 0.0)
    assert abs(huge.log_norm() - (900 * log(10) + log(8))) <= 1e-9
    assert abs(tiny.log_norm() + 900 * log(10) - log(8)) <= 1e-9
    with pytest.raises(InputError, match="beyond float64"):
        huge.to_matrix()
    for mpo in (huge, tiny):
        with pytest.raises(InputError, match="scale a core first"):
            mpo.canonical()


def test_zero_has_no_scale():
    zero = MPO.from_cores([np.zeros((1, 2, 2, 1)), np.full((1, 2, 2, 1), 1e300)])
    other = MPO.from_cores([np.full((1, 2, 2, 1), 1e-300), np.ones((1, 2, 2, 1))])
    assert (zero.norm(), zero.log_norm(), zero.entropy()) == (0.0, -inf, (0.0,))
    assert truncate(zero).relative_error == 0.0
    for difference in (zero - other, other - zero):
        assert abs(difference.norm() / other.norm() - 1) <= 64 * EPS


def test_a_long_chain_keeps_its_bonds():
    """Sixty cores with entries near 1e-9: the norm is about 1e-490."""
    shape = MPOShape.from_factors((2,) * 60, (2,) * 60, 3)
    mpo = random_mpo(shape, np.random.default_rng(0))
    small = MPO(shape, tuple(core * 1e-9 for core in mpo.cores))
    assert small.norm() == 0.0
    assert truncate(small).mpo.shape == truncate(mpo).mpo.shape == shape
    kept, expected = truncate(small, max_bond=2), truncate(mpo, max_bond=2)
    assert abs(kept.relative_error - expected.relative_error) <= 1e-10
    assert kept.relative_error > 0.01
