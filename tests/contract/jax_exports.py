"""Layers of every kind in JAX, for exports."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

import graphs
from mponet_jax import MPOConv, MPOEmbed, MPOLinear, NetworkLinear
from mponet_jax.exporting import EXPORTERS as EXPORTERS
from mponet_jax.exporting import export as export


class Tied(nnx.Module):
    """A tiny language model whose head shares the embedding's cores."""

    def __init__(self):
        self.embedding = MPOEmbed(60, 16, 4, rngs=nnx.Rngs(1))

    def __call__(self, tokens):
        return self.embedding.attend(jnp.tanh(self.embedding(tokens)))


def models():
    """Kind of layer to model and example input."""
    rng = np.random.default_rng(0)
    wiring = graphs.WIRINGS["ring"]

    def rows(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def convolution(*window, strides):
        return MPOConv(8, 16, window, 4, strides=strides, rngs=nnx.Rngs(1))

    tokens = rng.integers(0, 60, (5, 7)).astype(np.int32)
    return {
        "linear": (MPOLinear((8, 8), (8, 8), 4, rngs=nnx.Rngs(1)), rows(5, 64)),
        "network": (NetworkLinear(wiring, rngs=nnx.Rngs(1)), rows(5, wiring.in_features)),
        "convolution 1-D": (convolution(3, strides=1), rows(5, 20, 8)),
        "convolution 2-D": (convolution(3, 3, strides=2), rows(5, 12, 12, 8)),
        "embedding": (MPOEmbed(60, 16, 4, rngs=nnx.Rngs(1)), tokens),
        "tied head": (Tied(), tokens),
    }
