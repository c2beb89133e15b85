"""Compression of Keras models: what is found, what is gathered, what is put in its place."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mponet.compress import CompressConfig, CompressionPlan, Override
from mponet.errors import CheckpointError, CompressionError

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from mponet_tensorflow import MPOConv1D, MPOConv2D, MPODense, MPOEinsumDense, MPOEmbedding  # noqa: E402
from mponet_tensorflow.compression import calibrate, compress, load_compressed, merge, plan, save_compressed  # noqa: E402
from mponet_tensorflow.compression.duplicate import copied  # noqa: E402
from mponet_tensorflow.compression.graph import named_layers  # noqa: E402
from mponet_tensorflow.compression.upstream import cross_stream  # noqa: E402

CONFIG = CompressConfig(keep=0.5, min_weights=100, structures=("low-rank",))


@keras.saving.register_keras_serializable(package="tests")
class Attention(keras.layers.Layer):
    """Three layers that read one tensor, and one that reads what they made."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.query, self.key, self.value, self.output_layer = (
            keras.layers.Dense(size, use_bias=k > 0, dtype=self.dtype_policy) for k in range(4)
        )

    def call(self, inputs):
        scores = tf.nn.softmax(tf.matmul(self.query(inputs), self.key(inputs), transpose_b=True))
        return inputs + self.output_layer(tf.matmul(scores, self.value(inputs)))

    def compute_output_shape(self, input_shape):
        return input_shape


class Language(keras.Model):
    """A subclassed model: attributes, a list and a dictionary of layers."""

    def __init__(self, words=50, size=32):
        super().__init__(dtype="float64")
        self.embed = keras.layers.Embedding(words, size, dtype="float64")
        self.blocks = [Attention(size, dtype="float64") for _ in range(2)]
        self.heads = {"words": keras.layers.Dense(words, activation="tanh", dtype="float64")}
        self.norm = keras.layers.LayerNormalization(dtype="float64")

    def call(self, tokens, training=False):
        hidden = self.embed(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return self.heads["words"](self.norm(hidden))


class Rows(keras.Model):
    """A subclassed model: a list and a dictionary of layers."""

    def __init__(self):
        super().__init__()
        self.blocks = [keras.layers.Dense(32) for _ in range(2)]
        self.heads = {"out": keras.layers.Dense(48)}

    def call(self, rows):
        for block in self.blocks:
            rows = block(rows)
        return self.heads["out"](rows)


def falling(layer):
    """Give a dense layer a falling spectrum, as trained weights have."""
    u, s, vh = np.linalg.svd(layer.kernel.numpy(), full_matrices=False)
    layer.kernel.assign(u * np.arange(1.0, len(s) + 1) ** -1.5 @ vh)


def sequential():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(48, activation="relu", name="first"), keras.layers.Dense(24, name="second")]
    model = keras.Sequential([keras.Input((32,)), *layers], name="chain")
    falling(layers[0])
    return model, [np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32) for _ in range(4)]


