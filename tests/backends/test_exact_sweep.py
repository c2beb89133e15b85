"""Convolutions in exact mode are the dense layers of the frameworks, over all their options.

Every layout of the kernel, run as one rebuilt kernel and as the longest chain of convolutions;
outputs, and gradients of the inputs, the bias and every core.
"""

import numpy as np
import pytest

from maps_and_tokens import cores_of, probe
from mponet import MPO
from mponet.layers.conv_choice import ConvRequest, _conv_plans
from mponet.layers.conv_plan import candidates
from mponet.layers.convolution import STRUCTURES, kernel_of

pytestmark = [
    pytest.mark.usefixtures("double_precision"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),  # torch's own, of its own layer
]
#: Inputs and outputs of one group, and groups: plain, grouped, depthwise.
CHANNELS = {"plain": (4, 6, 1), "grouped": (2, 3, 2), "depthwise": (1, 2, 4)}


@pytest.fixture(scope="module")
def lab(backend_name, backend):
    return probe(backend_name)


def windows(lab, rank):
    """``(kernel size, stride, padding, dilation)``: each option of each size with others' usual."""
    sizes = {1: ((1,), (2,), (3,), (4,)), 2: ((3, 3), (1, 2), (2, 3), (4, 1))}[rank]
    strides = {1: (1, 2, 3), 2: (1, 2, 3, (2, 1), (1, 3))}[rank]
    dilations = {1: (1, 2, 3), 2: (1, 2, (1, 2), (3, 1))}[rank]
    paddings = ["same", "valid"]
    if lab.explicit:
        paddings += {1: [1, 2], 2: [1, (1, 0), (0, 2)]}[rank]
    for number, (size, padding) in enumerate((size, padding) for size in sizes for padding in paddings):
        # every stride and dilation meets several sizes and paddings
        yield from windows_of(lab, size, padding, strides[number % len(strides) :][:2], dilations[number % 3 :][:2])


def windows_of(lab, size, padding, strides, dilations):
    for stride in strides:
        for dilation in dilations:
            moved = max(np.atleast_1d(stride)) > 1
            if moved and max(np.atleast_1d(dilation)) > 1 and not lab.both:
                continue  # Keras refuses both
            if moved and padding == "same" and not lab.strided_same:
                continue  # torch refuses both
            yield size, stride, padding, dilation


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("rank", [1, 2])
def test_exact_mode_is_the_dense_layer(lab, rank, structure, channels, monkeypatch):
    inputs, outputs, groups = CHANNELS[channels]
    rng = np.random.default_rng(0)
    #: Where calls are slow, each layout and kind of channels takes others of the windows.
    place = [*STRUCTURES].index(structure) * len(CHANNELS) + [*CHANNELS].index(channels)
    some = list(windows(lab, rank))[place % lab.every :: lab.every]
    for number, (size, stride, padding, dilation) in enumerate(some):
        kernel = rng.normal(size=(*size, inputs, groups * outputs))
        bias = rng.normal(size=groups * outputs) if number % 2 else None
        maps = rng.normal(size=(2, *(11, 12)[:rank], inputs * groups))
        dense = lab.dense_conv(kernel, bias, stride, padding, dilation, groups)
        layer = lab.conv[rank].from_conv(dense, structure=structure)
        plans = list(candidates(layer.shape))
        wanted = lab.call(dense, maps)
        for plan in {0: plans[0], len(plans): plans[-1]}.values():
            monkeypatch.setattr(ConvRequest, "ranked", lambda request, purpose, plan=plan: [plan])
            _conv_plans.cache_clear()
            case = f"{size} {stride} {padding} {dilation} {plan}"
            np.testing.assert_allclose(lab.call(layer, maps), wanted, rtol=0, atol=1e-12, err_msg=case)
        if number % 8 == 0:
            check_gradients(lab, layer, dense, maps, rng.normal(size=wanted.shape))
    _conv_plans.cache_clear()


def check_gradients(lab, layer, dense, maps, slope):
    """A layer is linear in each core.

    Its gradient along a step is that of the kernel along what the step makes.
    """
    expected, found = lab.conv_gradients(dense, maps, slope), lab.conv_gradients(layer, maps, slope)
    for name in set(expected) - {"weight"}:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-11)
    mpo = layer.to_mpo()
    for k, name in enumerate(cores_of(layer)):
        step = np.random.default_rng(k).normal(size=mpo.cores[k].shape)
        moved = MPO(layer.shape.mpo, tuple(step if j == k else core for j, core in enumerate(mpo.cores)))
        along = (expected["weight"] * kernel_of(layer.shape, moved)).sum()
        assert (found[name] * step).sum() == pytest.approx(along, rel=1e-10, abs=1e-10)
