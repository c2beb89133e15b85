"""What Keras users do with its convolutions and embeddings.

What all frameworks promise is elsewhere.
"""

import os

import numpy as np
import pytest

from mponet.errors import InputError, ShapeError

if "tensorflow" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name tensorflow", allow_module_level=True)

import keras
import tensorflow as tf

from mponet_tensorflow import MPOConv1D, MPOConv2D, MPOEmbedding


def test_a_functional_model_of_maps_of_any_size_is_saved_and_loaded(tmp_path):
    inputs = keras.Input((None, None, 4))
    maps = MPOConv2D(8, 3, 3, 2, "same", structure="spatial", kernel_regularizer="l2")(inputs)
    maps = MPOConv2D(8, 3, 3, structure="channel", activation="relu")(maps)
    model = keras.Model(inputs, maps)
    assert maps.shape == (None, None, None, 8)
    images = np.random.default_rng(0).normal(size=(2, 11, 9, 4)).astype(np.float32)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images), model(images))
    assert again.predict(images, verbose=0).shape == (2, 4, 3, 8)
    model.compile("sgd", "mse")
    before = model.evaluate(images, np.zeros((2, 4, 3, 8)), verbose=0)
    model.fit(images, np.zeros((2, 4, 3, 8)), epochs=3, verbose=0)
    assert model.evaluate(images, np.zeros((2, 4, 3, 8)), verbose=0) < before


def test_a_tied_language_model_is_saved_and_loaded(tmp_path):
    embedding = MPOEmbedding(30, 8, 4, mask_zero=True, embeddings_regularizer="l2")
    tokens = keras.Input((None,), dtype="int32")
    states = keras.layers.GRU(8, return_sequences=True)(embedding(tokens))
    model = keras.Model(tokens, embedding(states, reverse=True))
    assert model.output_shape == (None, None, 30)
    batch = np.array([[1, 2, 0], [29, 5, 6]])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(batch), model(batch))
    assert len(again.layers[1].weights) == 2
    assert len(model.losses) == 1


def test_mask_zero_masks_as_the_dense_layer_does():
    layer = MPOEmbedding(30, 8, 4, mask_zero=True)
    tokens = tf.constant([[1, 2, 0]])
    np.testing.assert_array_equal(layer.compute_mask(tokens), [[True, True, False]])
    assert layer.compute_mask(tf.ones((1, 3, 8))) is None
    assert MPOEmbedding(30, 8, 4).compute_mask(tokens) is None


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "float64"])
def test_dtype_policies(policy):
    compute = keras.dtype_policies.get(policy).compute_dtype
    assert MPOConv2D(8, 3, 3, dtype=policy)(tf.ones((2, 6, 6, 4))).dtype == compute
    embedding = MPOEmbedding(30, 8, 4, dtype=policy)
    rows = embedding(tf.constant([[1, 2]]))
    assert rows.dtype == embedding(rows, reverse=True).dtype == compute


def test_channels_first_is_the_same_convolution():
    last = MPOConv2D(6, 3, 3, padding="same", dtype="float64")
    maps = np.random.default_rng(0).normal(size=(2, 5, 4, 4))
    wanted = last(maps)
    first = MPOConv2D(6, 3, 3, padding="same", data_format="channels_first", dtype="float64")
    first.build((None, 4, 5, 4))
    first.set_weights(last.get_weights())
    found = first(np.moveaxis(maps, -1, 1))
    assert tuple(found.shape) == first.compute_output_shape((2, 4, 5, 4)) == (2, 6, 5, 4)
    np.testing.assert_allclose(np.moveaxis(found, 1, -1), wanted, rtol=0, atol=1e-12)


def test_causal_padding_activation_and_options_carry_over():
    dense = keras.layers.Conv1D(6, 3, padding="causal", dilation_rate=2, activation="tanh", kernel_regularizer="l2")
    maps = np.random.default_rng(0).normal(size=(2, 7, 4)).astype(np.float32)
    wanted = dense(maps)
    penalty = dense.losses[0]
    dense.trainable = False
    layer = MPOConv1D.from_conv(dense)
    assert not layer.trainable
    assert layer.name == dense.name
    np.testing.assert_allclose(layer(maps), wanted, atol=1e-6)
    assert not layer.losses  # as with the dense layer, a frozen kernel costs nothing
    layer.trainable = True
    np.testing.assert_allclose(layer.losses[0], penalty, rtol=1e-5)
    again = type(layer).from_config(layer.get_config())
    again.build(maps.shape)
    again.set_weights(layer.get_weights())
    np.testing.assert_allclose(again(maps), wanted, atol=1e-6)
    np.testing.assert_allclose(layer.to_dense()(maps), wanted, atol=1e-6)


def test_lora_is_merged_and_quantised_tables_are_refused():
    dense = keras.layers.Conv2D(6, 3)
    dense.build((None, 5, 5, 4))
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(tf.ones_like(dense.lora_kernel_b))
    np.testing.assert_allclose(MPOConv2D.from_conv(dense).to_kernel(), np.array(dense.kernel), atol=1e-5)
    table = keras.layers.Embedding(20, 6)
    table.build()
    table.quantize("int8")
    with pytest.raises(InputError, match="int8"):
        MPOEmbedding.from_embedding(table)


def test_what_tensorflow_has_no_convolution_for_is_refused():
    with pytest.raises(ShapeError, match="both"):
        MPOConv2D(6, 3, 3, strides=2, dilation_rate=2)
    with pytest.raises(ShapeError, match="no weights yet"):
        MPOConv2D.from_conv(keras.layers.Conv2D(6, 3))
    with pytest.raises(ShapeError, match="number of channels"):
        MPOConv2D(6, 3, 3).build((None, 5, 5, None))
