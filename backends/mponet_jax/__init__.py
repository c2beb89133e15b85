"""mponet for JAX and flax.nnx: layers, and the `backend` that ``mponet.load("jax")`` gives."""

from mponet_jax.adapter import backend as backend
from mponet_jax.nn.linear import MPOLinear as MPOLinear
from mponet_jax.nn.network import NetworkLinear as NetworkLinear

__all__ = ["MPOLinear", "NetworkLinear", "backend"]
