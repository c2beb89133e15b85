"""The layer vocabulary in Keras; what all frameworks promise is in test_vocabulary.py."""

import os

import numpy as np
import pytest

import mponet_numpy
import small
from mponet.errors import CheckpointError, ModelError
from mponet.models.shapes import parameter_count, parameter_shapes, statistic_shapes
from mponet.models.spec import Concat, Dense, Dropout, Flatten, Model, PadChannels, Residual
from mponet.recipe import Recipe

REQUESTED = "tensorflow" in os.environ.get("MPONET_BACKENDS", "").replace(" ", "").split(",")
pytestmark = pytest.mark.skipif(not REQUESTED, reason="MPONET_BACKENDS does not name tensorflow")

if REQUESTED:  # named but missing is an error, not a skip
    import keras
    import tensorflow as tf

    import mponet_tensorflow
    from mponet_tensorflow.lower import dropping, slots
    from mponet_tensorflow.nn import blocks

NETWORKS = [network for variant in ("dense", "mpo") for network in small.networks(variant)]
RECIPE = Recipe("test", 3, 6, 0.05, momentum=0.9, nesterov=True, weight_decay=0.01, average=0.9, clip=1.0)
UNIT = 2.0**-24  # float32 rounds by so much

every_network = pytest.mark.parametrize("model", NETWORKS, ids=str)


# ---------------------------------------------------------------- a model like others


@every_network
def test_saved_and_loaded(tmp_path, model):
    images, *_ = small.batch(model)
    native = mponet_tensorflow.backend.build(model, small.values(model))
    native.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in native.layers]
    np.testing.assert_array_equal(again(images), native(images))
    with pytest.raises(ModelError, match="not built by mponet"):
        slots(again)


@every_network
def test_summary_counts_parameters_and_statistics(model):
    lines = []
    mponet_tensorflow.backend.build(model, small.values(model)).summary(print_fn=lines.append)
    said = "\n".join(lines)
    statistics = sum(int(np.prod(shape)) for shape in statistic_shapes(model).values())
    assert f"Trainable params: {parameter_count(model):,} " in said
    assert f"Non-trainable params: {statistics:,} " in said


@every_network
def test_slots_are_in_the_order_of_the_specification(model):
    found = slots(mponet_tensorflow.backend.build(model, small.values(model)))
    assert list(found) == [*parameter_shapes(model), *statistic_shapes(model)]
    assert [name for name, slot in found.items() if slot.trainable] == list(parameter_shapes(model))


def test_fit_trains_it_too():
    model = small.networks("mpo")[4]
    native = mponet_tensorflow.backend.build(model, small.values(model))
    images, labels, _ = small.batch(model, 20)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    native.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    history = native.fit(images, labels, batch_size=8, epochs=8, verbose=0).history["loss"]  # 20 = 2 * 8 + 4
    assert history[-1] < history[0]


# ---------------------------------------------------------------- batch norm


def moments(values):
    """Mean and biased variance over all axes but the last, float64."""
    wide = values.astype(np.float64)
    return wide.mean(axis=tuple(range(wide.ndim - 1))), wide.var(axis=tuple(range(wide.ndim - 1)))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (3, 2, 3, 4), (5, 4)], ids=str)
def test_batch_norm_in_training_is_its_definition(shape, offset):
    values = (np.random.default_rng(0).normal(size=shape) + offset).astype(np.float32)
    norm = blocks.BatchNorm(momentum=0.75, epsilon=1e-3)
    outputs = norm(values, training=True)
    mean, variance = moments(values)
    # a mean is off by up to count roundings of the largest value, and so is what is left when it is
    # taken off
    off = (values.size / shape[-1] + 1) * UNIT * np.abs(values).max()
    assert np.abs(outputs - (values - mean) / np.sqrt(variance + 1e-3)).max() <= 4 * off / np.sqrt(variance.min())
    assert np.abs(norm.moving_mean - 0.25 * mean).max() <= off
    # the variance of so few values would be far larger if it were divided by one less
    assert np.abs(norm.moving_variance - (0.75 + 0.25 * variance)).max() <= 4 * off * max(np.sqrt(variance).max(), 1)


