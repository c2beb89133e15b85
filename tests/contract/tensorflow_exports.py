"""Layers of every kind in Keras, for exports."""

import keras
import numpy as np

import graphs
from mponet_tensorflow import MPOConv1D, MPOConv2D, MPODense, MPOEmbedding, NetworkDense
from mponet_tensorflow.exporting import EXPORTERS as EXPORTERS
from mponet_tensorflow.exporting import export as export


def tied():
    """A tiny language model whose head shares the embedding's cores."""
    tokens = keras.Input((7,), dtype="int32")
    embedding = MPOEmbedding(60, 16, 4, seed=1)
    return keras.Model(tokens, embedding(keras.ops.tanh(embedding(tokens)), reverse=True))


def models():
    """Kind of layer to model and example input."""
    rng = np.random.default_rng(0)
    wiring = graphs.WIRINGS["ring"]

    def model(layer, inputs):
        return keras.Sequential([keras.Input(inputs.shape[1:], dtype=str(inputs.dtype)), layer]), inputs

    def rows(*shape):
        return rng.normal(size=shape).astype(np.float32)

    tokens = rng.integers(0, 60, (5, 7)).astype(np.int32)
    return {
        "linear": model(MPODense(64, 4, seed=1), rows(5, 64)),
        "network": model(NetworkDense(wiring, seed=1), rows(5, wiring.in_features)),
        "convolution 1-D": model(MPOConv1D(16, 3, bond=4, padding="same", seed=1), rows(5, 20, 8)),
        "convolution 2-D": model(MPOConv2D(16, 3, bond=4, strides=2, padding="same", seed=1), rows(5, 12, 12, 8)),
        "embedding": model(MPOEmbedding(60, 16, 4, seed=1), tokens),
        "tied head": (tied(), tokens),
    }
