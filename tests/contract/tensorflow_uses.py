"""The uses of a layer in Keras on TensorFlow."""

import copy
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import graphs
from contract.uses import Kind
from mponet.errors import InputError, MPONetError, ShapeError
from mponet_tensorflow import MPODense, NetworkDense

ABSENT = {
    "traced": "TensorFlow has one tracer, `tf.function`",
    "parametrised": "Keras has constraints instead, which the layer takes",
    "hooks": "Keras layers have no hooks",
    "copied": "Keras layers are copied by their config and weights, as they are saved",
}


def kinds():
    """The kinds of layers that the contract is for."""

    def built(layer, features):
        layer.build((None, features))
        return layer

    def inputs(layer, batch=5):
        return tf.constant(np.random.default_rng(batch).normal(size=(batch, layer.in_features)))

    ring = graphs.WIRINGS["ring"]
    return (
        Kind(
            "MPODense",
            lambda **options: built(
                MPODense((4, 3), 5, input_dims=(4, 4), **{"dtype": "float64", "seed": 1, **options}), 16
            ),
            inputs,
        ),
        Kind(
            "NetworkDense",
            lambda **options: built(NetworkDense(ring, **{"dtype": "float64", "seed": 1, **options}), ring.in_features),
            inputs,
        ),
    )


def close(found, expected, tolerance=1e-12):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