def functional():
    """Two inputs, two outputs, a layer used twice, a nested model and plain operations."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((48,)), keras.layers.Dense(32, name="deep")], name="inner")
    a, b = keras.Input((32,), name="a"), keras.Input((32,), name="b")
    shared = keras.layers.Dense(48, activation="relu", name="shared")
    left, right = inner(shared(a)), inner(shared(b))
    joined = keras.layers.Concatenate()([left, keras.ops.tanh(right)])
    outputs = {"x": keras.layers.Dense(40, name="x")(joined), "y": keras.layers.Dense(8, name="y")(left + right)}
    model = keras.Model({"a": a, "b": b}, outputs, name="graph")
    rng = np.random.default_rng(0)
    return model, [{n: rng.normal(size=(50, 32)).astype(np.float32) for n in "ab"} for _ in range(4)]


def convolutional():
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(24, 3, padding="same", activation="relu", name="conv1"),
        keras.layers.BatchNormalization(),
        keras.layers.Conv2D(32, (3, 2), strides=2, name="conv2"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10, name="head"),
    ]
    model = keras.Sequential([keras.Input((9, 10, 8)), *layers])
    return model, [np.random.default_rng(0).normal(size=(5, 9, 10, 8)).astype(np.float32) for _ in range(4)]


def subclassed():
    keras.utils.set_random_seed(0)
    model = Language()
    data = [np.random.default_rng(k).integers(0, 50, (4, 20)) for k in range(5)]
    model(data[0])
    falling(model.blocks[0].query)
    falling(model.blocks[1].output_layer)
    return model, data


MODELS = (sequential, functional, convolutional, subclassed)


def values(outputs):
    return [np.asarray(value) for value in keras.tree.flatten(outputs)]


def operators(model):
    return {name for name, layer in named_layers(model).items() if type(layer).__module__.startswith("mponet")}


@pytest.mark.parametrize("made", MODELS)
def test_the_original_is_untouched_and_the_copy_has_operators(made):
    model, data = made()
    before, wanted = [w.numpy() for w in model.weights], values(model(data[0]))
    small, report = compress(model, CONFIG, data)
    assert small is not model
    assert type(small) is type(model)
    for old, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    for old, new in zip(wanted, values(model(data[0])), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not operators(model)
    assert {layer.name for layer in report.plan.replaced} == operators(small)
    assert report.plan.replaced
    assert report.plan.keep <= 0.5
    assert report.plan.network_weights == small.count_params()
    assert report.plan.dense_network_weights == model.count_params()
    assert report.deviation < 0.05
    assert not {id(v) for v in small.variables} & {id(v) for v in model.variables}
    for old, new in zip(wanted, values(small(data[0])), strict=True):
        assert old.shape == new.shape


@pytest.mark.parametrize("made", MODELS)
def test_a_copy_does_the_same(made):
    model, data = made()
    wanted = values(model(data[0]))
    same = copied(model)
    assert [w.path for w in same.weights] == [w.path for w in model.weights]
    for old, new in zip(wanted, values(same(data[0])), strict=True):
        np.testing.assert_array_equal(old, new)
    for old, new in zip(model.weights, same.weights, strict=True):
        assert old is not new
        new.assign(new + 1)
    for old, new in zip(wanted, values(model(data[0])), strict=True):
        np.testing.assert_array_equal(old, new)


def test_layers_of_many_kinds_are_copied():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    maps = keras.Input((8, 8, 3))
    hidden = layers.Rescaling(0.5)(layers.RandomFlip()(layers.Normalization(mean=1.0, variance=2.0)(maps)))
    hidden = layers.DepthwiseConv2D(3, padding="same")(layers.GaussianNoise(0.1)(hidden))
    hidden = layers.PReLU()(layers.UnitNormalization()(layers.SpectralNormalization(layers.Conv2D(6, 3))(hidden)))
    hidden = layers.Dropout(0.5)(layers.GroupNormalization(2)(layers.Conv2DTranspose(6, 3)(hidden)))
    rows = layers.Lambda(lambda x: x * 2)(layers.Reshape((64, 6))(hidden))
    rows = layers.Bidirectional(layers.GRU(4, return_sequences=True, dropout=0.2))(rows)
    rows = layers.RNN([layers.LSTMCell(5), layers.SimpleRNNCell(6)], return_sequences=True)(rows)
    rows = layers.GroupQueryAttention(4, 4, 2, dropout=0.1)(rows, rows)
    model = keras.Model(maps, keras.ops.mean(layers.LayerNormalization()(rows), axis=1))
    data = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    twin = copied(model)
    np.testing.assert_array_equal(twin(data).numpy(), model(data).numpy())
    assert twin(data, training=True).shape == model(data, training=True).shape
    assert [v.path for v in twin.variables] == [v.path for v in model.variables]
    assert not {id(v) for v in twin.variables} & {id(v) for v in model.variables}
    assert not {id(layer) for layer in named_layers(twin).values()} & {id(x) for x in named_layers(model).values()}


@pytest.mark.parametrize("made", MODELS)
def test_in_place_changes_the_model_itself(made):
    model, data = made()
    wanted, _ = compress(model, CONFIG, data)
    same, report = compress(model, CONFIG, data, in_place=True)
    assert same is model
    assert operators(model) == {layer.name for layer in report.plan.replaced}
    assert model.count_params() == report.plan.network_weights
    for old, new in zip(values(wanted(data[0])), values(model(data[0])), strict=True):
        np.testing.assert_allclose(old, new, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("made", MODELS)
@pytest.mark.parametrize("in_place", [False, True])
def test_compressed_models_train(made, in_place):
    model, data = made()
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    rows = len(keras.tree.flatten(data[0])[0])
    target = keras.tree.map_structure(np.asarray, model(data[0]))
    small, _ = compress(model, CONFIG, data, in_place=in_place)
    history = small.fit(data[0], target, epochs=3, batch_size=rows, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert small.optimizer.iterations.numpy() == 3


def test_layers_that_read_one_tensor_share_sums():
    model, data = subclassed()
    sums = calibrate(model, CONFIG, data)
    names = [f"blocks.0.{name}" for name in ("query", "key", "value")]
    assert {sums.inputs[name] for name in names} == {"blocks.0.query"}
    inputs = np.concatenate([model.embed(batch).numpy() for batch in data]).reshape(-1, 32)
    np.testing.assert_allclose(sums.of(names[2]).products, inputs.T @ inputs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sums.of(names[2]).mean, inputs.mean(0), rtol=1e-12, atol=1e-12)
    assert sums.of(names[0]).count == 400


def test_gradients_are_those_before_the_activation_and_of_all_rows():
    keras.utils.set_random_seed(0)
    conv = keras.layers.Conv1D(6, 3, activation="tanh", dtype="float64")
    head = keras.layers.Dense(5, activation="sigmoid", dtype="float64")
    model = keras.Sequential([keras.Input((6, 3), dtype="float64"), conv, keras.layers.Flatten(dtype="float64"), head])
    batches = [np.random.default_rng(k).normal(size=(7, 6, 3)) for k in range(3)]

    def loss(outputs, batch):
        return tf.reduce_sum(outputs**3)

    config = CompressConfig(keep=0.5, min_weights=1)
    sums = calibrate(model, config, batches, loss=loss)
    inputs = tf.constant(np.concatenate(batches))
    with tf.GradientTape() as tape:
        maps = tf.nn.conv1d(inputs, conv.kernel.value, 1, "VALID") + conv.bias.value
        tape.watch(maps)
        outputs = tf.matmul(tf.reshape(tf.tanh(maps), (-1, 24)), head.kernel.value) + head.bias.value
        value = tf.reduce_sum(tf.sigmoid(outputs) ** 3)
    slopes = tape.gradient(value, [maps, outputs])
    for name, slope in zip(("conv1d", "dense"), slopes, strict=True):
        name = next(full for full in sums.gradients if full.startswith(name))
        rows = slope.numpy().reshape(-1, slope.shape[-1])
        np.testing.assert_allclose(sums.gradient_products[name].full(), rows.T @ rows, rtol=1e-10)
        assert sums.gradient_rows[name] == len(rows)
        assert sums.gradients[name] == pytest.approx(np.mean(rows**2), rel=1e-10)
    without = calibrate(model, CompressConfig(keep=0.5, min_weights=1, metric="covariance"), batches, loss=loss)
    assert without.gradients == pytest.approx(sums.gradients)
    assert not without.gradient_products


@pytest.mark.parametrize("structures", [("low-rank",), ("window",), ("low-rank", "window")])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": (3, 2), "strides": 2, "padding": "same", "use_bias": False},
        {"kernel_size": (2, 3), "dilation_rate": (1, 2), "data_format": "channels_last"},
    ],
)
def test_convolutions_lose_what_the_plan_says(structures, options):
    keras.utils.set_random_seed(0)
    conv = keras.layers.Conv2D(16, dtype="float64", **options)
    model = keras.Sequential([keras.Input((9, 10, 8), dtype="float64"), conv])
    maps = [np.random.default_rng(k).normal(size=(3, 9, 10, 8)).cumsum(-1) for k in range(4)]
    config = CompressConfig(keep=0.5, min_weights=1, structures=structures, bias_correction=False)
    small, report = compress(model, config, maps)
    (name,) = report.output_errors
    bias = 0 if conv.bias is None else conv.bias.numpy()
    wanted = np.concatenate([model(batch).numpy() - bias for batch in maps])
    found = np.concatenate([small(batch).numpy() - bias for batch in maps])
    error = np.linalg.norm(wanted - found) / np.linalg.norm(wanted)
    assert report.output_errors[name] == pytest.approx(error, rel=1e-6)
    assert report.plan[name].output_error == pytest.approx(error, rel=0.05)
    assert isinstance(small.get_layer(name), MPOConv2D)


@pytest.mark.parametrize("keep", [0.7, 0.4])
def test_predicted_errors_are_those_of_the_layers_outputs(keep):
    model, data = subclassed()
    small, report = compress(model, CompressConfig(keep=keep, min_weights=100, bias_correction=False), data)
    dense, new = named_layers(model), named_layers(small)
    assert len(report.output_errors) >= 3
    for name in report.output_errors:
        seen = []
        layer = dense[name]
        original = layer.call
        layer.call = lambda x, seen=seen, original=original, **kwargs: seen.append(x) or original(x)
        for batch in data:
            model(batch)
        del layer.call
        bias = 0 if getattr(layer, "bias", None) is None else layer.bias.numpy()
        activations = layer.__dict__.get("activation"), new[name].__dict__.get("activation")
        if activations[0] is not None:
            layer.activation = new[name].activation = keras.activations.linear
        wanted = np.concatenate([layer(inputs).numpy() - bias for inputs in seen])
        got = np.concatenate([new[name](inputs).numpy() - bias for inputs in seen])
        if activations[0] is not None:
            layer.activation, new[name].activation = activations
        error = np.linalg.norm(wanted - got) / np.linalg.norm(wanted)
        assert report.output_errors[name] == pytest.approx(error, rel=1e-6)
        assert report.plan[name].output_error == pytest.approx(error, rel=0.05)


def test_a_matrix_of_low_rank_is_found_and_replaced_exactly():
    model, data = subclassed()
    rng = np.random.default_rng(3)
    model.blocks[0].key.kernel.assign(rng.normal(size=(32, 5)) @ rng.normal(size=(5, 32)))
    small, report = compress(model, CompressConfig(error=1e-7, min_weights=100, structures=("low-rank",)), data)
    assert report.plan["blocks.0.key"].bonds == (5,)
    assert [layer.name for layer in report.plan.replaced] == ["blocks.0.key"]
    np.testing.assert_allclose(small(data[0]).numpy(), model(data[0]).numpy(), rtol=1e-12, atol=1e-12)


def test_what_a_layer_was_told_is_kept():
    model, data = sequential()
    first = model.get_layer("first")
    first.trainable = False
    first.activity_regularizer = keras.regularizers.L2(0.1)
    small, _ = compress(model, CONFIG, data)
    layer = small.get_layer("first")
    assert isinstance(layer, MPODense)
    assert layer.activation is keras.activations.relu
    assert not layer.trainable
    assert isinstance(layer.activity_regularizer, keras.regularizers.L2)
    assert small.get_layer("second").trainable
    assert all(variable.dtype == "float32" for variable in small.weights)


def test_layers_that_cannot_be_replaced_are_left_with_the_reason():
    class Scaled(keras.layers.Dense):
        def call(self, inputs, training=None):
            return 2 * super().call(inputs)

    inputs = keras.Input((6, 32))
    hidden = Scaled(32, name="scaled")(keras.layers.Dense(32, name="dense")(inputs))
    hidden = keras.layers.Bidirectional(keras.layers.LSTM(8, return_sequences=True), name="both")(hidden)
    hidden = keras.layers.Conv1D(16, 3, groups=2, name="grouped")(hidden)
    hidden = keras.layers.SeparableConv1D(16, 3, name="separable")(hidden)
    model = keras.Model(inputs, hidden)
    made = plan(model, CONFIG, [np.random.default_rng(0).normal(size=(20, 6, 32))])
    reasons = {layer.name: layer.reason for layer in made}
    assert "Scaled" in reasons["scaled"]
    assert "LSTMCell is not supported" in reasons["both.forward_layer.cell"]
    assert "LSTMCell is not supported" in reasons["both.backward_layer.cell"]
    assert "2 groups" in reasons["grouped"]
    assert "SeparableConv1D is not supported" in reasons["separable"]
    assert made["dense"].matched


def test_layers_inside_a_wrapper_are_replaced():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 32), dtype="float64")
    dense = keras.layers.Dense(32, name="dense", dtype="float64")
    model = keras.Model(inputs, keras.layers.TimeDistributed(dense, name="steps", dtype="float64")(inputs))
    falling(dense)
    data = [np.random.default_rng(0).normal(size=(20, 6, 32))]
    small, report = compress(model, CONFIG, data)
    assert [layer.name for layer in report.plan.replaced] == ["steps.layer"]
    assert isinstance(small.get_layer("steps").layer, MPODense)
    assert report.plan.rows == 120
    assert small.predict(data[0], verbose=0).shape == (20, 6, 32)


def test_a_weight_that_two_layers_hold_is_left_with_the_reason():
    class Head(keras.layers.Layer):
        def __init__(self, table):
            super().__init__(dtype="float64")
            self.table = table

        def call(self, inputs):
            return tf.matmul(inputs, tf.transpose(self.table.value))

    model = keras.Sequential([keras.layers.Embedding(50, 32, dtype="float64", name="embed")])
    model.build((None, 7))
    model.add(Head(model.layers[0].embeddings))
    data = [np.arange(28).reshape(4, 7)]
    model(data[0])
    with pytest.raises(CompressionError, match="shares its weight"):
        plan(model, CompressConfig(keep=0.9, min_weights=100), data)


def test_plans_are_carried_out_after_editing_and_saving(tmp_path):
    model, data = subclassed()
    made = plan(model, CONFIG, data)
    made.replace("blocks.0.query", bond=3).save(tmp_path / "plan.json")
    small, report = compress(model, CompressionPlan.load(tmp_path / "plan.json"), data)
    assert small.blocks[0].query.shape.bond_dims == (1, 3, 1)
    assert set(report.output_errors) == {layer.name for layer in report.plan.replaced}


def test_given_factors_and_bonds():
    model, data = subclassed()
    overrides = {r"blocks.0.query": Override(input_dims=(4, 8), output_dims=(8, 4), bond=6)}
    small, _ = compress(model, CompressConfig(keep=0.6, min_weights=100, overrides=overrides), data)
    assert str(small.blocks[0].query.shape) == "M^{8,4}_{4,8}(6)"


@pytest.mark.parametrize("form", ["array", "tuple", "dataset", "dataset of pairs"])
def test_batches_in_every_form_that_keras_knows(form):
    model, data = sequential()
    rows = np.concatenate(data)
    batches = {
        "array": lambda: data,
        "tuple": lambda: [(batch, np.zeros(len(batch))) for batch in data],
        "dataset": lambda: tf.data.Dataset.from_tensor_slices(rows).batch(50),
        "dataset of pairs": lambda: tf.data.Dataset.from_tensor_slices((rows, rows)).batch(50),
    }[form]()
    sums = calibrate(model, CONFIG, batches)
    np.testing.assert_allclose(sums.of("first").products, rows.astype(float).T @ rows.astype(float), rtol=1e-12)
    assert sums.of("first").count == 200


def test_layers_inside_compiled_functions_are_seen():
    class Compiled(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(32)

        @tf.function
        def call(self, inputs):
            return self.dense(inputs)

    model, data = Compiled(), [np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32)]
    model(data[0])
    assert calibrate(model, CONFIG, data).of("dense").count == 50
    assert not tf.config.functions_run_eagerly()
    small, _ = compress(model, CONFIG, data)
    assert isinstance(small.dense, MPODense)
    assert small(data[0]).shape == (50, 32)


def test_mistakes_leave_the_model_as_it_was():
    model, data = subclassed()
    for call, text in (
        (lambda: compress(model, CONFIG, [], in_place=True), "holds no batch"),
        (lambda: compress(model, CompressConfig(keep=0.5, include=["quary"]), data, in_place=True), "query"),
        (lambda: compress(model, CompressConfig(keep=0.0001, min_weights=100), data, in_place=True), "budget"),
        (lambda: compress(Language(), CONFIG, data), "no weights yet"),
    ):
        with pytest.raises(CompressionError, match=text):
            call()
    model.blocks[0].query.kernel.assign(np.full((32, 32), np.nan))
    with pytest.raises(CompressionError, match="not finite"):
        compress(model, CONFIG, data, in_place=True)
    assert not operators(model)
    assert not any("call" in vars(layer) for layer in named_layers(model).values())
    assert model.heads["words"].activation is keras.activations.tanh


def test_what_cannot_be_copied_is_named():
    model, data = sequential()
    with Path(__file__).open(encoding="utf-8") as model.handle, pytest.raises(CompressionError, match=r"chain\.handle"):
        compress(model, CONFIG, data)


def test_attention_of_keras_is_compressed_inside():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((7, 32), dtype="float64")
    layer = keras.layers.MultiHeadAttention(4, 8, name="attention", dtype="float64")
    model = keras.Model(inputs, layer(inputs, inputs))
    data = [np.random.default_rng(k).normal(size=(5, 7, 32)) for k in range(6)]
    rng = np.random.default_rng(1)
    layer.query_dense.kernel.assign((rng.normal(size=(32, 5)) @ rng.normal(size=(5, 32))).reshape(32, 4, 8))
    layer.output_dense.kernel.assign((rng.normal(size=(32, 5)) @ rng.normal(size=(5, 32))).reshape(4, 8, 32))
    layer.query_dense.bias.assign(rng.normal(size=(4, 8)))
    small, report = compress(model, CompressConfig(error=1e-7, min_weights=100, structures=("low-rank",)), data)
    assert {layer.name for layer in report.plan.replaced} == {"attention.query_dense", "attention.output_dense"}
    assert isinstance(small.get_layer("attention").query_dense, MPOEinsumDense)
    np.testing.assert_allclose(small(data[0]).numpy(), model(data[0]).numpy(), rtol=1e-12, atol=1e-12)
    small, report = compress(model, CompressConfig(keep=0.5, min_weights=100, structures=("low-rank",)), data)
    assert report.deviation < 0.05
    sums = calibrate(model, CONFIG, data)
    names = [f"attention.{name}_dense" for name in ("query", "key", "value")]
    assert len({sums.inputs[name] for name in names}) == 1


@pytest.mark.parametrize("precision", [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize(
    ("make", "shape", "operator"),
    [
        (lambda dtype: keras.layers.Dense(40, dtype=dtype), (6, 32), MPODense),
        (
            lambda dtype: keras.layers.EinsumDense("btd,hdm->bhtm", (5, None, 8), bias_axes="hm", dtype=dtype),
            (6, 32),
            MPOEinsumDense,
        ),
        (lambda dtype: keras.layers.Conv1D(40, 3, padding="causal", dtype=dtype), (9, 12), MPOConv1D),
        (lambda dtype: keras.layers.Conv2D(40, 3, strides=2, padding="same", dtype=dtype), (9, 8, 12), MPOConv2D),
        (lambda dtype: keras.layers.Embedding(60, 32, dtype=dtype), (20,), MPOEmbedding),
    ],
)
def test_exact_replacements_of_every_kind(make, shape, operator, precision):
    dtype, allowed = precision
    rng = np.random.default_rng(0)
    layer = make(dtype)
    tokens = operator is MPOEmbedding
    model = keras.Sequential([keras.Input(shape, dtype="int32" if tokens else dtype), layer])
    kernel = layer.embeddings if tokens else layer.kernel
    rows = 32 if operator is MPOEinsumDense else int(np.prod(kernel.shape[:-1]))
    matrix = rng.normal(size=(rows, 4)) @ rng.normal(size=(4, int(np.prod(kernel.shape)) // rows)) / 8
    if operator is MPOEinsumDense:  # the rows of its matrix are the second axis of its kernel
        kernel.assign(matrix.reshape(32, 5, 8).transpose(1, 0, 2))
        layer.bias.assign(rng.normal(size=layer.bias.shape))
    else:
        kernel.assign(matrix.reshape(kernel.shape))
    data = rng.integers(0, 60, (30, *shape)) if tokens else rng.normal(size=(30, *shape)).astype(dtype)
    config = CompressConfig(error=1e-5 if dtype == "float32" else 1e-9, min_weights=1, structures=("low-rank",))
    small, report = compress(model, config, [data])
    assert isinstance(small.layers[0], operator)
    assert report.plan[report.plan.replaced[0].name].bonds == (4,)
    wanted = np.asarray(model(data))
    assert np.abs(np.asarray(small(data)) - wanted).max() <= allowed * np.abs(wanted).max()


@pytest.mark.parametrize("made", MODELS)
def test_compressed_models_are_saved_and_loaded(made, tmp_path):
    model, data = made()
    small, report = compress(model, CONFIG, data)
    folder = tmp_path / "small"
    save_compressed(small, report.plan, folder)
    assert {path.name for path in folder.iterdir()} == {"compression_plan.json", "model.safetensors"}
    other, _ = made()
    again = load_compressed(other, folder)
    assert again is other
    for old, new in zip(values(small(data[0])), values(again(data[0])), strict=True):
        np.testing.assert_array_equal(old, new)
    assert operators(again) == operators(small) or made is convolutional  # Keras numbers its layers anew


def test_folders_of_other_models_are_refused_and_change_nothing(tmp_path):
    model, data = subclassed()
    small, report = compress(model, CONFIG, data)
    save_compressed(small, report.plan, tmp_path / "small")
    with pytest.raises(CompressionError, match="network and the plan of the same compression"):
        save_compressed(model, report.plan, tmp_path / "other")
    with pytest.raises(CompressionError, match="is not in this network"):
        load_compressed(sequential()[0], tmp_path / "small")
    for options, error, text in (
        ({"size": 16}, CompressionError, "is not in this network"),
        ({"words": 60}, CheckpointError, "does not hold the weights"),
    ):
        other = Language(**options)
        other(data[0])
        with pytest.raises(error, match=text):
            load_compressed(other, tmp_path / "small")
        assert not operators(other)
    (tmp_path / "small" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        load_compressed(model, tmp_path / "small")
    assert not operators(model)


@pytest.mark.parametrize("form", ["sequential", "functional", "subclassed", "nested"])
def test_compressed_models_are_saved_as_saved_models(form, tmp_path):
    dense = keras.layers.Dense
    inputs = keras.Input((32,))
    functional = keras.Model(inputs, dense(32)(keras.layers.concatenate([dense(48)(inputs), dense(48)(inputs)])))
    model = {
        "sequential": lambda: keras.Sequential([keras.Input((32,)), dense(48), dense(32)]),
        "functional": lambda: functional,
        "subclassed": Rows,
        "nested": lambda: keras.Sequential([keras.Input((32,)), functional, dense(16)]),
    }[form]()
    rows = tf.ones((3, 32), tf.float32)
    model(rows)
    small, report = compress(model, CONFIG)
    assert len(report.plan.replaced) >= 2
    expected = small(rows)
    small.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(loaded.serve(rows), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("made", [sequential, functional, convolutional])
def test_keras_files_load_in_a_fresh_process(made, tmp_path):
    model, data = made()
    small, _ = compress(model, CONFIG, data)
    small.save(tmp_path / "small.keras")
    inputs = data[0] if isinstance(data[0], dict) else {"": data[0]}
    np.savez(tmp_path / "inputs.npz", **inputs)
    code = (
        "import sys, numpy as np, keras, mponet_tensorflow\n"
        "inputs = dict(np.load('inputs.npz')); inputs = inputs.get('', inputs)\n"
        "outputs = keras.models.load_model('small.keras')(inputs)\n"
        "np.savez('outputs.npz', *map(np.asarray, keras.tree.flatten(outputs)))\n"
    )
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=300)
    for old, new in zip(values(small(data[0])), np.load(tmp_path / "outputs.npz").values(), strict=True):
        np.testing.assert_allclose(old, new, rtol=1e-6, atol=1e-6)


def test_a_compressed_model_is_compressed_again():
    model, data = subclassed()
    first, one = compress(model, CompressConfig(keep=0.5, min_weights=100, kinds=("linear",)), data)
    second, two = compress(first, CompressConfig(keep=0.5, min_weights=100, kinds=("embedding",)), data)
    assert operators(second) == {layer.name for report in (one, two) for layer in report.plan.replaced}
    assert operators(first) == {layer.name for layer in one.plan.replaced}
    assert second(data[0]).shape == model(data[0]).shape


@pytest.mark.parametrize("made", MODELS)
def test_merged_models_are_ordinary_and_do_the_same(made):
    model, data = made()
    small, report = compress(model, CONFIG, data)
    dense, merged = merge(small)
    assert set(merged.deviations) == operators(small) == {layer.name for layer in report.plan.replaced}
    assert merged.deviation < 1e-6
    assert not operators(dense)
    assert [w.shape for w in dense.weights] == [w.shape for w in model.weights]
    for old, new in zip(values(small(data[0])), values(dense(data[0])), strict=True):
        np.testing.assert_allclose(old, new, rtol=1e-4, atol=1e-5)


def test_an_embedding_that_is_a_head_too_is_compressed_once_for_both():
    keras.utils.set_random_seed(0)
    table = keras.layers.ReversibleEmbedding(50, 32, dtype="float64", name="embed")
    tokens = keras.Input((12,), dtype="int32")
    model = keras.Model(tokens, table(keras.layers.Dense(32, dtype="float64", name="mix")(table(tokens)), reverse=True))
    rng = np.random.default_rng(0)
    table.embeddings.assign(rng.normal(size=(50, 6)) @ rng.normal(size=(6, 32)) / 8)
    data = [rng.integers(0, 50, (8, 12)) for _ in range(4)]
    config = CompressConfig(error=1e-9, min_weights=1, structures=("low-rank",))
    small, report = compress(model, config, data)
    assert report.plan["embed"].bonds == (6,)
    assert report.plan["embed.reverse"].tied_to == "embed"
    assert report.plan.network_weights == small.count_params()
    np.testing.assert_allclose(small(data[0]).numpy(), model(data[0]).numpy(), rtol=1e-9, atol=1e-9)
    small, report = compress(model, CompressConfig(keep=0.15, min_weights=1, include=["embed", "reverse"]), data)
    hidden = [model.get_layer("mix")(table(tokens)) for tokens in data]
    for name, inputs, options in (("embed", data, {}), ("embed.reverse", hidden, {"reverse": True})):
        wanted = np.concatenate([table(x, **options).numpy().reshape(-1) for x in inputs])
        found = np.concatenate([small.get_layer("embed")(x, **options).numpy().reshape(-1) for x in inputs])
        error = np.linalg.norm(wanted - found) / np.linalg.norm(wanted)
        assert report.output_errors[name] == pytest.approx(error, rel=1e-6)
    dense, _ = merge(small)
    assert isinstance(dense.get_layer("embed"), keras.layers.ReversibleEmbedding)
    np.testing.assert_allclose(dense(data[0]).numpy(), small(data[0]).numpy(), rtol=1e-9, atol=1e-9)


def test_rows_per_example_are_counted():
    model, data = convolutional()
    config = CompressConfig(keep=0.5, min_weights=100, metric="none", allocation="output")
    made = plan(model, config, example=data[0])
    assert made["conv1"].dense_multiplications == 9 * 10 * 9 * 8 * 24
    assert made["conv2"].dense_multiplications == 4 * 5 * 6 * 24 * 32
    assert plan(model, config, data)["conv2"].dense_multiplications == made["conv2"].dense_multiplications


def test_layers_are_fitted_to_what_compressed_ones_give_them_and_timed(tmp_path):
    model, data = subclassed()
    config = CompressConfig(keep=0.4, min_weights=100, kinds=("linear",), structures=("low-rank",))
    options = {"folder": tmp_path / "work", "measure": True, "upstream": True}
    small, report = compress(model, config, data, **options)
    assert all(layer.measured > 0 for layer in report.plan.replaced)
    again, _ = compress(model, config, data, **options)
    for old, new in zip(small.weights, again.weights, strict=True):
        np.testing.assert_array_equal(old.numpy(), new.numpy())
    sums = cross_stream(model, small, ["blocks.1.key"], data)["blocks.1.key"]
    before, after = (
        np.concatenate([m.blocks[0](m.embed(x)).numpy().reshape(-1, 32) for x in data]) for m in (model, small)
    )
    np.testing.assert_allclose(sums.inputs.products, after.T @ after, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(sums.cross, after.T @ before, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(sums.total, before.sum(0), rtol=1e-10, atol=1e-10)
