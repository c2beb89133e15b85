"""The uses of a layer in Keras on TensorFlow."""

import copy
import tempfile
import threading
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import graphs
from contract.uses import Kind, check_budget, keeping, saving
from mponet.errors import InputError, MPONetError, ShapeError
from mponet_tensorflow import MPOConv1D, MPOConv2D, MPODense, MPOEmbedding, NetworkDense, freeze, unfreeze

ABSENT = {
    "traced": "TensorFlow has one tracer, `tf.function`",
    "parametrised": "Keras has constraints instead, which the layer takes",
    "hooks": "Keras layers have no hooks",
    "copied": "Keras layers are copied by their config and weights, as they are saved",
}
#: Kind to use to the reason why the kind does not have it.
ABSENT_KINDS = {
    "MPOEmbedding(reverse=True)": {
        "kept": "it is a call of an embedding, whose row this is",
        "sources": "it is a call of an embedding, whose row this is",
    },
}


@keras.saving.register_keras_serializable(package="contract")
class Head(keras.layers.Layer):
    """An output head: an embedding that is called in reverse."""

    def __init__(self, embedding, **options):
        super().__init__(**options)
        self.embedding = embedding

    def call(self, x):
        return self.embedding(x, reverse=True)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.embedding.input_dim)

    @property
    def kernel(self):
        return tf.transpose(self.embedding.kernel)

    def get_config(self):
        return {**super().get_config(), "embedding": keras.saving.serialize_keras_object(self.embedding)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "embedding": keras.saving.deserialize_keras_object(config["embedding"])})


def kinds():
    """The kinds of layers that the contract is for."""

    def maker(layer, size, *arguments, **fixed):
        def make(**options):
            made = layer(*arguments, **{"dtype": "float64", "seed": 1, **fixed, **options})
            made.build((None, *size))
            return made

        return make

    def normal(*size):
        return lambda _, batch=5: tf.constant(np.random.default_rng(batch).normal(size=(batch, *size)))

    def tokens(layer, batch=5):
        return tf.constant(np.random.default_rng(batch).integers(0, layer.input_dim, (batch, 3)))

    def linear(layer):
        bias = getattr(layer, "bias", None)
        return lambda x: tf.matmul(x, layer.kernel) + (0.0 if bias is None else tf.convert_to_tensor(bias))

    def one_axis(layer):
        return lambda x: tf.nn.conv1d(x, layer.kernel, 2, "SAME") + tf.convert_to_tensor(layer.bias)

    def two_axes(layer):
        return lambda x: tf.nn.conv2d(x, layer.kernel, 2, "SAME") + tf.convert_to_tensor(layer.bias)

    def gathered(layer):
        return lambda x: tf.gather(layer.kernel, x)

    def head(seed=1, dtype="float64", **options):
        made = Head(maker(MPOEmbedding, (), 13, 6, 3)(seed=seed, dtype=dtype, **options), dtype=dtype)
        made.build((None, 6))
        return made

    ring = graphs.WIRINGS["ring"]
    return (
        Kind("MPODense", maker(MPODense, (16,), (4, 3), 5, input_dims=(4, 4)), normal(16), linear),
        Kind("MPODense, padded", maker(MPODense, (31,), 29, 3), normal(31), linear),
        Kind("NetworkDense", maker(NetworkDense, (ring.in_features,), ring), normal(ring.in_features), linear),
        Kind("MPOConv1D", maker(MPOConv1D, (5, 4), 6, 3, 3, 2, "same"), normal(5, 4), one_axis),
        Kind(
            "MPOConv2D",
            maker(MPOConv2D, (5, 4, 4), 6, 3, 3, 2, "same"),
            normal(5, 4, 4),
            two_axes,
        ),
        Kind("MPOEmbedding", maker(MPOEmbedding, (), 13, 6, 3), tokens, gathered),
        Kind("MPOEmbedding(reverse=True)", head, normal(6), linear),
    )


def close(found, expected, tolerance=1e-12):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


def all_close(found, expected, tolerance=1e-12):
    for ours, theirs in zip(found, expected, strict=True):
        close(tf.convert_to_tensor(ours), tf.convert_to_tensor(theirs), tolerance)


