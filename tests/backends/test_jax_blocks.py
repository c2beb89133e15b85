"""Blocks and networks in JAX; what all frameworks promise is in test_vocabulary.py."""

import os
from dataclasses import replace

import numpy as np
import pytest

import small
from mponet.errors import CheckpointError, ModelError
from mponet.models.dropout import dropout_layers, sample_masks
from mponet.recipe import Recipe


def requested():
    """Names in MPONET_BACKENDS."""
    return [name.strip().lower() for name in os.environ.get("MPONET_BACKENDS", "").split(",")]


pytestmark = pytest.mark.skipif("jax" not in requested(), reason="MPONET_BACKENDS does not name jax")

if "jax" in requested():  # named but missing is an error, not a skip
    import jax
    import jax.numpy as jnp
    from flax import nnx

    import mponet_jax
    from mponet_jax import train
    from mponet_jax.lower import dropping, slots
    from mponet_jax.nn import blocks

RECIPE = Recipe("test", 3, 6, 0.05, momentum=0.9, nesterov=True, weight_decay=0.01, average=0.9)
FC2, _, VGG, _, RESNET, _, DENSENET = small.networks("mpo")
wide_networks = pytest.mark.parametrize("model", (VGG, RESNET, DENSENET), ids=str)


def lowered(model, dtype="float32"):
    return mponet_jax.backend.build(model, small.values(model), dtype=dtype)


def normal(*shape, seed=0, mean=0.0, spread=1.0):
    return np.random.default_rng(seed).normal(mean, spread, shape).astype(np.float32)


def dropouts(native):
    return [module for _, module in nnx.iter_modules(native) if isinstance(module, blocks.Dropout)]


def counts(native):
    """How often each dropout has drawn by itself."""
    return [int(module.rngs.count[...]) for module in dropouts(native)]


# ---------------------------------------------------------------- whole networks as ordinary
# modules


@wide_networks
def test_split_and_merge_give_the_same_network(model):
    native = lowered(model)
    images, _, masks = small.batch(model)
    merged = nnx.merge(*nnx.split(native))
    np.testing.assert_array_equal(
        mponet_jax.backend.predict(merged, images), mponet_jax.backend.predict(native, images)
    )
    np.testing.assert_array_equal(
        mponet_jax.backend.predict(merged, images, masks), mponet_jax.backend.predict(native, images, masks)
    )
    assert list(slots(merged)) == list(slots(native))


@wide_networks
def test_a_network_is_a_function_to_compile_and_prints_its_parts(model):
    native = lowered(model)
    images = jnp.asarray(small.batch(model)[0], jnp.float32)
    native.eval()
    found, expected = nnx.jit(lambda native, x: native(x))(native, images), np.asarray(native(images))
    # two orders of the same float32 sums: none has as many as 1000 terms, one after the other ten
    # times at most
    np.testing.assert_allclose(found, expected, atol=10 * 1000 * 2**-24 * np.abs(expected).max())
    assert "BatchNorm( # Param" in repr(native)
    assert "BatchNorm" in nnx.tabulate(native, images, console_kwargs={"width": 200})


def test_statistics_are_of_another_type_than_parameters():
    native = lowered(RESNET)
    for slot in slots(native).values():
        assert isinstance(slot.parameter, nnx.Param if slot.trainable else nnx.BatchStat)


# ---------------------------------------------------------------- blocks alone


def test_blocks_without_parameters_are_what_they_say():
    maps = normal(2, 7, 8, 3)
    pooled = blocks.AvgPool(3, 2)(jnp.asarray(maps))
    assert pooled.shape == (2, 3, 3, 3)
    np.testing.assert_allclose(pooled[1, 2, 1], maps[1, 4:7, 2:5].mean((0, 1)), rtol=1e-5)
    whole = blocks.AvgPool(2, 2)(jnp.asarray(maps))
    assert whole.shape == (2, 3, 4, 3)
    np.testing.assert_allclose(whole[0, 2, 3], maps[0, 4:6, 6:8].mean((0, 1)), rtol=1e-5)
    np.testing.assert_array_equal(blocks.ReshapeNHWC((7, 8, 3))(blocks.FlattenNHWC()(maps)), maps)
    padded = blocks.PadChannels(2)(maps)
    np.testing.assert_array_equal(padded, np.concatenate((maps, np.zeros((2, 7, 8, 2))), axis=-1))
    relu = blocks.ReLU()
    np.testing.assert_array_equal(blocks.Residual(relu)(maps), np.maximum(maps, 0) + maps)
    np.testing.assert_array_equal(blocks.Residual(relu, relu)(maps), 2 * np.maximum(maps, 0))
    np.testing.assert_array_equal(blocks.Concat(relu)(maps), np.concatenate((maps, np.maximum(maps, 0)), axis=-1))


