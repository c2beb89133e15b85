"""mponet for JAX and flax.nnx: layers, and the `backend` that ``mponet.load("jax")`` gives."""

from mponet_jax.adapter import backend as backend
from mponet_jax.exporting import export as export
from mponet_jax.nn.convolution import MPOConv as MPOConv
from mponet_jax.nn.embedding import MPOEmbed as MPOEmbed
from mponet_jax.nn.linear import MPOLinear as MPOLinear
from mponet_jax.nn.network import NetworkLinear as NetworkLinear

__all__ = ["MPOConv", "MPOEmbed", "MPOLinear", "NetworkLinear", "backend", "export"]