@pytest.mark.parametrize("xla", [False, True])
def test_the_fused_norm_is_that_of_keras_while_traced_with_any_batch(xla):
    ours, theirs = blocks.BatchNorm(momentum=0.9), keras.layers.BatchNormalization(momentum=0.9)
    for norm in (ours, theirs):
        norm.build((None, 4, 4, 3))
    slope = tf.constant(np.random.default_rng(1).normal(size=(4, 4, 3)), tf.float32)

    def step(norm, images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            total = tf.reduce_sum(norm(images, training=True) * slope)
        return tape.gradient(total, [images, norm.gamma.value, norm.beta.value])

    spec = tf.TensorSpec((None, 4, 4, 3), tf.float32)
    compiled = {
        norm: tf.function(lambda x, norm=norm: step(norm, x), [spec], jit_compile=xla) for norm in (ours, theirs)
    }
    for batch in (2, 5):
        images = tf.constant(np.random.default_rng(batch).normal(size=(batch, 4, 4, 3)), tf.float32)
        for one, other in zip(compiled[ours](images), compiled[theirs](images), strict=True):
            # sums over count values of size one, forward and backward
            np.testing.assert_allclose(one, other, rtol=0, atol=8 * batch * 16 * UNIT)
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=8 * 80 * UNIT)


def kernels(norm, inputs):
    """Names of the operations of a norm in training."""
    norm.build(inputs.shape)
    graph = tf.function(lambda: norm(inputs, training=True)).get_concrete_function().graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.parametrize(
    ("options", "shape", "dtype", "fused"),
    [
        ({}, (2, 3, 3, 4), "float32", True),
        ({}, (2, 4), "float32", False),
        ({}, (2, 3, 3, 4), "float64", False),
        ({}, (2, 3, 3, 4), "mixed_bfloat16", False),
        ({"axis": 1}, (2, 3, 3, 4), "float32", False),
        ({"center": False}, (2, 3, 3, 4), "float32", False),
    ],
)
def test_only_float32_feature_maps_have_a_fused_norm(options, shape, dtype, fused):
    norm = blocks.BatchNorm(dtype=dtype, **options)
    assert ("FusedBatchNormV3" in kernels(norm, tf.ones(shape, norm.compute_dtype))) == fused