@pytest.mark.parametrize("size, stride", [(2, 2), (3, 2), (2, 3), (7, 7)])
def test_gradients_of_an_average_are_shares(size, stride):
    maps = jnp.asarray(normal(1, 7, 8, 2))
    slope = jax.grad(lambda maps: blocks.AvgPool(size, stride)(maps).sum())(maps)
    windows = np.zeros((7, 8))
    for row in range(0, 7 - size + 1, stride):
        for column in range(0, 8 - size + 1, stride):
            windows[row : row + size, column : column + size] += 1 / size**2
    np.testing.assert_allclose(slope[0, :, :, 1], windows, rtol=1e-6)


# ---------------------------------------------------------------- batch norm


def test_the_running_variance_is_the_biased_one():
    norm, inputs = blocks.BatchNorm(3, decay=0.75), normal(2, 2, 1, 3)
    norm(jnp.asarray(inputs))
    np.testing.assert_allclose(norm.mean[...], 0.25 * inputs.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.75 + 0.25 * inputs.var((0, 1, 2)), rtol=1e-5)
    norm.eval()
    before = norm.mean[...]
    outputs = norm(jnp.asarray(inputs))
    np.testing.assert_array_equal(norm.mean[...], before)
    expected = (inputs - norm.mean[...]) / np.sqrt(norm.var[...] + 1e-3)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_its_state_is_that_of_nnx():
    ours, theirs = blocks.BatchNorm(3), nnx.BatchNorm(3, epsilon=1e-3, rngs=nnx.Rngs(0))
    ours(jnp.asarray(normal(9, 3, mean=2.0)))
    nnx.update(theirs, nnx.state(ours))
    for norm in (ours, theirs):
        norm.eval()
    inputs = jnp.asarray(normal(4, 3, seed=1))
    np.testing.assert_allclose(ours(inputs), theirs(inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(512, 2), (16, 8, 4, 2)])
def test_a_spread_far_below_the_mean_survives_float32(shape):
    """``E[x^2]`` is near 2^24, where float32 numbers are 1 to 2 apart; the variance is 1."""
    inputs = normal(*shape, mean=4000.0)
    axes = tuple(range(inputs.ndim - 1))
    exact = inputs.astype(np.float64)
    normed = (exact - exact.mean(axes)) / np.sqrt(exact.var(axes) + 1e-3)
    norm, theirs = blocks.BatchNorm(2, decay=0.0), nnx.BatchNorm(2, epsilon=1e-3, rngs=nnx.Rngs(0))
    # the mean is a sum of 512 numbers: off by at most 512 half ulps, u times 4000 each; the
    # variance by its square
    off = 512 * 2**-24 * 4000
    assert np.abs(np.asarray(norm(jnp.asarray(inputs))) - normed).max() < off * 1.1
    np.testing.assert_allclose(norm.var[...], exact.var(axes), rtol=1.1 * off**2)
    assert np.abs(np.asarray(theirs(jnp.asarray(inputs))) - normed).max() > 1  # the check can tell


