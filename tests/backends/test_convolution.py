"""What every framework's convolution layer promises, one suite for all of them."""

from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maps_and_tokens import cores_of, probe
from mponet import MPO
from mponet.draw import render
from mponet.errors import InputError, ShapeError
from mponet.layers.conv_choice import ConvRequest, _conv_plans
from mponet.layers.conv_plan import candidates
from mponet.layers.convolution import STRUCTURES, ConvShape, kernel_of
from mponet.layers.window import Window, convolve
from mponet.operators.initialize import exact_variance

pytestmark = pytest.mark.usefixtures("double_precision")
# double_precision is a context, the same for every example
sweep = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def lab(backend_name, backend):
    return probe(backend_name)


def sample(shape, seed=0, batch=2):
    rng = np.random.default_rng(seed)
    sizes = (7, 6)[: shape.rank]
    mpo = exact_variance(shape.mpo, rng, 1.0)
    return mpo, rng.normal(size=shape.out_channels), rng.normal(size=(batch, *sizes, shape.in_channels))


def made(lab, shape, mpo, bias, **options):
    kinds = {"kernel_size": shape.kernel_size, "structure": shape.structure, "groups": shape.groups}
    return lab.conv[shape.rank].from_mpo(mpo, bias, **kinds, **options, **lab.float64)


@sweep
@given(st.data(), st.sampled_from([1, 2]), st.integers(0, 2**31))
def test_the_same_numbers_as_the_reference(lab, data, rank, seed):
    size, stride, dilation = (tuple(data.draw(st.integers(1, limit)) for _ in range(rank)) for limit in (3, 3, 2))
    if not lab.both and max(stride) > 1:
        dilation = (1,) * rank
    pairs = tuple((data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))) for _ in range(rank))
    padding = data.draw(st.sampled_from(["same", "valid", *([pairs] if lab.explicit else [])]))
    groups = data.draw(st.sampled_from([1, 1, 2]))
    channels = [groups * data.draw(st.sampled_from([1, 2, 4])) for _ in range(2)]
    structure, sites = data.draw(st.sampled_from(sorted(STRUCTURES))), data.draw(st.sampled_from([None, 2]))
    shape = ConvShape.from_sizes(*channels, size, 3, groups=groups, structure=structure, sites=sites)
    mpo, bias, maps = sample(shape, seed)
    layer = made(lab, shape, mpo, bias, **lab.window(stride, padding, dilation))
    wanted = convolve(maps, kernel_of(shape, mpo), Window.of(size, stride, padding, dilation), groups) + bias
    found = lab.call(layer, maps)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-12 * max(1.0, np.abs(wanted).max())


def dense_cases(explicit):
    """Strides, paddings and dilations that the frameworks' own convolutions have."""
    for rank, groups in product((1, 2), (1, 2)):
        yield from (
            (rank, groups, *case) for case in ((1, "same", 1), (1, "valid", 2), (2, "valid", 1), (1, "same", 2))
        )
        if explicit:
            yield from ((rank, groups, *case) for case in ((2, 1, 2), (1, 2, 1), (3, 0, 1)))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch's own, of its own layer
