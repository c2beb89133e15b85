"""Starting values: their variance, and that each parameter's are its own."""

import re
from math import prod, sqrt
from zlib import crc32

import numpy as np
import pytest

import small
from mponet.errors import ModelError
from mponet.models import VARIANTS, build, published, shapes
from mponet.models.init import SCHEMES, check, start
from mponet.operators.mpo import MPO, to_matrix

NETWORKS = [model for variant in VARIANTS for model in small.networks(variant)]


@pytest.mark.parametrize("model", NETWORKS, ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_variant_starts_with_its_own_parameters_of_finite_size(model, scheme):
    parameters = start(model, 0, scheme)
    check(model, parameters)
    assert set(parameters) == set(shapes.parameter_shapes(model)) | set(shapes.statistic_shapes(model))
    for name, value in parameters.items():
        kind = re.sub(r"\d", "", name.rpartition("/")[2])
        assert value.dtype == np.float64
        assert np.isfinite(value).all()
        constant = {"bias": 0, "shift": 0, "mean": 0, "scale": 1, "variance": 1}.get(kind)
        assert np.unique(value).size == value.size if constant is None else (value == constant).all()


def test_a_seed_decides_the_start_and_another_one_changes_every_weight():
    model = build("lenet5", "mpo")
    one, again, other = start(model, 1), start(model, 1), start(model, 2)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not any(np.array_equal(one[name], other[name]) for name in one if not name.endswith("/bias"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("lenet5", "dense"), ("lenet5", "mpo")),
        (("resnet14-k1", "dense"), ("resnet14-k1", "mpo")),
        (("resnet14-k1", "dense"), ("resnet14-k1-unit", "dense")),
        (("resnet14-k1", "mpo"), ("resnet14-k1-unit", "mpo")),
        (("densenet13-4", "dense"), ("densenet16-4", "dense")),
    ],
)
def test_networks_share_the_start_of_the_layers_that_they_share(one, other):
    """A stream per name: what stands around a layer does not change its values."""
    ours, theirs = start(build(*one), 3), start(build(*other), 3)
    both = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
    assert sum(name.endswith("/kernel") for name in both) >= 2
    assert all(np.array_equal(ours[name], theirs[name]) for name in both)


@pytest.mark.parametrize("name", published())
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_two_parameters_draw_the_same_numbers(name, variant):
    names = list(shapes.parameter_shapes(build(name, variant)))
    assert len({crc32(name.encode()) for name in names}) == len(names)


def test_layers_of_one_shape_start_apart():
    parameters = start(build("resnet14-k1", "dense"), 0)
    first, second = (parameters[f"group3_block2_conv{i}/kernel"].ravel() for i in (1, 2))
    # of independent normal numbers, the correlation of n pairs has the deviation 1 / sqrt(n)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / sqrt(first.size)


@pytest.mark.parametrize("name", ["resnet14-k1", "densenet13-4", "lenet5"])
def test_full_weights_start_with_the_variance_of_he(name):
    model = build(name, "dense")
    parameters = start(model, 0)
    kernels = {name: value for name, value in parameters.items() if name.endswith("/kernel")}
    assert len(kernels) > 4
    for name, value in kernels.items():
        inputs = prod(value.shape[:-1])  # of a convolution: kernel height, width and channels
        # the mean square of n normal numbers has the deviation sqrt(2 / n) of its expectation
        assert np.mean(value**2) * inputs / 2 == pytest.approx(1.0, abs=5 * sqrt(2 / value.size)), name


def test_the_exact_start_gives_an_operator_the_variance_of_a_matrix():
    model = build("fc2", "mpo")
    shape = shapes.operators(model)[0].shape
    variances = []
    for seed in range(20):
        cores = [value for name, value in start(model, seed).items() if name.startswith("fc1/core")]
        variances.append(to_matrix(MPO(shape, tuple(cores))).var())
    assert np.mean(variances) == pytest.approx(2 / 784, rel=0.2)


def test_the_exact_start_of_a_map_of_a_whole_feature_map_counts_all_its_inputs():
    """By the cores alone, since the matrix would have a quarter of a billion entries."""
    model = build("resnet14-unit")
    unit = shapes.operators(model)[0]
    parameters = start(model, 0)
    cores = [parameters[name] for name in unit.cores]
    variance = prod(float(np.mean(core**2)) for core in cores) * prod(unit.shape.bond_dims)
    # each mean square of n numbers is off by sqrt(2 / n) of itself
    deviation = sqrt(sum(2 / core.size for core in cores))
    assert variance * 16_384 / 2 == pytest.approx(1.0, abs=5 * deviation)


def test_the_paper_start_draws_what_the_authors_draw():
    wide = start(build("lenet5", "dense"), 0, "paper")
    assert all(np.abs(value).max() <= 0.2 for name, value in wide.items() if name.endswith("/kernel"))
    assert wide["conv3/kernel"].std() == pytest.approx(0.088, rel=0.02)
    cores, both = (start(build("lenet5"), 0, scheme) for scheme in ("paper", "xavier"))
    assert np.array_equal(cores["fc1/core2"], both["fc1/core2"])
    kernel = start(build("vgg16", "dense"), 0, "xavier")["conv3_1/kernel"]  # 3 x 3, 128 -> 256
    assert kernel.std() == pytest.approx(0.8796 * sqrt(2.6 / (9 * (128 + 256))), rel=0.01)  # 295 000 numbers
    assert np.abs(kernel).max() <= 2 * sqrt(2.6 / (9 * (128 + 256)))


def test_parameters_of_another_model_are_refused():
    model, parameters = build("fc2", "dense"), start(build("fc2", "dense"), 0)
    with pytest.raises(ModelError, match=r"differ in the names \['fc2/kernel'\]"):
        check(model, {"fc1/kernel": parameters["fc1/kernel"]})
    with pytest.raises(ModelError, match=r"has the shape \(256, 784\); expected \(784, 256\)"):
        check(model, {**parameters, "fc1/kernel": parameters["fc1/kernel"].T})
    with pytest.raises(ModelError, match="initialiser is 'magic'"):
        start(model, 0, "magic")


def test_running_statistics_are_part_of_what_a_model_needs():
    model = build("resnet8-k1", "dense")
    parameters = start(model, 0)
    del parameters["bn/variance"]
    with pytest.raises(ModelError, match=r"differ in the names \['bn/variance'\]"):
        check(model, parameters)
