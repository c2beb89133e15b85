"""Truncation as maps of cores, and the gradient of the norm of an operator."""

import numpy as np
import pytest

from mponet.compress.healing.decay import norm_gradients
from mponet.compress.healing.retruncate import truncation_maps
from mponet.operators import chain
from mponet.operators.gauge import bond_maps
from mponet_numpy.ops.arrays import OPS

SHAPES = [
    [(1, 4, 3, 1)],
    [(1, 12, 1, 5), (5, 1, 9, 1)],
    [(1, 3, 4, 6), (6, 2, 3, 5), (5, 4, 2, 1)],
    [(1, 2, 2, 4), (4, 3, 1, 7), (7, 1, 3, 3), (3, 2, 2, 1)],
]


def sample(shapes, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape) for shape in shapes]


def everything(spectra):
    return [len(values) for values in spectra]


def inner(first, second):
    return sum(float(np.vdot(a, b)) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("shapes", SHAPES)
def test_maps_without_truncation_change_the_gauge_only(shapes):
    cores = sample(shapes)
    maps = bond_maps(cores, everything)
    for down, up in zip(maps.down, maps.up, strict=True):
        np.testing.assert_allclose(down @ up, np.eye(len(down)), atol=1e-12)
    matrix = chain.to_matrix(cores)
    np.testing.assert_allclose(chain.to_matrix(maps.cores(cores)), matrix, atol=1e-12 * np.abs(matrix).max())
    assert maps.norm == pytest.approx(np.linalg.norm(matrix), rel=1e-12)


@pytest.mark.parametrize("shapes", SHAPES[1:])
@pytest.mark.parametrize("bond", [1, 2, 3])
def test_the_error_is_within_the_bound_and_exact_for_one_bond(shapes, bond):
    cores = sample(shapes)
    maps = truncation_maps(cores, bond)
    assert max(maps.bonds) <= bond
    error = np.linalg.norm(chain.to_matrix(maps.cores(cores)) - chain.to_matrix(cores)) / maps.norm
    assert error <= maps.relative_error * (1 + 1e-12)
    if len(cores) == 2:
        assert error == pytest.approx(maps.relative_error, rel=1e-9)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_a_share_of_the_weights_is_met_and_not_by_far(share):
    cores = sample(SHAPES[2])
    maps = truncation_maps(cores, share)
    allowed = share * sum(core.size for core in cores)
    assert sum(core.size for core in maps.cores(cores)) <= allowed
    # one more singular value at the bond that would take the largest dropped one is too much
    values = [np.linalg.svd(unfolded(cores, k), compute_uv=False) for k in range(len(cores) - 1)]
    following = [v[bond] if bond < len(v) else 0.0 for v, bond in zip(values, maps.bonds, strict=True)]
    larger = list(maps.bonds)
    larger[int(np.argmax(following))] += 1
    sizes = [1, *larger, 1]
    assert sum(sizes[k] * c.shape[1] * c.shape[2] * sizes[k + 1] for k, c in enumerate(cores)) > allowed


def unfolded(cores, k):
    """The operator unfolded at a bond, formed from the cores on either side."""
    left = np.ones((1, 1))
    for core in cores[: k + 1]:
        left = np.tensordot(left, core, 1).reshape(-1, core.shape[3])
    right = np.ones((1, 1))
    for core in reversed(cores[k + 1 :]):
        right = np.tensordot(core, right, 1).reshape(core.shape[0], -1)
    return left @ right


def test_a_zero_operator_is_truncated():
    cores = [np.zeros((1, 4, 2, 3)), np.zeros((3, 2, 4, 1))]
    maps = truncation_maps(cores, 2)
    assert [core.shape for core in maps.cores(cores)] == [(1, 4, 2, 1), (1, 2, 4, 1)]
    assert maps.relative_error == 0.0


@pytest.mark.parametrize("shapes", SHAPES)
def test_gradients_follow_the_gauge_exactly(shapes):
    """For any function of the operator: the gradient of <G, W>, whose oracle is a difference."""
    cores = sample(shapes)
    target = np.random.default_rng(1).normal(size=chain.to_matrix(cores).shape)
    maps = bond_maps(cores, everything)
    new = maps.cores(cores)
    carried = maps.gradients(linear_gradients(cores, target))
    for carried_core, wanted in zip(carried, linear_gradients(new, target), strict=True):
        np.testing.assert_allclose(carried_core, wanted, atol=1e-10 * np.abs(wanted).max())


def linear_gradients(cores, target):
    """Gradients of ``<target, W>``, entry by entry: ``W`` is linear in each core."""
    gradients = []
    for k, core in enumerate(cores):
        gradient = np.empty(core.shape)
        for index in np.ndindex(core.shape):
            unit = np.zeros(core.shape)
            unit[index] = 1.0
            gradient[index] = np.vdot(chain.to_matrix([*cores[:k], unit, *cores[k + 1 :]]), target)
        gradients.append(gradient)
    return gradients


def test_squares_are_those_of_uncorrelated_gradients():
    cores = sample(SHAPES[2])
    maps = truncation_maps(cores, 3)
    variances = [np.abs(core) for core in sample(SHAPES[2], seed=3)]
    wanted = [np.zeros(core.shape) for core in maps.cores(cores)]
    for k, variance in enumerate(variances):  # the variance of a sum is that of its terms
        for index in np.ndindex(variance.shape):
            unit = [np.zeros(v.shape) for v in variances]
            unit[k][index] = 1.0
            wanted[k] += maps.gradients(unit)[k] ** 2 * variance[index]
    for carried, value in zip(maps.squares(variances), wanted, strict=True):
        np.testing.assert_allclose(carried, value, rtol=1e-10)
        assert (carried >= 0).all()


@pytest.mark.parametrize("shapes", SHAPES)
def test_decay_is_the_gradient_of_half_the_squared_norm(shapes):
    cores = sample(shapes)
    decays = norm_gradients(cores, shapes, OPS)
    directions = sample(shapes, seed=5)

    def energy(step):
        moved = [core + step * d for core, d in zip(cores, directions, strict=True)]
        return np.linalg.norm(chain.to_matrix(moved)) ** 2 / 2

    step = 1e-5
    slope = (energy(step) - energy(-step)) / (2 * step)
    assert inner(decays, directions) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("shapes", SHAPES[1:])
@pytest.mark.parametrize("seed", range(5))
def test_decay_does_not_depend_on_the_gauge(shapes, seed):
    """With ``X`` and its inverse put into every bond, gradients change by the transposes."""
    cores = sample(shapes, seed)
    generator = np.random.default_rng(seed + 100)
    changes = [np.eye(1), *(generator.normal(size=(s[3], s[3])) for s in shapes[:-1]), np.eye(1)]
    inverses = [np.linalg.inv(change) for change in changes]

    def moved(arrays, left, right):
        pairs = zip(arrays, left[:-1], right[1:], strict=True)
        return [np.einsum("ab,bijc,cd->aijd", a, core, b) for core, a, b in pairs]

    other = moved(cores, inverses, changes)
    np.testing.assert_allclose(chain.to_matrix(other), chain.to_matrix(cores), rtol=1e-6, atol=1e-6)
    expected = moved(norm_gradients(cores, shapes, OPS), [c.T for c in changes], [i.T for i in inverses])
    for value, wanted in zip(norm_gradients(other, shapes, OPS), expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-8 * np.abs(wanted).max())
