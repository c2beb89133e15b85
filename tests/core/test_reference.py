"""The numpy reference: every layer against the formula written out, element by element."""

import numpy as np
import pytest

import mponet
from mponet.errors import BackendError, ModelError
from mponet.models import build
from mponet.models.init import start
from mponet.models.shapes import layers, parameter_shapes
from mponet.models.spec import Conv2D, Dense, Flatten, MaxPool, Model, ReLU
from mponet.operators.decompose import from_matrix
from mponet.recipe import PAPER_MNIST

REFERENCE = mponet.load("numpy")


def network(input_shape, *layers):
    return Model("test", "dense", None, input_shape, layers, "a test")


def random_parameters(model, rng):
    return {name: rng.normal(size=shape) for name, shape in parameter_shapes(model).items()}


def output(model, parameters, images):
    return REFERENCE.predict(REFERENCE.build(model, parameters), images)


def convolved(image, kernel, bias, stride, padding):
    """One image by definition: TensorFlow's SAME pads the odd zero at the bottom and the right."""
    size, steps = kernel.shape[:2], [0, 0]
    before = [0, 0]
    for axis in (0, 1):
        n, k = image.shape[axis], size[axis]
        steps[axis] = -(-n // stride) if padding == "SAME" else (n - k) // stride + 1
        before[axis] = max((steps[axis] - 1) * stride + k - n, 0) // 2 if padding == "SAME" else 0
    result = np.zeros((*steps, kernel.shape[3]))
    for y, x in np.ndindex(*steps):
        for dy, dx in np.ndindex(*size):
            row, column = y * stride + dy - before[0], x * stride + dx - before[1]
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                result[y, x] += image[row, column] @ kernel[dy, dx]
    return result + bias


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 4), (5, 3)])
def test_convolution_follows_its_definition(kernel, stride, padding, rng):
    model = network((7, 8, 2), Conv2D("c", 3, kernel, stride, padding))
    parameters = random_parameters(model, rng)
    images = rng.normal(size=(2, 7, 8, 2))
    found = output(model, parameters, images)
    assert found.shape[1:] == layers(model)[-1].output_shape
    for image, result in zip(images, found, strict=True):
        expected = convolved(image, parameters["c/kernel"], parameters["c/bias"], stride, padding)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-13)


def test_same_padding_puts_the_odd_pixel_at_the_bottom_and_right():
    model = network((2, 2, 1), Conv2D("c", 1, (2, 2), bias=False))
    image = np.arange(1.0, 5.0).reshape(1, 2, 2, 1)
    corner = np.zeros((2, 2, 1, 1))
    corner[1, 1] = 1.0  # picks the pixel one down and one right
    np.testing.assert_array_equal(output(model, {"c/kernel": corner}, image)[0, ..., 0], [[4, 0], [0, 0]])


def test_max_pooling_leaves_incomplete_windows_out(rng):
    model = network((5, 6, 2), MaxPool(3, 2))
    images = rng.normal(size=(2, 5, 6, 2))
    found = output(model, {}, images)
    assert found.shape == (2, 2, 2, 2)
    for b, y, x, c in np.ndindex(found.shape):
        assert found[b, y, x, c] == images[b, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3, c].max()


def test_flatten_puts_channels_fastest():
    images = np.arange(24.0).reshape(1, 2, 3, 4)
    np.testing.assert_array_equal(output(network((2, 3, 4), Flatten()), {}, images), np.arange(24.0)[None])


def test_relu_keeps_what_is_positive():
    images = np.array([-1.0, -0.0, 2.0]).reshape(1, 1, 3, 1)
    np.testing.assert_array_equal(output(network((1, 3, 1), ReLU()), {}, images).ravel(), [0, 0, 2])


def test_an_operator_gives_what_its_matrix_gives(rng):
    matrix, bias = rng.normal(size=(12, 10)), rng.normal(size=10)
    mpo = from_matrix(matrix, (3, 4), (2, 5)).mpo
    operator = network((3, 4, 1), Flatten(), Dense("d", 10, mpo=mpo.shape))
    cores = {f"d/core{k}": core for k, core in enumerate(mpo.cores, start=1)}
    images = rng.normal(size=(5, 3, 4, 1))
    found = output(operator, {**cores, "d/bias": bias}, images)
    np.testing.assert_allclose(found, images.reshape(5, 12) @ matrix + bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["fc2", "lenet5"])
@pytest.mark.parametrize("variant", ["dense", "mpo"])
def test_it_computes_in_float64_whatever_it_is_given(name, variant, rng):
    model = build(name, variant)
    parameters = {key: value.astype(np.float32) for key, value in start(model, 0).items()}
    images = rng.random((2, 28, 28, 1), dtype=np.float32)
    native = REFERENCE.build(model, parameters, dtype="float32")
    assert REFERENCE.predict(native, images).dtype == np.float64
    wide = {key: value.astype(np.float64) for key, value in parameters.items()}
    np.testing.assert_array_equal(REFERENCE.predict(native, images), output(model, wide, images.astype(np.float64)))


def test_an_empty_batch_has_no_logits():
    model = build("lenet5", "dense")
    assert output(model, start(model, 0), np.zeros((0, 28, 28, 1))).shape == (0, 10)


def test_parameters_come_back_as_they_went_in_and_are_copies():
    model = build("fc2")
    given = start(model, 3)
    native = REFERENCE.build(model, given)
    back = REFERENCE.parameters(native)
    assert list(back) == list(parameter_shapes(model))
    back["fc1/bias"][:] = 7.0
    np.testing.assert_array_equal(REFERENCE.parameters(native)["fc1/bias"], given["fc1/bias"])
    REFERENCE.assign(native, back)
    np.testing.assert_array_equal(REFERENCE.parameters(native)["fc1/bias"], 7.0)


def test_parameters_of_another_network_are_refused():
    with pytest.raises(ModelError, match="differ in the names"):
        REFERENCE.build(build("fc2"), start(build("fc2", "dense"), 0))


def test_images_of_another_shape_are_refused():
    model = build("fc2", "dense")
    with pytest.raises(ModelError, match=r"\(1, 14, 14, 4\); expected \(batch, 28, 28, 1\)"):
        output(model, start(model, 0), np.zeros((1, 14, 14, 4)))


def test_it_trains_nothing_and_says_what_does():
    model = build("fc2")
    native = REFERENCE.build(model, start(model, 0))
    images, labels = np.zeros((1, 28, 28, 1)), np.zeros(1, dtype=np.int64)
    for attempt in (
        lambda: REFERENCE.gradients(native, images, labels),
        lambda: REFERENCE.trainer(native, PAPER_MNIST),
    ):
        with pytest.raises(BackendError, match="trains nothing; set MPONET_BACKEND to one of torch, jax, tensorflow"):
            attempt()


@pytest.mark.parametrize("option", [{"dtype": "int8"}, {"device": "cuda"}])
def test_unknown_dtypes_and_devices_are_refused(option):
    model = build("fc2")
    with pytest.raises(BackendError, match="expected one of"):
        REFERENCE.build(model, start(model, 0), **option)


@pytest.fixture
def rng():
    return np.random.default_rng(20260)