def test_a_frozen_norm_uses_and_keeps_its_running_statistics():
    norm = blocks.BatchNorm()
    norm.build((None, 2, 2, 3))
    norm.trainable = False
    values = np.random.default_rng(0).normal(3, 2, (4, 2, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(norm(values, training=True), norm(values, training=False))
    np.testing.assert_array_equal(norm.moving_mean, np.zeros(3))


# ---------------------------------------------------------------- dropout


def test_keras_draws_in_training_and_nothing_is_dropped_in_inference():
    layer = blocks.Dropout(0.25)
    values = np.random.default_rng(0).uniform(1, 2, (40, 50)).astype(np.float32)
    np.testing.assert_array_equal(layer(values, training=False), values)
    once, other = layer(values, training=True).numpy(), layer(values, training=True).numpy()
    assert not np.array_equal(once, other)
    np.testing.assert_allclose(once[once > 0], (values / 0.75)[once > 0], rtol=2 * UNIT)
    # six standard deviations of a share of 2000 draws
    assert abs((once > 0).mean() - 0.75) <= 6 * np.sqrt(0.75 * 0.25 / once.size)


@pytest.fixture
def branched():
    """Dropouts at the top, in a body, in a nested body and in a shortcut, with distinct masks."""
    layers = (
        PadChannels(1),
        Dropout(0.5),
        Residual((Dropout(0.5), Concat((Dropout(0.5),))), (Concat(()), Dropout(0.5))),
        Flatten(),
        Dropout(0.5),
        Dense("fc", 10),
    )
    return Model("branched", "dense", None, (2, 2, 1), layers, "made up")


def test_masks_go_to_the_dropouts_in_the_order_of_use(branched):
    values = small.values(branched)
    images, _, masks = small.batch(branched)
    assert [mask.shape[1:] for mask in masks] == [(2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 4), (16,)]
    native = mponet_tensorflow.backend.build(branched, values, dtype="float64")
    expected = mponet_numpy.backend.build(branched, values)(images, masks=masks)
    for training in (False, True):
        with dropping(native, masks):
            np.testing.assert_allclose(native(images, training=training), expected, rtol=1e-12, atol=1e-14)


def test_nothing_is_left_behind(branched):
    native = mponet_tensorflow.backend.build(branched, small.values(branched))
    images, labels, masks = small.batch(branched)
    plain = native(images).numpy()
    dropouts = [layer for layer in native.layers if isinstance(layer, blocks.Dropout)]
    with dropping(native, masks):
        assert all(layer.kept is not None for layer in dropouts)
        assert not np.array_equal(native(images), plain)
    with pytest.raises(RuntimeError, match="inside"), dropping(native, masks):
        raise RuntimeError("inside")
    mponet_tensorflow.backend.predict(native, images, masks)
    mponet_tensorflow.backend.gradients(native, images, labels, masks)
    mponet_tensorflow.backend.trainer(native, RECIPE).step(images, labels, 0.0, masks=masks, share=1.0)
    assert [layer.kept for layer in dropouts] == [None] * 5
    np.testing.assert_array_equal(native(images), plain)


def test_masks_that_do_not_fit(branched):
    native = mponet_tensorflow.backend.build(branched, small.values(branched))
    images, _, masks = small.batch(branched)
    with pytest.raises(ModelError, match="given 4 dropout masks; expected one for each of its 5"):
        mponet_tensorflow.backend.predict(native, images, masks[1:])
    with pytest.raises(ModelError, match=r"mask of dropout1 has the shape \(6, 2, 2, 1\); expected \(6, 2, 2, 2\)"):
        mponet_tensorflow.backend.predict(native, images, (masks[0][..., :1], *masks[1:]))


def test_masks_are_never_compiled_in(branched):
    native = mponet_tensorflow.backend.build(branched, small.values(branched))
    images, _, masks = small.batch(branched)
    with dropping(native, masks), pytest.raises(ModelError, match="compiled in as a constant"):
        native.predict_on_batch(images)

    @tf.function
    def inside(images, masks):
        with dropping(native, masks):
            return native(images)

    for number in range(3):
        *_, masks = small.batch(branched, seed=number)
        compiled = inside(tf.constant(images, tf.float32), masks)
        np.testing.assert_allclose(
            compiled, mponet_tensorflow.backend.predict(native, images, masks), rtol=1e-5, atol=1e-6
        )
    assert inside.experimental_get_tracing_count() == 1


# ---------------------------------------------------------------- training


def test_new_masks_shares_and_rates_compile_nothing(branched):
    native = mponet_tensorflow.backend.build(branched, small.values(branched))
    trainer = mponet_tensorflow.backend.trainer(native, RECIPE)
    for number, (rate, share) in enumerate([(0.1, 1.0), (0.05, 0.5), (1, 0), (np.float32(0.01), np.float64(0.3))]):
        images, labels, masks = small.batch(branched, seed=number)
        trainer.step(images, labels, rate, masks=masks, share=share)
    assert trainer.compiled.experimental_get_tracing_count() == 1


def test_a_compiled_step_draws_anew_each_time(branched):
    trainer = mponet_tensorflow.backend.trainer(
        mponet_tensorflow.backend.build(branched, small.values(branched)), Recipe("test", 3, 6, 0.05)
    )
    images, labels, _ = small.batch(branched)
    assert len({float(trainer.step(images, labels, 0.0)) for _ in range(4)}) > 1


def test_restoring_nothing_starts_anew(branched):
    native = mponet_tensorflow.backend.build(branched, small.values(branched))
    images, labels, masks = small.batch(branched)
    trainer = mponet_tensorflow.backend.trainer(native, RECIPE)
    trainer.step(images, labels, 0.1, masks=masks, share=1.0)
    assert all(value.any() for value in trainer.state().values())
    trainer.restore({})
    assert not any(value.any() for value in trainer.state().values())


def test_a_state_that_does_not_fit_changes_nothing(branched):
    native = mponet_tensorflow.backend.build(branched, small.values(branched))
    images, labels, masks = small.batch(branched)
    trainer = mponet_tensorflow.backend.trainer(native, RECIPE)
    trainer.step(images, labels, 0.1, masks=masks, share=1.0)
    state = trainer.state()
    with pytest.raises(CheckpointError, match="expected velocities and averages"):
        trainer.restore({name: value for name, value in state.items() if name.startswith("velocity/")})
    with pytest.raises(CheckpointError, match=r"average/fc/bias has the shape \(3,\); expected \(10,\)"):
        trainer.restore({name: np.zeros(3 if name == "average/fc/bias" else v.shape) for name, v in state.items()})
    for name, value in trainer.state().items():
        np.testing.assert_array_equal(value, state[name])