def test_derivatives_of_every_order_and_direction_are_those_of_the_definition():
    def definition(inputs):
        mean, variance = inputs.mean((0, 1)), inputs.var((0, 1))
        return (jnp.sin((inputs - mean) / jnp.sqrt(variance + 1e-3)) * weights).sum()

    def ours(inputs):
        norm = blocks.BatchNorm(2, param_dtype=jnp.float64)  # made here: it must belong to the trace that changes it
        return (jnp.sin(norm(inputs)) * weights).sum()

    with jax.enable_x64(True):
        inputs, weights = (jnp.asarray(normal(2, 3, 2, seed=seed), "float64") for seed in (0, 1))
        for derivative in (jax.grad, jax.jacfwd, jax.hessian):
            found, expected = derivative(ours)(inputs), derivative(definition)(inputs)
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_halves_stay_halves_and_their_statistics_are_wide():
    norm = blocks.BatchNorm(3, param_dtype=jnp.bfloat16)
    outputs = norm(jnp.asarray(normal(64, 3), jnp.bfloat16))
    assert (outputs.dtype, norm.scale.dtype, norm.var.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    assert blocks.BatchNorm(3)(jnp.asarray(normal(64, 3), jnp.bfloat16)).dtype == jnp.float32


# ---------------------------------------------------------------- dropout


def test_dropout_draws_in_training_and_does_nothing_in_inference():
    dropout, inputs = blocks.Dropout(0.25, rngs=nnx.Rngs(0)), jnp.ones((100, 100))
    first, second = dropout(inputs), dropout(inputs)
    assert set(np.unique(first)) == {0.0, np.float32(1 / 0.75)}
    assert abs(float((first == 0).mean()) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 1e4)  # five standard deviations
    assert not np.array_equal(first, second)
    dropout.eval()
    np.testing.assert_array_equal(dropout(inputs), inputs)
    dropout.kept = jnp.zeros((100, 100), bool).at[0].set(True)
    np.testing.assert_allclose(dropout(inputs).sum(), 100 / 0.75, rtol=1e-6)
    with pytest.raises(ModelError, match=r"\(100, 100\); expected \(1, 100\)"):
        dropout(inputs[:1])


def test_every_dropout_of_a_network_has_a_stream_of_its_own():
    first, second = dropouts(lowered(VGG))
    inputs = jnp.ones((10, 10))
    assert not np.array_equal(first(inputs), second(inputs))


def test_masks_are_gone_behind_dropping_whatever_happened():
    native = lowered(VGG)
    images, labels, masks = small.batch(VGG)
    with dropping(native, masks):
        assert all(np.array_equal(module.kept, mask) for module, mask in zip(dropouts(native), masks, strict=True))
    with pytest.raises(KeyError), dropping(native, masks):
        raise KeyError
    assert all(module.kept is None for module in dropouts(native))
    with pytest.raises(ModelError, match="1 masks for 2 dropouts"), dropping(native, masks[:1]):
        pass
    with jax.checking_leaks():
        mponet_jax.backend.predict(native, images, masks)
        mponet_jax.backend.gradients(native, images, labels, masks)
    assert all(module.kept is None for module in dropouts(native))


def test_masks_are_arguments_of_what_is_compiled():
    native = lowered(VGG)
    images = jnp.asarray(small.batch(VGG)[0], jnp.float32)
    calls = []

    @jax.jit
    def logits(native, images):
        calls.append(None)
        return native(images)

    native.eval()
    found = []
    for step in range(2):
        with dropping(native, sample_masks(dropout_layers(VGG), 6, 0, step)):
            found.append(logits(native, images))
            expected = np.asarray(native(images))
            np.testing.assert_allclose(found[-1], expected, atol=1e-3 * np.abs(expected).max())
    assert len(calls) == 1
    assert not np.allclose(*found)


def test_new_masks_shares_and_rates_compile_nothing():
    native = lowered(VGG)
    images, labels, _ = small.batch(VGG)
    trainer = mponet_jax.backend.trainer(native, RECIPE)
    compiled = []
    for step, (rate, share) in enumerate(((0.1, 1.0), (0.05, 0.5), (1, 0))):
        masks = sample_masks(dropout_layers(VGG), 6, 0, step)
        trainer.step(images, labels, rate, masks=masks, share=share)
        mponet_jax.backend.predict(native, images, masks)
        mponet_jax.backend.gradients(native, images, labels, masks)
        compiled.append([f._cache_size() for f in (trainer._step, train._logits, train._slopes)])
    assert compiled[0] == compiled[1] == compiled[2]


def test_only_a_dropout_without_a_mask_draws():
    native = lowered(VGG)
    images, labels, masks = small.batch(VGG)
    trainer = mponet_jax.backend.trainer(native, RECIPE)
    trainer.step(images, labels, 0.1, masks=masks, share=1.0)
    mponet_jax.backend.gradients(native, images, labels, masks)
    mponet_jax.backend.predict(native, images)
    assert counts(native) == [0, 0]
    trainer.step(images, labels, 0.1, share=0.5)
    mponet_jax.backend.gradients(native, images, labels)
    assert counts(native) == [2, 2]


# ---------------------------------------------------------------- training


def test_steps_move_statistics_and_gradients_do_not():
    native = lowered(RESNET)
    images, labels, _ = small.batch(RESNET)
    before = mponet_jax.backend.parameters(native)
    trainer = mponet_jax.backend.trainer(native, RECIPE)
    mponet_jax.backend.gradients(native, images, labels)
    names = [name for name, slot in slots(native).items() if not slot.trainable]
    assert all(np.array_equal(mponet_jax.backend.parameters(native)[name], before[name]) for name in names)
    clone = nnx.clone(native)
    trainer.step(images, labels, 0.05, share=1.0)
    assert not any(np.array_equal(mponet_jax.backend.parameters(native)[name], before[name]) for name in names)
    assert all(np.array_equal(mponet_jax.backend.parameters(clone)[name], before[name]) for name in before)


def test_a_step_after_a_prediction_is_one_of_training():
    native, other = lowered(RESNET), lowered(RESNET)
    images, labels, _ = small.batch(RESNET)
    first, second = (mponet_jax.backend.trainer(one, RECIPE) for one in (native, other))
    mponet_jax.backend.predict(native, images)
    assert float(first.step(images, labels, 0.05)) == float(second.step(images, labels, 0.05))


def test_the_average_of_halves_is_in_float32():
    native = lowered(FC2, "bfloat16")
    images, labels, _ = small.batch(FC2)
    trainer = mponet_jax.backend.trainer(native, RECIPE)
    for share in (1.0, 1e-3):
        trainer.step(images, labels, 0.5, share=share)
    state = trainer.state()
    assert state["average/fc1/core1"].dtype == np.float32
    rounded = np.asarray(jnp.asarray(state["average/fc1/core1"], jnp.bfloat16), np.float32)
    assert not np.array_equal(rounded, state["average/fc1/core1"])


def test_a_state_of_another_recipe_or_shape_is_refused_and_none_is_a_fresh_start():
    native = lowered(FC2)
    images, labels, _ = small.batch(FC2)
    trainer = mponet_jax.backend.trainer(native, RECIPE)
    assert trainer.state() == {}
    trainer.step(images, labels, 0.05, share=1.0)
    state = trainer.state()
    with pytest.raises(CheckpointError, match="average/fc2/bias has the shape"):
        trainer.restore({**state, "average/fc2/bias": np.zeros(3)})
    for changes, kept, dropped in (
        ({"average": 0.0}, "velocity/", "average/"),
        ({"momentum": 0.0}, "average/", "velo"),
    ):
        recipe = replace(RECIPE, nesterov=False, **changes)
        with pytest.raises(CheckpointError, match="expected velocities and averages as the recipe") as caught:
            mponet_jax.backend.trainer(lowered(FC2), recipe).restore(state)
        expected = str(caught.value).partition("keeps them")[2]
        assert kept in expected and dropped not in expected
    trainer.restore({})
    assert trainer.state() == {}


@pytest.mark.parametrize("placed", [False, True], ids=["anywhere", "on a device"])
def test_a_restored_state_is_committed_as_the_parameters_are_so_that_the_step_compiles_once(placed):
    device = "cpu" if placed else None
    natives = [mponet_jax.backend.build(FC2, small.values(FC2), device=device) for _ in range(2)]
    images, labels, _ = small.batch(FC2)
    recipe = replace(RECIPE, weight_decay=0.0123)  # of no other test, whose compilations would be counted as well
    first, resumed = (mponet_jax.backend.trainer(native, recipe) for native in natives)
    first.step(images, labels, 0.1, share=0.5)
    resumed.restore(first.state())
    for _ in range(2):
        resumed.step(images, labels, 0.1, share=0.5)
    assert first._step is resumed._step
    assert resumed._step._cache_size() == 1 + placed  # the parameters of the other case were placed otherwise
