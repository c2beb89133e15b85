"""What `tests.backends.test_heal` asks of Keras."""

import keras
import numpy as np

from mponet.compress import CompressConfig
from mponet_tensorflow import MPOConv2D, MPODense, compress, heal  # noqa: F401
from mponet_tensorflow.compression.duplicate import copied  # noqa: F401
from mponet_tensorflow.compression.graph import named_layers, named_variables
from mponet_tensorflow.compression.healing import NativeHealing
from mponet_tensorflow.ops.arrays import to_numpy

#: What the data hold a whole pass of.
BATCHES = 12


@keras.saving.register_keras_serializable(package="tests")
class Network(keras.Model):
    """A convolution, statistics, dropout, and two layers that are a matrix."""

    def __init__(self):
        super().__init__(dtype="float64")
        self.first = keras.layers.Conv2D(12, 3, padding="same", dtype="float64")
        self.norm = keras.layers.BatchNormalization(momentum=0.9, dtype="float64")  # as in the other frameworks
        self.pool = keras.layers.MaxPooling2D(4, dtype="float64")
        self.flat = keras.layers.Flatten(dtype="float64")
        self.drop = keras.layers.Dropout(0.3, dtype="float64")
        self.hidden = keras.layers.Dense(30, activation="relu", dtype="float64")
        self.head = keras.layers.Dense(5, dtype="float64")

    def call(self, maps, training=False):
        maps = self.pool(keras.ops.relu(self.norm(self.first(maps), training=training)))
        return self.head(self.hidden(self.drop(self.flat(maps), training=training)))


def networks():
    """A compressed network and the original, float64."""
    keras.utils.set_random_seed(0)
    teacher = Network()
    teacher(batches()[0])
    config = CompressConfig(keep=0.5, min_weights=1, structures=("low-rank", "balanced", "window"))
    student, _ = compress(teacher, config, batches())
    assert isinstance(student.first, MPOConv2D) and isinstance(student.hidden, MPODense)
    return student, teacher


def batches():
    """Inputs of the networks."""
    return list(np.random.default_rng(1).normal(size=(BATCHES, 16, 8, 8, 3)))


def arrays(network):
    """Parameters and statistics by name."""
    return {name: to_numpy(value) for name, value in named_variables(network).items()}


def outputs(network, batch):
    """Of the network in inference mode."""
    return to_numpy(network(batch, training=False))


def operators(network):
    """The operators of a network as `mponet.MPO`, by name."""
    found = named_layers(network).items()
    return {name: layer.to_mpo() for name, layer in found if isinstance(layer, MPOConv2D | MPODense)}


def adapter(student, teacher, config):
    """The two as the core sees them."""
    return NativeHealing(student, teacher, config)


def modes(network):
    """What healing must give back."""
    return [(layer.trainable, vars(layer).get("rate")) for layer in named_layers(network).values()]