def gradients(layer, x, wanted=None):
    """Gradients of a fixed function of the outputs by the inputs, or by ``wanted``."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(tf.sin(layer(x)))
    return tape.gradient(total, [x] if wanted is None else wanted)


def outputs(kind):
    layer = kind.make()
    dense, x = layer.to_dense(), kind.inputs(layer)
    close(layer(x), dense(x))
    close(gradients(layer, x)[0], gradients(dense, x)[0])


def training(kind):
    layer = kind.make(dtype="float32")
    x = np.asarray(kind.inputs(layer, 32), "float32")
    model = keras.Sequential([keras.Input((layer.in_features,)), layer])
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    targets = np.roll(np.asarray(layer(x)), 1, 0)
    losses = model.fit(x, targets, batch_size=32, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]


def inference(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    for _ in range(2):
        close(layer(x), layer.to_dense()(x))
        layer.tensors[0].assign(2.0 * layer.tensors[0])


def frozen(kind):
    layer = kind.make()
    layer.trainable = False
    assert not layer.trainable_weights
    assert gradients(layer, kind.inputs(layer))[0] is not None


def second_derivative(kind):
    layer = kind.make()
    x = kind.inputs(layer)

    def penalty(module):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(gradients(module, x)[0] ** 2)
        return tape.gradient(value, x)

    close(penalty(layer), penalty(layer.to_dense()), 1e-10)


def batched_gradients(kind):
    layer = kind.make()
    dense, x = layer.to_dense(), kind.inputs(layer)

    def jacobian(module):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = module(x)
        return tape.batch_jacobian(y, x)

    close(jacobian(layer), jacobian(dense))


def mapped(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    close(tf.vectorized_map(lambda row: layer(row[None])[0], x), layer(x))


def recomputed(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    again = tf.recompute_grad(lambda x: layer(x))
    close(gradients(again, x)[0], gradients(layer, x)[0])


def mixed_precision(kind):
    layer = kind.make(dtype="mixed_bfloat16")
    x = tf.cast(kind.inputs(layer), "float32")
    assert layer(x).dtype == "bfloat16"
    assert {weight.dtype for weight in layer.weights} == {"float32"}
    close(tf.cast(layer(x), "float32"), tf.cast(layer.to_dense()(x), "float32"), 2**-5)
    assert kind.make()(kind.inputs(layer)).dtype == "float64"


def compiled(kind):
    for xla in (False, True):
        layer = kind.make()
        x = kind.inputs(layer)
        run = tf.function(layer, jit_compile=xla)
        close(run(x), layer(x))
        slope = tf.function(lambda x, layer=layer: gradients(layer, x)[0], jit_compile=xla)
        close(slope(x), gradients(layer, x)[0])


def exported(kind):
    layer = kind.make()
    spec = tf.TensorSpec((None, layer.in_features), "float64")
    program = tf.function(layer, input_signature=[spec]).get_concrete_function()
    for batch in (1, 9, 300):
        close(program(kind.inputs(layer, batch)), layer(kind.inputs(layer, batch)))


def without_numbers(kind):
    layer = type(kind.make()).from_config(kind.make().get_config())
    assert not layer.built
    assert "built=False" in repr(layer)
    with pytest.raises(ShapeError, match="expected a built layer"):
        _ = layer.tensors
    again = keras.layers.deserialize(keras.layers.serialize(kind.make()))
    close(again(kind.inputs(kind.make())), kind.make()(kind.inputs(kind.make())), 0)


def saved(kind):
    import tempfile
    from pathlib import Path

    layer = kind.make()
    model = keras.Sequential([keras.Input((layer.in_features,), dtype="float64"), layer])
    x = kind.inputs(layer)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        close(keras.saving.load_model(Path(folder) / "model.keras")(x), model(x), 0)
        model.save_weights(Path(folder) / "model.weights.h5")
        dense = keras.Sequential([keras.Input((layer.in_features,), dtype="float64"), layer.to_dense()])
        with pytest.raises((ValueError, KeyError)):
            dense.load_weights(Path(folder) / "model.weights.h5")
    twin = kind.make(seed=9)
    twin.set_weights(layer.get_weights())
    close(twin(x), layer(x), 0)
    assert copy.deepcopy(layer.get_config()) == layer.get_config()


def averaged(kind):
    layer = kind.make(dtype="float32")
    model = keras.Sequential([keras.Input((layer.in_features,)), layer])
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, "mse")
    x = np.asarray(kind.inputs(layer, 8), "float32")
    model.fit(x, np.zeros((8, layer.units), "float32"), epochs=2, verbose=0)
    optimizer.finalize_variable_values(model.trainable_variables)
    close(layer(x), layer.to_dense()(x), 1e-5)


def threads(kind):
    layer, problems = kind.make(), []
    dense = layer.to_dense()

    def serve(batch):
        x = kind.inputs(layer, batch)
        try:
            for _ in range(50):
                close(layer(x), dense(x))
        except Exception as problem:  # every one counts, whatever it is
            problems.append(problem)

    workers = [threading.Thread(target=serve, args=(batch,)) for batch in (1, 53, 200) * 2]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not problems


def many_batches(kind):
    layer = kind.make()
    assert len({id(layer.plans(batch)) for batch in range(1, 20_000, 7)}) <= 8 * 15  # eight for each power of two


def kept(kind):
    for policy, trainable in (("float64", True), ("mixed_bfloat16", False)):
        dense = kind.make(dtype=policy).to_dense()
        dense.trainable = trainable
        layer = type(kind.make()).from_dense(dense)
        assert layer.dtype_policy == dense.dtype_policy
        assert layer.trainable == trainable
        assert layer.to_dense().dtype_policy == dense.dtype_policy


def sources(kind):
    make = type(kind.make()).from_dense
    for foreign in (keras.layers.Conv2D(3, 1), keras.layers.Embedding(8, 6), kind.make(), np.ones((8, 6))):
        with pytest.raises(MPONetError, match="expected"):
            make(foreign)
    with pytest.raises(ShapeError, match="call it, or build"):
        make(keras.layers.Dense(3))


def weight_readers(kind):
    layer = kind.make()
    close(layer.kernel, layer.to_dense().kernel)


def odd_inputs(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    with pytest.raises(InputError, match="complex"):
        layer(tf.cast(x, "complex128"))
    with pytest.raises(ShapeError, match="expected"):
        layer(x[:, :-1])
    with pytest.raises(InputError, match="complex"):
        kind.make(dtype="complex64")