def leaves(layer, x):
    """What outputs are differentiated by: inputs, unless they are tokens, and weights."""
    return [*([x] if x.dtype.is_floating else []), *(weight.value for weight in layer.trainable_weights)]


def run_together(serve):
    """Call it in six threads with three sizes of batch."""
    workers = [threading.Thread(target=serve, args=(batch,)) for batch in (1, 53, 200) * 2]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def first(layer):
    """A weight of the operator."""
    return getattr(layer, "embedding", layer).tensors[0]


def gradients(call, x, wanted):
    """Gradients of a fixed function of the outputs."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(tf.sin(call(x)))
    return tape.gradient(total, wanted)


def model_of(layer, x, **options):
    """A functional model of one layer."""
    inputs = keras.Input(x.shape[1:], dtype=x.dtype.name)
    return keras.Model(inputs, layer(inputs), **options)


def outputs(kind):
    layer = kind.make()
    x, reference = kind.inputs(layer), kind.reference(layer)
    close(layer(x), reference(x))
    all_close(gradients(layer, x, leaves(layer, x)), gradients(reference, x, leaves(layer, x)))
    if hasattr(layer, "to_dense"):
        close(layer(x), layer.to_dense()(x))


def training(kind):
    layer = kind.make(dtype="float32")
    x = kind.inputs(layer, 32)
    x = tf.cast(x, "float32") if x.dtype.is_floating else x
    model = model_of(layer, x)
    model.compile(keras.optimizers.Adam(2e-2), "mse")
    targets = np.roll(np.asarray(layer(x)), 1, 0)
    losses = model.fit(x, targets, batch_size=32, epochs=40, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]


def inference(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    for _ in range(2):
        close(layer(x), kind.reference(layer)(x))
        first(layer).assign(2.0 * first(layer))
    close(model_of(layer, x).predict(x, verbose=0), kind.reference(layer)(x), 1e-5)  # it feeds float32


def served(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    for sweeps in (True, False):
        original = model_of(layer, x)
        with keeping(sweeps):
            model, report = freeze(original, heads=isinstance(layer, Head))
        assert len(report.layers) == 1 and report.nbytes > 0
        if isinstance(layer, MPODense | Head):
            assert all(("matrix" in entry.kept) != sweeps for entry in report.layers.values())
        assert len(model.weights) == len(original.weights) and not model.trainable_weights
        graphs_of = tf.function(model), tf.function(model, jit_compile=True)
        for batch in (1, 300, 7, 1, 40):
            rows = kind.inputs(layer, batch)
            for call in (model, *graphs_of):
                close(call(rows), kind.reference(layer)(rows))
            close(model.predict(rows, verbose=0), kind.reference(layer)(rows), 1e-5)  # it feeds float32
        if x.dtype.is_floating:
            close(gradients(model, x, x), gradients(layer, x, x))
        open_batch = tf.TensorSpec((None, *x.shape[1:]), x.dtype)
        program = tf.function(model, input_signature=[open_batch]).get_concrete_function()
        for batch in (3, 600):
            close(program(kind.inputs(layer, batch)), kind.reference(layer)(kind.inputs(layer, batch)))
        with tempfile.TemporaryDirectory() as folder:
            model.export(Path(folder) / "model", verbose=False)
            loaded = tf.saved_model.load(Path(folder) / "model")
            close(loaded.serve(x), kind.reference(layer)(x))
            model.save(Path(folder) / "model.keras")
            close(keras.saving.load_model(Path(folder) / "model.keras")(x), kind.reference(layer)(x))
        problems = []

        def serve(batch, model=model, problems=problems):
            rows = kind.inputs(layer, batch)
            try:
                for _ in range(20):
                    close(model(rows), kind.reference(layer)(rows))
            except Exception as problem:  # every one counts, whatever it is
                problems.append(problem)

        run_together(serve)
        assert not problems
        owner = getattr(model.layers[-1], "embedding", model.layers[-1])
        for write in (lambda: setattr(owner, "trainable", True), lambda: owner.assign(owner.tensors)):  # noqa: B023
            with pytest.raises(InputError, match="frozen"):
                write()
        assert len(unfreeze(model).trainable_weights) == len(original.trainable_weights)
        first(model.layers[-1]).assign(2.0 * first(model.layers[-1]))
        close(model(x), kind.reference(model.layers[-1])(x))
        close(model.predict(x, verbose=0), kind.reference(model.layers[-1])(x), 1e-5)


def frozen(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    layer.trainable = False
    assert not layer.trainable_weights
    if x.dtype.is_floating:
        assert gradients(layer, x, x) is not None


def second_derivative(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    own = leaves(layer, x)

    def penalties(call):
        with tf.GradientTape() as tape:
            tape.watch(own)
            value = tf.add_n([tf.reduce_sum(tf.convert_to_tensor(g) ** 2) for g in gradients(call, x, own)])
        return tape.gradient(value, own)

    all_close(penalties(layer), penalties(kind.reference(layer)), 1e-10)


def forward_mode(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    own = leaves(layer, x)
    tangents = [tf.ones_like(tf.convert_to_tensor(leaf)) for leaf in own]

    def products(call):
        with tf.autodiff.ForwardAccumulator(own, tangents) as forward:
            y = call(x)
            with tf.GradientTape() as tape:
                tape.watch(own)
                total = tf.reduce_sum(tf.sin(call(x)))
            slopes = [tf.convert_to_tensor(slope) for slope in tape.gradient(total, own)]
        return [forward.jvp(y), *(forward.jvp(slope) for slope in slopes)]

    all_close(products(layer), products(kind.reference(layer)), 1e-10)


def batched_gradients(kind):
    layer = kind.make()
    x = kind.inputs(layer, 2)

    def jacobian(call):
        with tf.GradientTape() as tape:
            tape.watch(leaves(layer, x))
            y = call(x)
        return tape.jacobian(y, leaves(layer, x))

    all_close(jacobian(layer), jacobian(kind.reference(layer)))


def mapped(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    close(tf.vectorized_map(lambda row: layer(row[None])[0], x), layer(x))


def transformed(kind):
    for training in (True, False):
        layer = kind.make()
        x = kind.inputs(layer, 2)
        for transform in (_tangents_of_gradients, _gradients_of_samples):
            compiled = tf.function(lambda x, t=transform, one=layer, on=training: t(partial(one, training=on), one, x))
            all_close(compiled(x), transform(kind.reference(layer), layer, x), 1e-10)


def _tangents_of_gradients(call, layer, x):
    own = leaves(layer, x)
    tangents = [tf.cos(tf.convert_to_tensor(leaf)) for leaf in own]
    with tf.autodiff.ForwardAccumulator(own, tangents) as forward:
        with tf.GradientTape() as tape:
            tape.watch(own)
            y = call(x)
            total = tf.reduce_sum(tf.sin(y))
        slopes = [tf.convert_to_tensor(slope) for slope in tape.gradient(total, own)]
    return [forward.jvp(y), *(forward.jvp(slope) for slope in slopes)]


def _gradients_of_samples(call, layer, x):
    def of_row(row):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(tf.sin(call(row[None])))
        slopes = tape.gradient(total, layer.trainable_variables)
        return [tf.convert_to_tensor(slope) for slope in slopes]

    return tf.vectorized_map(of_row, x)


def memory(kind):
    found = []
    for states in (True, False):
        with saving(states):
            layer = kind.make()
            x = kind.inputs(layer)
            found.append(gradients(layer, x, leaves(layer, x)))
    assert all(np.array_equal(*pair) for pair in zip(*found, strict=True))
    all_close(found[0], gradients(kind.reference(layer), x, leaves(layer, x)))
    check_budget(kind, "embedding", lambda layer: type(layer).from_config(layer.get_config()))


def recomputed(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    again = tf.recompute_grad(lambda x: layer(x))
    all_close(gradients(again, x, leaves(layer, x)), gradients(layer, x, leaves(layer, x)))


def mixed_precision(kind):
    for policy, bits in (("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")):
        layer = kind.make(dtype=policy)
        x = kind.inputs(layer)
        x = tf.cast(x, "float32") if x.dtype.is_floating else x
        assert layer(x).dtype == bits
        assert {weight.dtype for weight in layer.weights} == {"float32"}
        narrow = tf.cast(x, bits) if x.dtype.is_floating else x
        expected = kind.reference(kind.make(dtype="float32"))(tf.cast(narrow, "float32") if narrow is not x else x)
        close(tf.cast(layer(x), "float32"), expected, 2**-5)
        model = model_of(layer, x)
        optimizer = keras.optimizers.SGD(0.01)
        if bits == "float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer, "mse")
        before = np.asarray(first(layer))
        model.fit(x, np.zeros(layer(x).shape, "float32"), epochs=2, verbose=0)
        assert np.isfinite(first(layer)).all() and not np.array_equal(first(layer), before)
    assert kind.make()(kind.inputs(layer)).dtype == "float64"


def compiled(kind):
    for xla in (False, True):
        layer = kind.make()
        x = kind.inputs(layer)
        close(tf.function(layer, jit_compile=xla)(x), layer(x))
        own = leaves(layer, x)
        slope = tf.function(
            lambda x, layer=layer: [tf.convert_to_tensor(g) for g in gradients(layer, x, leaves(layer, x))],
            jit_compile=xla,
        )
        all_close(slope(x), gradients(layer, x, own))


def exported(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    spec = tf.TensorSpec((None, *x.shape[1:]), x.dtype)
    program = tf.function(layer, input_signature=[spec]).get_concrete_function()
    for batch in (1, 9, 300):
        close(program(kind.inputs(layer, batch)), layer(kind.inputs(layer, batch)))
    with tempfile.TemporaryDirectory() as folder:
        model_of(layer, x).export(Path(folder) / "model", verbose=False)
        served = tf.saved_model.load(Path(folder) / "model")
        close(served.serve(kind.inputs(layer, 7)), layer(kind.inputs(layer, 7)))


def without_numbers(kind):
    made = kind.make()
    layer = type(made).from_config(made.get_config())
    if not isinstance(made, Head):
        assert not layer.built
        assert "built=False" in repr(layer)
        with pytest.raises(ShapeError, match="expected a built layer"):
            _ = layer.tensors
    x = kind.inputs(made)
    again = keras.layers.deserialize(keras.layers.serialize(made))
    close(again(x), kind.make()(x), 0)
    symbolic = made(keras.KerasTensor((None, *x.shape[1:]), x.dtype.name))
    assert symbolic.shape == (None, *made(x).shape[1:])


def saved(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    model = model_of(layer, x)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        close(keras.saving.load_model(Path(folder) / "model.keras")(x), model(x), 0)
        keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype.name), layer]).save_weights(
            path := f"{folder}/w.weights.h5"
        )
        if hasattr(layer, "to_dense"):
            dense = keras.Sequential([keras.Input(x.shape[1:], dtype=x.dtype.name), layer.to_dense()])
            with pytest.raises((ValueError, KeyError)):
                dense.load_weights(path)
    twin = kind.make(seed=9)
    twin.set_weights(layer.get_weights())
    close(twin(x), layer(x), 0)
    assert copy.deepcopy(layer.get_config()) == layer.get_config()


def averaged(kind):
    layer = kind.make(dtype="float32")
    x = kind.inputs(layer, 8)
    x = tf.cast(x, "float32") if x.dtype.is_floating else x
    model = model_of(layer, x)
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, "mse")
    model.fit(x, np.zeros(layer(x).shape, "float32"), epochs=2, verbose=0)
    pairs = zip(model.trainable_variables, optimizer._model_variables_moving_average, strict=True)
    close(first(layer), next(mean for own, mean in pairs if own is first(layer)))  # written when it ends
    close(layer(x), kind.reference(layer)(x), 1e-5)


def threads(kind):
    layer, problems = kind.make(), []

    def serve(batch):
        x = kind.inputs(layer, batch)
        expected = kind.reference(layer)(x)
        try:
            for _ in range(50):
                close(layer(x), expected)
        except Exception as problem:  # every one counts, whatever it is
            problems.append(problem)

    run_together(serve)
    assert not problems


def many_batches(kind):
    layer = kind.make()
    plans = getattr(layer, "embedding", layer).plans
    assert len({id(plans(batch)) for batch in range(1, 20_000, 7)}) <= 8 * 15  # eight for each power of two


def kept(kind):
    for policy, trainable in (("float64", True), ("mixed_bfloat16", False)):
        dense = kind.make(dtype=policy).to_dense()
        dense.trainable = trainable
        layer = type(kind.make()).from_dense(dense)
        assert layer.dtype_policy == dense.dtype_policy
        assert (layer.trainable, layer.name) == (trainable, dense.name)
        back = layer.to_dense()
        assert (back.dtype_policy, back.trainable, back.name) == (dense.dtype_policy, trainable, dense.name)


def sources(kind):
    layer = kind.make()
    taken = type(layer.to_dense())
    all_kinds = (
        keras.layers.Conv2D(3, 1),
        keras.layers.Conv1D(3, 1),
        keras.layers.Conv2DTranspose(3, 1),
        keras.layers.Embedding(8, 6),
        keras.layers.Dense(3),
        keras.layers.EinsumDense("ab,bc->ac", 3),
    )
    for foreign in (*(other for other in all_kinds if type(other) is not taken), layer, np.ones((8, 6))):
        with pytest.raises(MPONetError, match="expected"):
            type(layer).from_dense(foreign)
    with pytest.raises(ShapeError, match="has no weights yet"):
        type(layer).from_dense(next(other for other in all_kinds if type(other) is taken))
    with pytest.raises(InputError, match=r"initializer is a .*; expected"):
        kind.make(initializer=keras.initializers.Zeros())


def weight_readers(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    if hasattr(layer, "to_dense"):
        dense = layer.to_dense()
        close(layer.kernel, dense.embeddings if isinstance(dense, keras.layers.Embedding) else dense.kernel)
    own = [weight.value for weight in layer.trainable_weights]
    all_close(gradients(kind.reference(layer), x, own), gradients(layer, x, own))


def adapters(kind):
    """Keras' adapters are part of its own layers; beside any layer they are two dense ones."""
    layer = kind.make()
    x = kind.inputs(layer)
    layer.trainable = False
    inputs = keras.Input(x.shape[1:], dtype=x.dtype.name)
    y = layer(inputs)
    start = keras.initializers.GlorotUniform(seed=0)  # or rows of tokens may be changed by next to nothing
    down = keras.layers.Dense(2, use_bias=False, kernel_initializer=start, dtype="float64")
    up = keras.layers.Dense(y.shape[-1], use_bias=False, kernel_initializer="zeros", dtype="float64")
    model = keras.Model(inputs, keras.layers.Add(dtype="float64")([y, up(down(y))]))
    expected, before = kind.reference(layer)(x), [np.asarray(weight) for weight in layer.weights]
    close(model(x), expected)
    assert len(model.trainable_weights) == 2
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(x, np.ones(expected.shape), epochs=2, verbose=0)
    assert all(np.array_equal(weight, old) for weight, old in zip(layer.weights, before, strict=True))
    assert np.abs(np.asarray(model(x)) - expected).max() > 1e-6


def odd_inputs(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    with pytest.raises(InputError, match="complex"):
        layer(tf.cast(x, "complex128"))
    for strange in (tf.sparse.from_dense(x), tf.RaggedTensor.from_tensor(x)):
        with pytest.raises(InputError, match="expected a dense tensor"):
            layer(strange)
    if x.dtype.is_floating:
        with pytest.raises(ShapeError, match="expected"):
            layer(x[..., :-1])
    with pytest.raises(InputError, match="complex"):
        kind.make(dtype="complex64")


def sharded(kind):
    plain = kind.make(dtype="float32")
    x = kind.inputs(plain, 8)
    x = tf.cast(x, "float32") if x.dtype.is_floating else x
    found = []
    for strategy in (tf.distribute.MirroredStrategy(["CPU:0"]), tf.distribute.get_strategy()):
        with strategy.scope():
            layer = kind.make(dtype="float32")
            model = model_of(layer, x)
            model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(x, np.zeros(plain(x).shape, "float32"), epochs=3, shuffle=False, verbose=0)
        found.append(layer.get_weights())
    all_close(*found, 1e-5)
