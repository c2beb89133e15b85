"""A convolution with an operator is handled as a dense layer with one: counts, drawing, ..."""

from html import unescape

import numpy as np
import pytest

from mponet import draw
from mponet.backend import load
from mponet.cli.facts import describe
from mponet.crosscheck.rounding import forward, gradient
from mponet.errors import ModelError
from mponet.models import shapes
from mponet.models.cost import multiplications, operator_plan
from mponet.models.init import check, start
from mponet.models.spec import Conv2D, Dense, Flatten, Model, ReLU
from mponet.operators.mpo import to_matrix
from mponet.operators.shape import MPOShape
from mponet.training.run.spectra import has_operators, measure

KERNEL = MPOShape.from_factors((3, 6), (2, 4), 3)  # a kernel of 3 x 3 x 2 inputs and 8 outputs
HEAD = MPOShape.from_factors((6, 12), (2, 5), 2)


def network(**changes):
    conv = {"kernel": (3, 3), "stride": 2, "padding": "VALID", "mpo": KERNEL, **changes}
    layers = (Conv2D("conv", 8, **conv), ReLU(), Flatten(), Dense("fc", 10, mpo=HEAD))
    return Model("fc2", "mpo", None, (7, 7, 2), layers, "a test")


MODEL = network()


def test_its_parameters_are_cores_and_a_bias():
    assert shapes.parameter_shapes(MODEL) == {
        "conv/core1": (1, 3, 2, 3),
        "conv/core2": (3, 6, 4, 1),
        "conv/bias": (8,),
        "fc/core1": (1, 6, 2, 2),
        "fc/core2": (2, 12, 5, 1),
        "fc/bias": (10,),
    }
    conv, head = shapes.operators(MODEL)
    assert (conv.name, conv.cores, conv.replaced_weights, conv.positions) == (
        "conv",
        ("conv/core1", "conv/core2"),
        3 * 3 * 2 * 8,
        9,
    )
    assert (head.name, head.replaced_weights, head.positions) == ("fc", 720, 1)


def test_its_size_is_checked():
    with pytest.raises(ModelError, match=r"'conv' is .*, 18 -> 8; expected 50 -> 8"):
        shapes.layers(network(kernel=(5, 5)))


def test_it_is_initialised_and_the_reference_applies_it_at_every_position():
    values = start(MODEL, 0)
    check(MODEL, values)
    conv, _ = shapes.operators(MODEL)
    kernel = to_matrix(conv.mpo(values)).reshape(3, 3, 2, 8)
    dense = network(mpo=None)
    same = {"conv/kernel": kernel} | {name: value for name, value in values.items() if name not in conv.cores}
    numpy, images = load("numpy"), np.random.default_rng(0).normal(size=(3, 7, 7, 2))
    expected = numpy.predict(numpy.build(dense, same, dtype="float64"), images)
    found = numpy.predict(numpy.build(MODEL, values, dtype="float64"), images)
    assert np.abs(found - expected).max() <= 1e-13 * np.abs(expected).max()


def test_it_is_counted():
    conv, _ = shapes.operators(MODEL)
    assert shapes.counts(MODEL).weights == KERNEL.parameters + HEAD.parameters
    assert shapes.compression_ratio(MODEL) == (KERNEL.parameters + HEAD.parameters) / (144 + 720)
    info = shapes.layers(MODEL)[0]
    assert info.multiplications == 9 * 144
    assert multiplications(info, 16) == 9 * operator_plan(conv, 16).sweep_multiplications
    # nine positions of sixteen images are the rows of one batch
    assert operator_plan(conv, 16) == operator_plan(shapes.Operator("x", KERNEL, (), 1, 1), 144)


def test_it_is_listed():
    conv, head = [layer for layer in describe(MODEL, 16)["layers"] if "notation" in layer]
    assert (conv["name"], conv["kind"], conv["notation"]) == ("conv", "Conv2D", str(KERNEL))
    assert (conv["mpo_weights"], conv["replaced_weights"]) == (KERNEL.parameters, 144)
    assert head["notation"] == str(HEAD)


@pytest.mark.parametrize("form", ["txt", "svg", "html", "dot"])
def test_it_is_drawn(form):
    drawn = unescape(draw.render(MODEL, form))
    assert "MPO Conv2D 3x3, stride 2, VALID" in drawn
    assert str(KERNEL) in drawn and str(HEAD) in drawn
    assert drawn.count("core2") + drawn.count("conv/core2") >= 2  # a box for the core of each operator


def test_it_is_drawn_with_its_cores():
    cores = draw.operators(MODEL, start(MODEL, 0))
    assert {name: mpo.shape for name, mpo in cores.items()} == {"conv": KERNEL, "fc": HEAD}
    options = draw.DrawOptions("entropy", operators=cores)
    assert "entanglement entropy" in draw.render(MODEL, "svg", options=options)


def test_its_spectra_are_measured():
    values = start(MODEL, 0)
    assert has_operators(MODEL) and not has_operators(network_without_operators())
    found = measure(MODEL, values, 0, 0.0).operators
    conv = shapes.operators(MODEL)[0].mpo(values)
    expected = np.linalg.svd(to_matrix(conv).reshape(3, 6, 2, 4).transpose(0, 2, 1, 3).reshape(6, 24), compute_uv=False)
    assert found["conv"].singular_values[0] == pytest.approx(expected[:3], rel=1e-5)


def network_without_operators():
    return Model("x", "dense", None, (7, 7, 2), (Conv2D("conv", 8, (3, 3)), Flatten(), Dense("fc", 10)), "a test")


def test_its_rounding_is_that_of_its_steps_and_of_its_sum():
    """The operator adds the sums of its two steps, and its gradients sum over all positions."""
    plain = network(mpo=None)
    steps = (3 * 3) ** 0.5 + (6 * 1) ** 0.5
    assert forward(MODEL) - forward(plain) == pytest.approx(steps)
    assert gradient(MODEL, 16) > gradient(plain, 16)
