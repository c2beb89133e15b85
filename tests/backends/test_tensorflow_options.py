"""`MPODense` and `NetworkDense` keep the arguments and surroundings of `keras.layers.Dense`."""

import os

import numpy as np
import pytest

REQUESTED = "tensorflow" in os.environ.get("MPONET_BACKENDS", "").replace(" ", "").split(",")
pytestmark = pytest.mark.skipif(not REQUESTED, reason="MPONET_BACKENDS does not name tensorflow")

if REQUESTED:  # named but missing is an error, not a skip
    import keras
    import tensorflow as tf

    import graphs
    from mponet.errors import InputError
    from mponet_tensorflow import MPODense, NetworkDense


def built(units=12, features=16, **options):
    dense = keras.layers.Dense(units, **options)
    dense.build((None, features))
    return dense


def inputs(features=16):
    return np.random.default_rng(0).normal(size=(5, features)).astype("float32")


def layers(**options):
    yield MPODense((4, 3), 5, input_dims=(4, 4), **options), 16
    ring = graphs.WIRINGS["ring"]
    yield NetworkDense(ring, **options), ring.in_features


@pytest.mark.parametrize("number", [0, 1])
def test_the_regulariser_sees_the_whole_kernel_and_has_gradients(number):
    layer, features = list(layers(kernel_regularizer=keras.regularizers.L2(0.5), bias_regularizer="l1"))[number]
    layer.build((None, features))
    layer.bias.assign(np.arange(layer.units))
    matrix = layer.to_matrix()
    assert float(sum(layer.losses)) == pytest.approx(
        0.5 * (matrix**2).sum() + 0.01 * np.arange(layer.units).sum(), rel=1e-5
    )
    with tf.GradientTape() as tape:
        loss = tf.add_n(layer.losses)
    gradients = tape.gradient(loss, [tensor.value for tensor in layer.tensors])
    # the kernel is linear in each core, so a homogeneous quadratic gives twice its value
    for tensor, gradient in zip(layer.tensors, gradients, strict=True):
        assert float(tf.reduce_sum(tensor * gradient)) == pytest.approx(0.5 * 2 * (matrix**2).sum(), rel=1e-4)


@pytest.mark.parametrize("number", [0, 1])
def test_the_kernel_is_the_dense_matrix(number):
    layer, features = list(layers(dtype="float64"))[number]
    layer.build((None, features))
    np.testing.assert_allclose(layer.kernel, layer.to_matrix(), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "value", "variance"),
    [("he_normal", None, 2 / 16), ("lecun_uniform", None, 1 / 16), ("random", 0.05, 0.05**2), ("uniform", 0.3, 0.03)],
)
def test_initialisers_of_keras_give_their_variance(name, value, variance):
    given = {
        "random": lambda: keras.initializers.RandomNormal(0, value),
        "uniform": lambda: keras.initializers.RandomUniform(-value, value),
    }.get(name, lambda: name)()
    layer = MPODense((4, 3), 5, input_dims=(4, 4), kernel_initializer=given, bias_initializer="ones")
    layer.build((None, 16))
    assert layer.initializer == pytest.approx(variance)
    assert layer.bias.numpy().tolist() == [1.0] * 12


def test_an_initialiser_without_a_variance_is_refused():
    with pytest.raises(InputError, match="expected one with a variance"):
        MPODense(12, 5, kernel_initializer="identity")


def test_constraints_hold_after_a_step():
    layer = MPODense((4, 3), 5, input_dims=(4, 4), kernel_constraint="non_neg", bias_constraint="non_neg")
    model = keras.Sequential([layer])
    model.compile("sgd", "mse")
    model.fit(inputs(), -np.ones((5, 12), "float32"), verbose=0)
    assert all((core.numpy() >= 0).all() for core in layer.cores)


def test_options_survive_the_config():
    layer = MPODense(12, 5, kernel_regularizer="l2", kernel_initializer="he_normal", activity_regularizer="l1")
    again = MPODense.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert isinstance(again.options.kernel_regularizer, keras.regularizers.L2)


def test_from_dense_keeps_what_the_dense_layer_had():
    dense = built(name="fc1", kernel_regularizer="l2", bias_constraint="non_neg", dtype="mixed_bfloat16")
    dense.trainable = False
    layer = MPODense.from_dense(dense)
    assert (layer.name, layer.trainable, layer.dtype_policy.name) == ("fc1", False, "mixed_bfloat16")
    assert isinstance(layer.options.kernel_regularizer, keras.regularizers.L2)
    back = layer.to_dense()
    assert (back.name, back.trainable) == ("fc1", False)
    layer.trainable = dense.trainable = True
    assert float(layer.losses[0]) == pytest.approx(float(dense.losses[0]), rel=1e-4)


def test_an_int8_layer_is_read_with_its_scale():
    dense = built()
    exact = dense(inputs())
    dense.quantize("int8")
    layer = MPODense.from_dense(dense)
    assert layer.dtype_policy.name == "float32"
    np.testing.assert_allclose(layer(inputs()), exact, atol=0.03 * np.abs(exact).max())


def test_lora_is_merged():
    dense = built(lora_rank=2)
    dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
    np.testing.assert_allclose(MPODense.from_dense(dense)(inputs()), dense(inputs()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["int4", "float8"])
def test_other_quantisations_are_refused(mode):
    dense = built()
    dense.quantize(mode)
    with pytest.raises(InputError, match=f"quantised to {mode}"):
        MPODense.from_dense(dense)


def test_complex_numbers_are_refused():
    with pytest.raises(InputError, match="the layer has dtype complex64"):
        MPODense(12, 5, dtype="complex64")
    layer = MPODense(12, 5, input_dims=(4, 4))
    with pytest.raises(InputError, match="inputs has dtype complex128"):
        layer(tf.ones((2, 16), tf.complex128))


@pytest.mark.parametrize("foreign", ["Conv2D", "Embedding", "MPODense"])
def test_what_is_no_dense_layer_is_refused(foreign):
    makes = {
        "Conv2D": lambda: keras.layers.Conv2D(4, 3),
        "Embedding": lambda: keras.layers.Embedding(10, 4),
        "MPODense": lambda: MPODense(12, 5),
    }
    with pytest.raises(InputError, match=r"expected a keras\.layers\.Dense"):
        MPODense.from_dense(makes[foreign]())
