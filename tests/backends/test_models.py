"""Lowered models and training steps: the same meaning on every framework."""

from dataclasses import replace

import numpy as np
import pytest

import mponet_numpy
from mponet.errors import BackendError, CheckpointError, ModelError
from mponet.models import VARIANTS, build
from mponet.models.init import start
from mponet.models.shapes import parameter_shapes
from mponet.recipe import Recipe, preset

CASES = [(name, variant) for name in ("fc2", "lenet5") for variant in VARIANTS]  # the others: test_vocabulary.py
pytestmark = pytest.mark.usefixtures("double_precision")
RECIPE = Recipe("test", steps=10, batch=8, learning_rate=0.05, momentum=0.9, nesterov=True, weight_decay=1e-2)


def batch(model, size=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((size, *model.input_shape)), rng.integers(10, size=size)


def parameters(model, seed=0):
    """Starting values with biases that are not zero, so that they are tested too."""
    rng = np.random.default_rng(seed)
    return {k: v if v.any() else rng.normal(0, 0.1, v.shape) for k, v in start(model, seed).items()}


@pytest.fixture(params=CASES, ids="-".join)
def model(request):
    return build(*request.param)


def test_forward_equals_the_tensor_network_reference(backend, model):
    values, (images, _) = parameters(model), batch(model)
    expected = mponet_numpy.backend.predict(mponet_numpy.backend.build(model, values), images)
    found = backend.predict(backend.build(model, values, dtype="float64"), images)
    assert found.dtype == np.float64 and found.shape == (8, 10)
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


def test_gradients_equal_finite_differences(backend, model):
    values, (images, labels) = parameters(model), batch(model)
    native = backend.build(model, values, dtype="float64")
    loss, gradients = backend.gradients(native, images, labels)
    assert gradients.keys() == values.keys()
    rng = np.random.default_rng(1)
    for name, value in values.items():
        assert gradients[name].shape == value.shape
        step = 1e-6 * rng.normal(size=value.shape)
        ends = []
        for sign in (1, -1):
            backend.assign(native, {**values, name: value + sign * step})
            ends.append(backend.gradients(native, images, labels)[0])
        # central difference: rounding eps / h against curvature h^2, 1e-10 at best, and kinks that
        # a step may cross
        assert abs((ends[0] - ends[1]) / 2 - (gradients[name] * step).sum()) <= 1e-9 * max(loss, 1.0)


def test_parameters_come_back_as_they_went_in(backend, model):
    values = parameters(model)
    back = backend.parameters(backend.build(model, values, dtype="float64"))
    assert list(back) == list(parameter_shapes(model))
    assert all(np.array_equal(back[name], values[name]) for name in values)


def test_float32_rounds_once(backend, model):
    values = parameters(model)
    back = backend.parameters(backend.build(model, values))
    assert all(back[name].dtype == np.float32 for name in values)
    assert all(np.array_equal(back[name], values[name].astype(np.float32)) for name in values)


def test_steps_are_what_the_recipe_says(backend, model):
    values, (images, labels) = parameters(model), batch(model)
    native = backend.build(model, values, dtype="float64")
    trainer = backend.trainer(native, RECIPE)
    twin = backend.build(model, values, dtype="float64")
    velocity = {name: np.zeros_like(value) for name, value in values.items()}
    for rate in (0.05, 0.05, 0.005, 0.02):  # the rate changes: velocity must not have it folded in
        loss, slopes = backend.gradients(twin, images, labels)
        assert float(trainer.step(images, labels, rate)) == pytest.approx(loss, rel=1e-12)
        for name in values:
            slope = slopes[name] + RECIPE.weight_decay * values[name]
            velocity[name] = RECIPE.momentum * velocity[name] + slope
            values[name] = values[name] - rate * (slope + RECIPE.momentum * velocity[name])
        backend.assign(twin, values)
    found, state = backend.parameters(native), trainer.state()
    for name, value in values.items():
        assert np.allclose(found[name], value, rtol=1e-10, atol=1e-12)
        assert np.allclose(state[f"velocity/{name}"], velocity[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
def test_a_restored_trainer_goes_on_bit_for_bit(backend, momentum, nesterov):
    model = build("fc2", "mpo")
    recipe = replace(RECIPE, momentum=momentum, nesterov=nesterov)
    images, labels = batch(model)
    native = backend.build(model, start(model, 0))
    trainer = backend.trainer(native, recipe)
    for _ in range(3):
        trainer.step(images, labels, 0.01)
    other = backend.build(model, backend.parameters(native))
    resumed = backend.trainer(other, recipe)
    resumed.restore(trainer.state())
    for one in (trainer, resumed):
        one.step(images, labels, 0.02)
    first, second = backend.parameters(native), backend.parameters(other)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_training_reaches_the_labels(backend, model):
    if (model.name, model.variant) == ("lenet5", "low-rank"):
        pytest.skip("a product of rank 1 or 2 in each layer cannot tell ten classes apart so soon")
    images, labels = batch(model, 20)
    native = backend.build(model, start(model, 0))
    trainer = backend.trainer(native, replace(preset(model.name, "short"), weight_decay=0.0))
    losses = [float(trainer.step(images, labels, 0.01)) for _ in range(150)]
    assert losses[-1] < 0.1 * losses[0]
    assert (backend.predict(native, images).argmax(axis=1) == labels).mean() > 0.9


def test_bad_parameters_state_dtype_and_device_are_refused(backend, backend_name):
    model = build("fc2", "mpo")
    values = start(model, 0)
    with pytest.raises(ModelError, match="fc1/core1"):
        backend.build(model, {k: v for k, v in values.items() if k != "fc1/core1"})
    with pytest.raises(ModelError, match="shape"):
        backend.build(model, {**values, "fc1/bias": np.zeros(3)})
    with pytest.raises(BackendError, match="dtype"):
        backend.build(model, values, dtype="int8")
    with pytest.raises(BackendError, match="device"):
        backend.build(model, values, device="abacus")
    trainer = backend.trainer(backend.build(model, values), RECIPE)
    with pytest.raises(CheckpointError, match="velocit"):
        trainer.restore({"velocity/nothing": np.zeros(2)})
    with pytest.raises(CheckpointError, match="fc1/bias"):
        trainer.restore({f"velocity/{k}": np.zeros(3 if k == "fc1/bias" else v.shape) for k, v in values.items()})


def test_versions_and_devices_are_named(backend, backend_name):
    assert backend.name == backend_name
    assert all(version[0].isdigit() for version in backend.versions().values())
    assert "cpu" in " ".join(backend.devices()).lower()
