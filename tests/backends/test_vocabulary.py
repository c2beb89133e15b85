"""Small instances of all five networks: each framework against the float64 reference."""

import numpy as np
import pytest

import mponet_numpy
import small
from mponet.crosscheck.worker import cross_entropy
from mponet.models.shapes import parameter_shapes, statistic_shapes
from mponet.models.spec import Dropout
from mponet.recipe import Recipe, average_share

NETWORKS = [network for variant in ("dense", "mpo") for network in small.networks(variant)]
RATES = (0.05, 0.05, 0.005)
RECIPE = Recipe("test", 3, 6, 0.05, momentum=0.9, nesterov=True, weight_decay=0.01, average=0.9)

every_network = pytest.mark.parametrize("model", NETWORKS, ids=str)
pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.fixture
def case(model):
    """(values, images, labels, masks)"""
    return (small.values(model), *small.batch(model))


def reference_loss(model, values, images, labels, masks):
    """Mean cross-entropy in training mode, by plain numpy."""
    return cross_entropy(mponet_numpy.backend.build(model, values)(images, training=True, masks=masks), labels)


def close(ours, theirs, bound):
    scale = max(np.abs(theirs).max(), 1e-3)
    assert np.abs(np.asarray(ours, dtype=np.float64) - theirs).max() <= bound * scale


@every_network
def test_predictions_are_those_of_the_reference(backend, model, case):
    values, images, _, masks = case
    native = backend.build(model, values, dtype="float64")
    close(backend.predict(native, images), mponet_numpy.backend.build(model, values)(images), 1e-12)
    close(backend.predict(native, images, masks), mponet_numpy.backend.build(model, values)(images, masks=masks), 1e-12)


@every_network
def test_loss_and_gradients_are_those_of_the_reference(backend, model, case):
    values, images, labels, masks = case
    native = backend.build(model, values, dtype="float64")
    loss, slopes = backend.gradients(native, images, labels, masks)
    close(loss, reference_loss(model, values, images, labels, masks), 1e-12)
    assert {name: slope.shape for name, slope in slopes.items()} == parameter_shapes(model)
    steepness = np.sqrt(
        sum(float((slope**2).sum()) for slope in slopes.values())
    )  # along a random direction, typically
    rng = np.random.default_rng(5)
    for _ in range(3):
        along = {name: rng.normal(size=slope.shape) for name, slope in slopes.items()}
        step = 1e-8
        ends = (
            reference_loss(
                model,
                {name: v + sign * step * along[name] if name in along else v for name, v in values.items()},
                images,
                labels,
                masks,
            )
            for sign in (1, -1)
        )
        # u / h of rounding; h^2 of curvature is nothing.  The step is short because of the kinks: a
        # ReLU whose input changes its sign within h spoils the difference, and at 1e-6 some of
        # these tens of thousands do
        found = sum(float((along[n] * slopes[n]).sum()) for n in slopes)
        assert abs(found - (next(ends) - next(ends)) / (2 * step)) <= 1e-6 * steepness


@every_network
def test_gradients_leave_the_model_as_it_was(backend, model, case):
    values, images, labels, masks = case
    native = backend.build(model, values, dtype="float64")
    backend.gradients(native, images, labels, masks)
    found = backend.parameters(native)
    assert set(found) == set(values)
    for name, value in values.items():
        np.testing.assert_array_equal(found[name], value)


def manual_training(backend, model, values, images, labels, masks):
    """Three steps of the recipe by definition, from the backend's gradients and the statistics."""
    now, average = dict(values), {}
    velocity = {name: np.zeros(shape) for name, shape in parameter_shapes(model).items()}
    for step, rate in enumerate(RATES):
        _, slopes = backend.gradients(backend.build(model, now, dtype="float64"), images, labels, masks)
        reference = mponet_numpy.backend.build(model, now)
        reference(images, training=True, masks=masks)
        for name in statistic_shapes(model):
            now[name] = reference.parameters[name]
        for name, slope in slopes.items():
            slope = slope + RECIPE.weight_decay * now[name]
            velocity[name] = RECIPE.momentum * velocity[name] + slope
            now[name] = now[name] - rate * (slope + RECIPE.momentum * velocity[name])
            share = average_share(RECIPE, step)
            average[name] = average.get(name, 0.0) + share * (now[name] - average.get(name, 0.0))
    state = {f"velocity/{name}": value for name, value in velocity.items()}
    return now, state | {f"average/{name}": value for name, value in average.items()}


def trained(backend, trainer, images, labels, masks, steps):
    for step in steps:
        trainer.step(images, labels, RATES[step], masks=masks, share=average_share(RECIPE, step))


@every_network
def test_training_moves_parameters_statistics_and_averages_as_the_recipe_says(backend, model, case):
    values, images, labels, masks = case
    native = backend.build(model, values, dtype="float64")
    trainer = backend.trainer(native, RECIPE)
    trained(backend, trainer, images, labels, masks, range(3))
    wanted, state = manual_training(backend, model, *case)
    for name, value in backend.parameters(native).items():
        close(value, wanted[name], 1e-10)
    assert set(trainer.state()) == set(state)
    for name, value in trainer.state().items():
        close(value, state[name], 1e-10)


@every_network
def test_a_restored_training_goes_on_bit_for_bit(backend, model, case):
    values, images, labels, masks = case
    native = backend.build(model, values, dtype="float64")
    trainer = backend.trainer(native, RECIPE)
    trained(backend, trainer, images, labels, masks, range(2))
    again = backend.build(model, backend.parameters(native), dtype="float64")
    other = backend.trainer(again, RECIPE)
    other.restore(trainer.state())
    for one in (trainer, other):
        trained(backend, one, images, labels, masks, range(2, 3))
    ours, theirs = (backend.parameters(one) | t.state() for one, t in ((native, trainer), (again, other)))
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name])


@every_network
def test_a_clipped_step_is_a_scaled_one(backend, model, case):
    values, images, labels, masks = case
    clip = 0.01
    native = backend.build(model, values, dtype="float64")
    _, slopes = backend.gradients(native, images, labels, masks)
    norm = np.sqrt(sum(float((slope**2).sum()) for slope in slopes.values()))
    assert norm > clip
    trainer = backend.trainer(native, Recipe("clipped", 1, 6, 0.05, weight_decay=0.01, clip=clip))
    trainer.step(images, labels, 0.05, masks=masks)
    found = backend.parameters(native)
    for name, slope in slopes.items():
        close(found[name], values[name] - 0.05 * (slope * (clip / norm) + 0.01 * values[name]), 1e-12)


@pytest.mark.parametrize("model", [m for m in NETWORKS if any(isinstance(x, Dropout) for x in m.layers)], ids=str)
def test_without_masks_the_framework_drops_by_itself_in_training_only(backend, model, case):
    values, images, labels, _ = case
    native = backend.build(model, values, dtype="float64")
    kept = reference_loss(model, values, images, labels, ())
    losses = {backend.gradients(native, images, labels)[0] for _ in range(3)}
    assert len(losses) > 1  # drawn anew each time
    assert all(abs(loss - kept) > 1e-6 for loss in losses)
    np.testing.assert_array_equal(backend.predict(native, images), backend.predict(native, images))
