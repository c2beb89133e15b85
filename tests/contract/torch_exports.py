"""Layers of every kind in PyTorch, for exports."""

import numpy as np
import torch
from torch import nn

import graphs
from mponet_torch import MPOConv1d, MPOConv2d, MPOEmbedding, MPOLinear, NetworkLinear, TiedHead
from mponet_torch.exporting import EXPORTERS as EXPORTERS
from mponet_torch.exporting import export as export


class Tied(nn.Module):
    """A tiny language model whose head shares the embedding's cores."""

    def __init__(self):
        super().__init__()
        self.embedding = MPOEmbedding(60, 16, 4, seed=1)
        self.head = TiedHead(self.embedding)

    def forward(self, tokens):
        return self.head(torch.tanh(self.embedding(tokens)))


def models():
    """Kind of layer to model and example input."""
    rng = np.random.default_rng(0)
    wiring = graphs.WIRINGS["ring"]

    def rows(*shape):
        return rng.normal(size=shape).astype(np.float32)

    tokens = rng.integers(0, 60, (5, 7))
    return {
        "linear": (MPOLinear((8, 8), (8, 8), 4, seed=1), rows(5, 64)),
        "network": (NetworkLinear(wiring, seed=1), rows(5, wiring.in_features)),
        "convolution 1-D": (MPOConv1d(8, 16, 3, bond=4, padding=1, seed=1), rows(5, 8, 20)),
        "convolution 2-D": (MPOConv2d(8, 16, 3, bond=4, padding=1, stride=2, seed=1), rows(5, 8, 12, 12)),
        "embedding": (MPOEmbedding(60, 16, 4, seed=1), tokens),
        "tied head": (Tied(), tokens),
    }
