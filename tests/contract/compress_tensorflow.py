"""The part of TensorFlow and Keras in the contract of compression (`contract.compression`)."""

import keras
import numpy as np
import tensorflow as tf

import mponet_tensorflow as package
from contract.compression import BIASES, SHAPES, SIZE, WORDS, Case
from mponet_tensorflow.compression.graph import named_layers, named_variables

__all__ = ["package"]
layers = keras.layers


def _filled(layer, weight, bias):
    variable = layer.embeddings if isinstance(layer, layers.Embedding) else layer.kernel
    variable.assign(weight.reshape(variable.shape))
    if bias is not None:
        layer.bias.assign(bias.reshape(layer.bias.shape))


def _single(layer, shape, dtype, weight, bias):
    model = keras.Sequential(
        [keras.Input(shape, dtype="int64" if isinstance(layer, layers.Embedding) else dtype), layer]
    )
    _filled(layer, weight, bias)
    return model


def _case(sizes, inputs, make, batch, order=None, has_bias=True):
    """A case of a layer whose kernel is the matrix, reshaped to ``order[0]`` and transposed."""

    def model(matrix, bias, dtype):
        layer = make(bias is not None, {"dtype": dtype, "name": "layer"})
        weight = matrix if order is None else matrix.reshape(order[0]).transpose(order[1])
        return _single(layer, inputs, dtype, weight, bias)

    return Case(sizes, model, batch, has_bias)


def _normal(*shape):
    return lambda rng, dtype: tf.constant(rng.normal(size=shape), dtype)


CASES = {
    "linear": _case(
        (24, 32), (7, 24), lambda bias, options: layers.Dense(32, use_bias=bias, **options), _normal(9, 7, 24)
    ),
    "einsum": _case(
        (24, 32),
        (4, 7, 6),
        lambda bias, options: layers.EinsumDense(
            "bhtd,mdhk->bkmt", (4, 8, None), bias_axes="km" if bias else None, **options
        ),
        _normal(9, 4, 7, 6),
        # rows (h, d), columns (k, m)
        order=((4, 6, 4, 8), (3, 1, 0, 2)),
    ),
    "convolution-1d": _case(
        (3 * 8, 16),
        (21, 8),
        lambda bias, options: layers.Conv1D(16, 3, 2, padding="causal", use_bias=bias, **options),
        _normal(9, 21, 8),
    ),
    "convolution-2d": _case(
        (3 * 2 * 8, 16),
        (9, 10, 8),
        lambda bias, options: layers.Conv2D(
            16, (3, 2), padding="same", dilation_rate=(1, 2), use_bias=bias, activation="linear", **options
        ),
        _normal(5, 9, 10, 8),
    ),
    "embedding": _case(
        (40, 24),
        (),
        lambda bias, options: layers.Embedding(40, 24, **options),
        lambda rng, dtype: tf.constant(rng.permutation(np.r_[0:40, rng.integers(0, 40, 20)])),
        has_bias=False,
    ),
}


def network(numbers, dtype):
    """A functional model, since ``output`` is a property of every subclassed one."""
    options = {"dtype": dtype}
    tokens = keras.Input((30,), dtype="int64")
    made = {"embed": layers.Embedding(WORDS, SIZE, name="embed", **options)}
    for name in ("query", "key", "value", "output"):
        made[name] = layers.Dense(SIZE, use_bias=name in BIASES, name=name, **options)
    x = layers.Dropout(0.5, **options)(made["embed"](tokens))
    model = keras.Model(
        tokens, x + made["output"](keras.ops.tanh(made["query"](x)) * made["key"](x) + made["value"](x))
    )
    for name in SHAPES:
        _filled(made[name], numbers[name], numbers.get(f"{name}.bias"))
    return model


def branches():
    maps = keras.Input((8, 8, 6))
    wide, narrow = (layers.Conv2D(8, size, padding="same", name=name) for size, name in ((3, "wide"), (1, "narrow")))
    return keras.Model(maps, wide(maps) + narrow(maps)), _normal(9, 8, 8, 6)(np.random.default_rng(0), "float32")


class _Language(keras.Model):
    def __init__(self):
        super().__init__()
        self.embed, self.inner = layers.ReversibleEmbedding(50, 16), layers.Dense(16)

    def call(self, batch):
        return self.embed(self.inner(self.embed(batch)), reverse=True)


def tied():
    model, batch = _Language(), np.random.default_rng(0).integers(0, 50, (20, 30))
    model(batch)
    return {"reverse": (model, batch, "embed", "embed.reverse")}


class _Scaled(layers.Dense):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs)


class _Odd(keras.Model):
    def __init__(self):
        super().__init__()
        self.grouped, self.plain = layers.Conv2D(8, 3, groups=2), layers.Dense(32)
        self.scaled, self.unused = _Scaled(32), layers.Dense(32)
        self.unused.build((None, 32))
        self.batched = layers.EinsumDense("bhd,hdm->bhm", (4, 8))
        self.quantized = layers.Dense(32)
        self.recurrent = layers.Bidirectional(layers.LSTM(8))

    def call(self, maps):
        x = self.scaled(self.plain(tf.reduce_mean(self.grouped(maps), (1, 2))))
        x = tf.reshape(self.batched(tf.reshape(x, (-1, 4, 8))), (-1, 32))
        return self.recurrent(self.quantized(x)[:, None])


def left_alone():
    model, batch = _Odd(), _normal(300, 4, 4, 8)(np.random.default_rng(0), "float32")
    model(batch)
    model.quantized.quantize("int8")
    reasons = {
        "grouped": "2 groups",
        "scaled": "a call of its own",
        "unused": "not reached",
        "batched": "one matrix for each of its entries",
        "quantized": "quantised to int8",
        "recurrent.forward_layer.cell": "LSTMCell is not supported",
    }
    return model, batch, reasons


def shared():
    inputs, layer = keras.Input((24,)), layers.Dense(24)
    return keras.Model(inputs, layer(keras.ops.relu(layer(inputs)))), np.random.default_rng(0).normal(size=(200, 24))


def cubic_loss(outputs, batch):
    return tf.reduce_sum(outputs**3) / 3


def batches(array):
    inputs = array.astype(np.float32)
    named = keras.Input((16,), name="first")
    forms = {
        "array": inputs,
        "tensor": tf.constant(inputs),
        "inputs and targets": (inputs, np.zeros(len(inputs))),
        "mapping": {"first": inputs},
    }
    return {
        name: (keras.Model({"first": named} if name == "mapping" else named, layers.Dense(16)(named)), batch)
        for name, batch in forms.items()
    }


def run(model, batch):
    return model(batch, training=False).numpy()


def numbers(model):
    return {
        name: np.array(keras.ops.convert_to_numpy(value))
        for name, value in named_variables(model, trained=True).items()
    }


def layer(model, name):
    return named_layers(model)[name]


def train(model):
    """Keras models have no mode."""


def trains(model):
    return True
