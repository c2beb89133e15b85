"""A functional model of Keras whose layers are operators: mixed precision, files, replicas."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

if "tensorflow" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name tensorflow", allow_module_level=True)

import keras
import numpy as np

import mponet_tensorflow as mponet
from mponet import NetworkShape

WIDTH, VOCABULARY = 16, 29
RING = NetworkShape.from_edges(
    {"a": "in1 out1 left right", "b": "left in2 out2 right"},
    {"in1": 4, "in2": 4, "out1": 4, "out2": 4, "left": 2, "right": 2},
)


def functional(policy="float32"):
    """A language model with every kind of layer; the first and the last are one."""
    tokens = keras.Input((6,), dtype="int32")
    options = {"dtype": policy}
    embedding = mponet.MPOEmbedding(VOCABULARY, WIDTH, 4, seed=1, **options)
    x = embedding(tokens)
    x = keras.layers.Add(**options)([x, mponet.MPOConv1D(WIDTH, 3, 4, padding="same", seed=2, **options)(x)])
    y = keras.layers.LayerNormalization(**options)(x)
    y = mponet.MPODense(31, 4, activation="gelu", seed=3, **options)(y)  # padded
    y = mponet.MPODense(WIDTH, 4, seed=4, **options)(y)
    x = keras.layers.Add(**options)([x, y])
    maps = keras.layers.Reshape((3, 2, WIDTH), **options)(x)
    maps = mponet.MPOConv2D(WIDTH, (3, 2), 4, padding="same", activation="tanh", seed=5, **options)(maps)
    x = keras.layers.Add(**options)([x, keras.layers.Reshape((6, WIDTH), **options)(maps)])
    x = mponet.NetworkDense(RING, seed=6, **options)(x)
    logits = keras.layers.Activation("linear", dtype="float32")(embedding(x, reverse=True))
    return keras.Model(tokens, logits)


def data():
    rng = np.random.default_rng(0)
    return rng.integers(0, VOCABULARY, (32, 6)).astype("int32"), rng.integers(0, VOCABULARY, (32, 6)).astype("int32")


def compiled(model, optimizer):
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_it_trains_in_every_policy(policy):
    x, y = data()
    optimizer = keras.optimizers.Adam(5e-2)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model = compiled(functional(policy), optimizer)
    losses = model.fit(x, y, batch_size=32, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    assert model.layers[1].compute_dtype == policy.removeprefix("mixed_")


RELOAD = """
import sys
import keras, numpy as np
import mponet_tensorflow
model = keras.saving.load_model(sys.argv[1])
given = np.load(sys.argv[2])
found = np.asarray(model(given["x"]))
assert np.abs(found - given["y"]).max() <= 1e-6 * np.abs(given["y"]).max(), np.abs(found - given["y"]).max()
model.fit(given["x"], given["labels"], epochs=1, verbose=0)
print("same", type(model.optimizer).__name__, len(model.optimizer.variables))
"""


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_file_is_read_by_a_fresh_process(policy, tmp_path):
    x, y = data()
    model = compiled(functional(policy), keras.optimizers.Adam(1e-2))
    model.fit(x, y, batch_size=16, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=x, labels=y, y=np.asarray(model(x)))
    arguments = str(tmp_path / "model.keras"), str(tmp_path / "data.npz")
    assert run(RELOAD, *arguments) == f"same Adam {len(model.optimizer.variables)}"


REPLICAS = """
import sys
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from test_tensorflow_model import compiled, data, functional
found = []
for strategy in (tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), tf.distribute.get_strategy()):
    with strategy.scope():
        model = compiled(functional("float64"), keras.optimizers.SGD(0.1, momentum=0.9))
    history = model.fit(*data(), batch_size=16, epochs=3, shuffle=False, verbose=0)
    found.append([np.asarray(history.history["loss"]), *model.get_weights()])
    print(strategy.num_replicas_in_sync, end=" ")
for one, other in zip(*found, strict=True):
    assert np.abs(one - other).max() <= 1e-5 * max(1.0, np.abs(other).max()), np.abs(one - other).max()
print("same")
"""


def test_two_replicas_equal_one():
    assert run(REPLICAS) == "2 1 same"


def run(script, *arguments):
    """What a fresh process prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    command = [sys.executable, "-W", "ignore", "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]
