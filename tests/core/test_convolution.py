"""Kernels as chains of cores: every structure, plan and window against explicit sums."""

from itertools import product
from math import ceil, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.strategies import seeds
from mponet.contraction.planner import PlanningContext
from mponet.errors import InputError, PlanError, ShapeError
from mponet.layers.conv_choice import conv_plans
from mponet.layers.conv_plan import ConvPlan, candidates, cuts, kernels, run
from mponet.layers.convolution import STRUCTURES, ConvShape, from_kernel, kernel_of
from mponet.layers.fitting import fit_kernel
from mponet.layers.window import Window, convolve
from mponet.operators.initialize import exact_variance
from mponet.operators.metric import Metric
from mponet_numpy.ops.arrays import OPS

CONTEXT = PlanningContext("torch", dict, None)


@st.composite
def windows(draw, rank, max_size=3):
    """Any window, its padding never as large as a map of 6."""
    size, stride, dilation = (tuple(draw(st.integers(1, limit)) for _ in range(rank)) for limit in (max_size, 3, 2))
    pairs = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = draw(st.sampled_from(["same", "valid"]) | st.lists(pairs, min_size=rank, max_size=rank))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    return Window.of(size, stride, padding, dilation, mode)


@st.composite
def conv_shapes(draw, kernel_size):
    """A `ConvShape` of any structure, number of cores and groups."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels = [groups * draw(st.sampled_from([1, 2, 4, 6])) for _ in range(2)]
    structure = draw(st.sampled_from(sorted(STRUCTURES)))
    sites = draw(st.sampled_from([None, 2, 3]))
    bond = draw(st.sampled_from([1, 2, 5, 1000]))
    return ConvShape.from_sizes(*channels, kernel_size, bond, groups=groups, structure=structure, sites=sites)


def written_out(inputs, kernel, window, groups):
    """The cross-correlation as its definition: one sum for each position."""
    sizes = inputs.shape[1:-1]
    modes = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    padded = np.pad(inputs, ((0, 0), *window.pads(sizes), (0, 0)), mode=modes[window.mode])
    outputs = window.output_sizes(sizes)
    result = np.zeros((len(inputs), *outputs, kernel.shape[-1]))
    width, depth = kernel.shape[-2], kernel.shape[-1] // groups
    for place in product(*map(range, outputs)):
        for offset in product(*map(range, window.size)):
            at = tuple(p * s + o * d for p, s, o, d in zip(place, window.stride, offset, window.dilation, strict=True))
            for g in range(groups):
                seen = padded[(slice(None), *at)][:, g * width : (g + 1) * width]
                result[(slice(None), *place, slice(g * depth, (g + 1) * depth))] += (
                    seen @ kernel[offset][:, g * depth : (g + 1) * depth]
                )
    return result


def step_in_numpy(state, kernel, step, window):
    """One step on ``(batch, *sizes, channels)``; carried dimensions join the batch and return."""
    batch, *sizes, _ = state.shape
    rank = len(sizes)
    apart = state.reshape(batch, *sizes, step.prefix, step.groups * step.inner, step.suffix)
    apart = np.moveaxis(apart, (rank + 1, rank + 3), (1, 2))
    flat = apart.reshape(batch * step.prefix * step.suffix, *sizes, step.groups * step.inner)
    done = convolve(flat, kernel, window, step.groups)
    done = done.reshape(batch, step.prefix, step.suffix, *done.shape[1:])
    return np.moveaxis(done, (1, 2), (rank + 1, rank + 3)).reshape(batch, *done.shape[3:-1], step.out_channels)


def sample(shape, seed, sizes=None, batch=2):
    rng = np.random.default_rng(seed)
    sizes = (7, 6)[: shape.rank] if sizes is None else sizes
    mpo = exact_variance(shape.mpo, rng, 1.0)
    return mpo, rng.normal(size=(batch, *sizes, shape.in_channels))


@given(st.data(), st.sampled_from([1, 2]), seeds)
@settings(max_examples=60)
def test_the_numpy_convolution_is_its_definition(data, rank, seed):
    window = data.draw(windows(rank))
    groups = data.draw(st.sampled_from([1, 2]))
    rng = np.random.default_rng(seed)
    inputs, kernel = rng.normal(size=(2, *(7, 6)[:rank], 2 * groups)), rng.normal(size=(*window.size, 2, 3 * groups))
    np.testing.assert_allclose(
        convolve(inputs, kernel, window, groups), written_out(inputs, kernel, window, groups), atol=1e-12
    )


@given(st.data(), st.sampled_from([1, 2]), seeds)
@settings(max_examples=150)
def test_every_plan_is_the_convolution_with_the_kernel(data, rank, seed):
    window = data.draw(windows(rank))
    shape = data.draw(conv_shapes(window.size))
    mpo, inputs = sample(shape, seed)
    padded = np.pad(
        inputs,
        ((0, 0), *window.pads(inputs.shape[1:-1]), (0, 0)),
        mode={"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[window.mode],
    )
    if window.mode != "zeros":
        inputs, window = padded, Window.of(window.size, window.stride, "valid", window.dilation)
    wanted = convolve(inputs, kernel_of(shape, mpo), window, shape.groups)
    options = list(candidates(shape))
    assert options[0].groups == (shape.sites,)
    for plan in options:
        found = run(plan, window, kernels(plan, mpo.cores, OPS), inputs, step_in_numpy)
        np.testing.assert_allclose(found, wanted, atol=1e-12 * max(1.0, np.abs(wanted).max()) * shape.parameters)


@given(st.data(), st.sampled_from([1, 2]), seeds)
@settings(max_examples=60)
def test_a_plan_counts_the_multiplications_that_its_convolutions_do(data, rank, seed):
    window = data.draw(windows(rank))
    shape = data.draw(conv_shapes(window.size))
    mpo, inputs = sample(shape, seed, sizes=(9, 8)[:rank], batch=1)
    for plan in candidates(shape):
        done = 0

        def counted(state, kernel, step, moved):
            nonlocal done
            result = step_in_numpy(state, kernel, step, moved)
            done += result.size * kernel.size // kernel.shape[-1]
            return result

        if window.mode == "zeros":
            run(plan, window, kernels(plan, mpo.cores, OPS), inputs, counted)
            assert plan.multiplications(inputs.shape[1:-1], window) == done


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("groups", [1, 2])
def test_a_kernel_in_exact_mode_comes_back(structure, groups):
    kernel = np.random.default_rng(0).normal(size=(3, 2, 4, 6))
    for sites in (None, 2, 3):
        shape = ConvShape.from_sizes(4 * groups, 6, (3, 2), 1, groups=groups, structure=structure, sites=sites)
        kept = from_kernel(kernel, shape)
        np.testing.assert_allclose(kernel_of(shape, kept.mpo), kernel, atol=1e-13)
        cut = from_kernel(kernel, shape, max_bond=2)
        assert cut.error == pytest.approx(np.linalg.norm(kernel_of(shape, cut.mpo) - kernel), rel=1e-9)


def test_structures_are_the_matrices_that_they_are_named_after():
    kernel = np.random.default_rng(1).normal(size=(2, 3, 4, 5))
    for structure, subscripts, sizes in (
        ("separable", "hwio->wiho", (12, 10)),
        ("kernel", "hwio->hwio", (24, 5)),
        ("channel", "hwio->ihwo", (24, 5)),
        ("spatial", "hwio->hwio", (24, 5)),
    ):
        shape = ConvShape.from_sizes(4, 5, (2, 3), 1, structure=structure)
        matrix = shape.to_matrix(kernel)
        np.testing.assert_array_equal(matrix, np.einsum(subscripts, kernel).reshape(sizes))
        np.testing.assert_array_equal(shape.to_kernel(matrix), kernel)


@pytest.mark.parametrize(
    ("structure", "text"),
    [
        ("separable", "1x3 to 4 channels, 3x1 to 32"),
        ("kernel", "3x3 to 4 channels, 1x1 to 32"),
        ("channel", "1x1 to 4 channels, 3x3 to 4, 1x1 to 32"),
        ("spatial", "3x3 to 4 channels 16 times, 1x1 to 32 4 times, 1x1 to 4 8 times"),
    ],
)
def test_the_smallest_chain_of_a_structure_is_the_convolutions_that_it_is_named_after(structure, text):
    shape = ConvShape.from_sizes(16, 32, (3, 3), 4, structure=structure)
    assert str(ConvPlan(shape, (1,) * shape.sites)) == text


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
def test_same_padding_gives_a_share_of_the_sizes(size, length, stride, dilation):
    window = Window.of((length,), stride, "same", dilation)
    ((before, after),) = window.pads((size,))
    assert window.output_sizes((size,)) == (ceil(size / stride),)
    assert after - before in (0, 1)


def test_paddings_of_all_frameworks_have_numbers():
    assert Window.of((3, 2), padding="SAME").padding == ((1, 1), (0, 1))
    assert Window.of((3, 2), padding="valid").padding == ((0, 0), (0, 0))
    assert Window.of((3,), padding="causal", dilation=2).padding == ((4, 0),)
    assert Window.of((3, 3), padding=1).padding == ((1, 1), (1, 1))
    assert Window.of((3, 3), padding=(1, 2)).padding == ((1, 1), (2, 2))
    assert Window.of((3, 3), padding=[(1, 2), (3, 4)]).padding == ((1, 2), (3, 4))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Window.of((3,), padding="full"),
        lambda: Window.of((3, 3), padding="causal"),
        lambda: Window.of((3, 3), padding=(1, 2, 3)),
        lambda: Window.of((3, 3), padding=-1),
        lambda: Window.of((3, 3), stride=0),
        lambda: Window.of((3, 3), dilation=(1, 1, 1)),
        lambda: Window.of((3,), mode="mirror"),
        lambda: Window.of((5,)).output_sizes((4,)),
        lambda: ConvShape.from_sizes(4, 6, (3, 3), 2, groups=3),
        lambda: ConvShape.from_sizes(4, 6, (3, 0), 2),
        lambda: ConvShape.from_sizes(4, 6, (3, 3), 2, structure="tucker"),
        lambda: ConvShape.from_sizes(4, 6, (3, 3), 2, input_dims=(5, 2)),
        lambda: ConvShape.from_sizes(4, 6, (3, 3), 2, structure="spatial", sites=1),
        lambda: ConvShape.from_sizes(4, 6, (3, 3), 2).to_matrix(np.ones((3, 3, 6, 4))),
    ],
)
def test_what_does_not_fit_is_refused(build):
    with pytest.raises(ShapeError, match="expected"):
        build()


def test_a_cut_through_a_spatial_axis_is_refused():
    shape = ConvShape.from_sizes(4, 6, (4, 4), 3, structure="kernel", input_dims=(2, 32), output_dims=(2, 3))
    assert cuts(shape) == ()
    assert [plan.groups for plan in candidates(shape)] == [(2,)]
    with pytest.raises(PlanError, match="no spatial axis is split"):
        ConvPlan(shape, (1, 1))
    with pytest.raises(PlanError, match="add up"):
        ConvPlan(shape, (1,))


def test_outputs_of_a_grouped_convolution_stay_together():
    shape = ConvShape.from_sizes(8, 12, (3, 3), 3, groups=2, structure="kernel", sites=2)
    with pytest.raises(PlanError, match="2 groups of channels"):
        ConvPlan(shape, (1, 1))
    assert [plan.groups for plan in candidates(shape)] == [(2,)]


def test_the_choice_is_the_fastest_that_keeps_within_the_limit():
    shape = ConvShape.from_sizes(64, 64, (3, 3), 16)
    plans = conv_plans(shape, Window.of((3, 3), padding="same"), 32, (32, 32), "float32", CONTEXT)
    request = plans.request
    allowed = [plan for plan in candidates(shape) if request.kept(plan) <= request.memory_limit]
    assert plans.training == min(allowed, key=lambda plan: request.seconds(plan, "training"))
    assert str(plans.training) == "1x3 to 16 channels, 3x1 to 64"  # an eighth of the multiplications
    text = plans.explain()
    assert "> 1x3 to 16 channels, 3x1 to 64" in text
    assert "rebuild the kernel" in text
    with pytest.raises(PlanError, match="speed"):
        plans.explain("speed")


def test_a_full_bond_is_rebuilt():
    """A chain that has more weights than the kernel is never a chain of convolutions."""
    shape = ConvShape.from_sizes(64, 64, (3, 3), 10_000)
    plans = conv_plans(shape, Window.of((3, 3), padding="same"), 32, (32, 32), "float32", CONTEXT)
    assert plans.training.groups == plans.forward.groups == plans.inference.groups == (2,)


def test_unknown_sizes_are_planned_for():
    shape = ConvShape.from_sizes(8, 8, (3, 3), 2)
    window = Window.of((3, 3), padding="same")
    plans = conv_plans(shape, window, None, (None, None), "float32", CONTEXT)
    assert plans == conv_plans(shape, window, 32, (32, 32), "float32", CONTEXT)


def test_kernels_have_the_shapes_that_their_steps_name():
    shape = ConvShape.from_sizes(8, 12, (3, 2), 5, structure="spatial")
    mpo, _ = sample(shape, 0)
    for plan in candidates(shape):
        for step, kernel in zip(plan.steps, kernels(plan, mpo.cores, OPS), strict=True):
            assert kernel.shape == (*step.window, step.inner, step.rows)
        assert prod(n for step in plan.steps for n in step.window) == 6


@pytest.mark.parametrize("structure", sorted(STRUCTURES))
@pytest.mark.parametrize("window", [(3, 3), (2, 3), (3,)])
def test_on_its_patches_a_fitted_kernel_is_never_worse_than_a_plain_one(structure, window):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((*window, 4, 6))
    patches = rng.standard_normal((200, int(np.prod(window)) * 4)) * rng.random(int(np.prod(window)) * 4) ** 3
    metric, shape = Metric.from_inputs(patches), ConvShape.from_sizes(4, 6, window, 1, structure=structure)
    for bond in (1, 3):
        errors = []
        for mpo in (
            from_kernel(kernel, shape, max_bond=bond).mpo,
            fit_kernel(kernel, shape, metric, max_bond=bond),
        ):
            made = ConvShape.from_mpo(mpo.shape, window, structure=structure)
            rest = (kernel - kernel_of(made, mpo)).reshape(-1, 6)
            errors.append(np.linalg.norm(patches @ rest))
        plain, fitted = errors
        assert fitted <= plain * (1 + 1e-12)
        assert fitted < 0.99 * plain or structure == "spatial"


def test_patches_of_groups_and_of_long_chains_are_refused():
    kernel, metric = np.ones((3, 3, 4, 8)), Metric.identity(36)
    with pytest.raises(InputError, match="2 groups"):
        fit_kernel(kernel, ConvShape.from_sizes(8, 8, (3, 3), 1, groups=2), metric)
    with pytest.raises(InputError, match="two smallest convolutions"):
        fit_kernel(kernel, ConvShape.from_sizes(4, 8, (3, 3), 1, sites=3), metric)