@pytest.mark.parametrize("structure", ["separable", "spatial"])  # the order of axes is tested in the core
def test_exact_mode_is_the_dense_layer(lab, structure):
    rng = np.random.default_rng(0)
    for number, (rank, groups, stride, padding, dilation) in enumerate(dense_cases(lab.explicit)):
        kernel = rng.normal(size=(*(3, 2)[:rank], 4, 6))
        bias = rng.normal(size=6) if number % 2 else None
        dense = lab.dense_conv(kernel, bias, stride, padding, dilation, groups)
        maps = rng.normal(size=(2, *(8, 7)[:rank], 4 * groups))
        layer = lab.conv[rank].from_conv(dense, structure=structure)
        wanted = lab.call(dense, maps)
        np.testing.assert_allclose(lab.call(layer, maps), wanted, rtol=0, atol=1e-12)
        if structure == "separable":
            np.testing.assert_allclose(lab.call(layer.to_dense(), maps), wanted, rtol=0, atol=1e-12)
        np.testing.assert_allclose(lab.weight(layer), kernel, rtol=0, atol=1e-12)
        np.testing.assert_allclose(layer.to_kernel(), kernel, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_plan_and_its_gradients_are_those_of_the_dense_layer(lab, structure, groups, monkeypatch):
    """The layer is linear in each core.

    Its gradient along a step is that of the kernel along what the step makes.
    """
    shape = ConvShape.from_sizes(4 * groups, 6 * groups, (3, 2), 3, groups=groups, structure=structure)
    mpo, bias, maps = sample(shape)
    window = (1, "same", 1)
    dense = lab.dense_conv(kernel_of(shape, mpo), bias, *window, groups)
    wanted = lab.call(dense, maps)
    slope = np.random.default_rng(1).normal(size=wanted.shape)
    expected = lab.conv_gradients(dense, maps, slope)
    for plan in candidates(shape):
        monkeypatch.setattr(ConvRequest, "ranked", lambda request, purpose, plan=plan: [plan])
        _conv_plans.cache_clear()
        layer = made(lab, shape, mpo, bias, **lab.window(*window))
        np.testing.assert_allclose(lab.call(layer, maps), wanted, rtol=0, atol=1e-12)
        found = lab.conv_gradients(layer, maps, slope)
        assert found.keys() == {"inputs", "bias", *cores_of(layer)}
        for name in ("inputs", "bias"):
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-11)
        for k, name in enumerate(cores_of(layer)):
            step = np.random.default_rng(k).normal(size=mpo.cores[k].shape)
            moved = MPO(shape.mpo, tuple(step if j == k else core for j, core in enumerate(mpo.cores)))
            along = (expected["weight"] * kernel_of(shape, moved)).sum()
            assert (found[name] * step).sum() == pytest.approx(along, abs=1e-10)
    _conv_plans.cache_clear()


def test_a_chain_is_run_where_it_is_predicted_to_be_faster(lab):
    shape = ConvShape.from_sizes(64, 64, (3, 3), 8)
    rng = np.random.default_rng(0)
    layer = made(lab, shape, exact_variance(shape.mpo, rng), None, **lab.window(1, "same", 1))
    plans = layer.plans((16, 32, 32))
    assert str(plans.training) == "1x3 to 8 channels, 3x1 to 64"
    assert "> 1x3 to 8 channels, 3x1 to 64" in layer.explain(16, (32, 32))
    assert "1x3 to 8 channels, 3x1 to 64" in repr(layer)


def test_from_kernel_cuts_as_asked(lab):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 8, 8))
    layer = lab.conv[2].from_kernel(kernel, max_bond=5, **lab.float64)
    assert layer.shape.mpo.bond_dims == (1, 5, 1)
    error = np.linalg.norm(layer.to_kernel() - kernel) / np.linalg.norm(kernel)
    best = np.linalg.svd(layer.shape.to_matrix(kernel), compute_uv=False)
    assert error == pytest.approx(np.linalg.norm(best[5:]) / np.linalg.norm(best), rel=1e-9)
    near = lab.conv[2].from_kernel(kernel, relative_error=0.3, **lab.float64)
    assert np.linalg.norm(near.to_kernel() - kernel) <= 0.3 * np.linalg.norm(kernel)


