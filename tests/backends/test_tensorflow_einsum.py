"""Einsums of Keras whose kernel is an operator."""

import numpy as np
import pytest

from mponet.errors import InputError, ShapeError

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from mponet_tensorflow import MPOEinsumDense  # noqa: E402

#: Equation, output shape and bias axes of `keras.layers.EinsumDense`, and a shape of inputs.
CASES = [
    ("ab,bc->ac", 12, "c", (5, 8)),
    ("...x,xy->...y", 12, None, (5, 3, 8)),
    ("abc,cde->abde", (None, 4, 6), "de", (5, 3, 8)),
    ("abc,dce->adbe", (4, None, 6), "e", (5, 3, 8)),
    ("abcd,cde->abe", (None, 12), "e", (5, 3, 4, 6)),
    ("acb,cd->abd", (None, 12), "d", (5, 8, 3)),
]


def dense_layer(equation, output_shape, bias_axes, shape):
    keras.utils.set_random_seed(0)
    layer = keras.layers.EinsumDense(
        equation, output_shape, activation="tanh", bias_axes=bias_axes, bias_initializer="normal", dtype="float64"
    )
    layer.build(shape)
    return layer


@pytest.mark.parametrize(("equation", "output_shape", "bias_axes", "shape"), CASES)
def test_an_operator_of_every_bond_is_the_dense_layer(equation, output_shape, bias_axes, shape):
    dense = dense_layer(equation, output_shape, bias_axes, shape)
    layer = MPOEinsumDense.from_dense(dense)
    inputs = np.random.default_rng(0).normal(size=shape)
    wanted = dense(inputs).numpy()
    np.testing.assert_allclose(layer(inputs).numpy(), wanted, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(layer.kernel.numpy(), dense.kernel.numpy(), rtol=1e-12, atol=1e-12)
    again = layer.to_dense()
    np.testing.assert_allclose(again(inputs).numpy(), wanted, rtol=1e-12, atol=1e-12)
    assert tuple(layer.compute_output_shape((None, *shape[1:]))) == (None, *wanted.shape[1:])


@pytest.mark.parametrize(("equation", "output_shape", "bias_axes", "shape"), CASES)
def test_models_with_it_are_traced_saved_and_trained(equation, output_shape, bias_axes, shape, tmp_path):
    layer = MPOEinsumDense.from_dense(dense_layer(equation, output_shape, bias_axes, shape), max_bond=2)
    inputs = keras.Input(shape[1:], dtype="float64")
    model = keras.Model(inputs, layer(inputs))
    data = np.random.default_rng(0).normal(size=shape)
    traced = tf.function(model, input_signature=[tf.TensorSpec((None, *shape[1:]), tf.float64)])
    np.testing.assert_allclose(traced(data).numpy(), layer(data).numpy(), rtol=1e-12, atol=1e-12)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(data).numpy(), model(data).numpy())
    model.compile("sgd", "mse")
    model.fit(data, np.zeros_like(model(data)), verbose=0)
    assert not np.array_equal(again(data).numpy(), model(data).numpy())


def test_what_is_no_product_with_one_matrix_is_refused():
    with pytest.raises(ShapeError, match="one matrix for each of its entries"):
        MPOEinsumDense.from_dense(dense_layer("abc,bcd->abd", (3, 12), None, (5, 3, 8)))
    with pytest.raises(InputError, match="bias along b"):
        MPOEinsumDense.from_dense(dense_layer("abc,cd->abd", (3, 12), "bd", (5, 3, 8)))
    with pytest.raises(ShapeError, match="along axes"):
        MPOEinsumDense("ab,bc->ac", (8, 12), 4)(np.ones((5, 9)))