def test_operators_go_in_and_come_back(lab):
    shape = ConvShape.from_sizes(4, 6, (3, 3), 3, structure="spatial")
    mpo, bias, maps = sample(shape)
    layer = made(lab, shape, mpo, bias)
    assert layer.shape == shape
    assert all(np.array_equal(a, b) for a, b in zip(layer.to_mpo().cores, mpo.cores, strict=True))
    before = lab.served(layer, maps)  # what a layer keeps for inference must follow its cores
    np.testing.assert_allclose(before, lab.call(layer, maps), rtol=0, atol=1e-12)
    other, offset, _ = sample(shape, seed=1)
    layer.assign(other, offset)
    wanted = convolve(maps, kernel_of(shape, other), Window.of((3, 3), 1, lab.default_padding)) + offset
    np.testing.assert_allclose(lab.served(layer, maps), wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(lab.call(layer, maps), wanted, rtol=0, atol=1e-12)
    with pytest.raises(ShapeError, match="operator is"):
        layer.assign(sample(ConvShape.from_sizes(4, 6, (3, 3), 3))[0])
    assert layer._repr_svg_() == mpo._repr_svg_()
    assert render(layer, "txt") == render(mpo, "txt")


def test_repr_shows_structure_counts_and_window(lab):
    shape = ConvShape.from_sizes(16, 32, (3, 3), 8, structure="channel")
    text = repr(made(lab, shape, exact_variance(shape.mpo, np.random.default_rng(0)), None))
    for part in ("channel 3x3 kernel", "M^{1,1,32}_{16,9,1}(8)", "960 of 4608", "plan="):
        assert part in text


@pytest.mark.parametrize("shape", [(2, 7, 6, 5), (7, 4), (2, 7, 4)])
def test_other_maps_are_refused(lab, shape):
    conv = ConvShape.from_sizes(4, 6, (3, 3), 3)
    layer = made(lab, conv, sample(conv)[0], None)
    if shape == (2, 7, 4) and lab.out_of_range != "raises":
        return  # one map without a batch, which nnx takes
    if (shape == (2, 7, 4) and not lab.explicit) or shape != (2, 7, 4):
        with pytest.raises(ShapeError, match="4 channels"):
            lab.call(layer, np.ones(shape))


def test_what_is_no_convolution_is_refused(lab):
    dense = lab.dense_conv(np.ones((3, 4, 6)), None)
    with pytest.raises(InputError, match="expected a"):
        lab.conv[1].from_conv(object())
    if lab.conv[1] is not lab.conv[2]:
        with pytest.raises(InputError, match="expected a"):
            lab.conv[2].from_conv(dense)


def test_it_learns(lab):
    rng = np.random.default_rng(0)
    shape = ConvShape.from_sizes(4, 4, (3, 3), 4)
    mpo, bias, maps = sample(shape)
    layer = made(lab, shape, mpo, bias, **lab.window(1, "same", 1))
    inputs = np.moveaxis(maps, -1, 1) if "stride" in lab.window(1, 1, 1) else maps
    losses = list(lab.losses(layer, inputs, 0.1 * rng.normal(size=inputs.shape), 20))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("structure", ["separable", "channel"])
def test_a_convolution_made_on_its_patches_loses_less_there(lab, structure):
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(3, 3, 4, 6)), rng.normal(size=6)
    maps = rng.normal(size=(8, 7, 6, 4)).cumsum(1) + 0.5
    patches = np.lib.stride_tricks.sliding_window_view(maps, (3, 3), (1, 2)).transpose(0, 1, 2, 4, 5, 3)
    rows = patches.reshape(*patches.shape[:3], -1)
    wanted = rows @ kernel.reshape(-1, 6) + bias
    dense, errors = lab.dense_conv(kernel, bias), []
    for options in ({}, {"covariance": np.tensordot(rows, rows, ((0, 1, 2), (0, 1, 2)))}, {"inputs": rows}):
        layer = lab.conv[2].from_dense(dense, structure=structure, max_bond=3, **options)
        found = lab.call(layer, maps)
        errors.append(np.linalg.norm(found - wanted))
    assert errors[2] < errors[1] < errors[0]
    assert np.abs((found - wanted).mean((0, 1, 2))).max() < 1e-11  # the bias takes it up
