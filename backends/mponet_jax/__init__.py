"""mponet for JAX and flax.nnx.

Layers, compression, and the `backend` that ``mponet.load("jax")`` gives.
"""

from typing import TYPE_CHECKING

from mponet.backend import on_first_use
from mponet_jax.adapter import backend as backend
from mponet_jax.nn.convolution import MPOConv as MPOConv
from mponet_jax.nn.einsum import MPOEinsum as MPOEinsum
from mponet_jax.nn.embedding import MPOEmbed as MPOEmbed
from mponet_jax.nn.linear import MPOLinear as MPOLinear
from mponet_jax.nn.network import NetworkLinear as NetworkLinear

if TYPE_CHECKING:
    from mponet_jax.compression import calibrate as calibrate
    from mponet_jax.compression import compress as compress
    from mponet_jax.compression import heal as heal
    from mponet_jax.compression import load_compressed as load_compressed
    from mponet_jax.compression import merge as merge
    from mponet_jax.compression import plan as plan
    from mponet_jax.compression import save_compressed as save_compressed
    from mponet_jax.exporting import export as export
    from mponet_jax.freezing import freeze as freeze
    from mponet_jax.freezing import unfreeze as unfreeze

__all__ = [
    "MPOConv",
    "MPOEinsum",
    "MPOEmbed",
    "MPOLinear",
    "NetworkLinear",
    "backend",
    "calibrate",
    "compress",
    "export",
    "freeze",
    "heal",
    "load_compressed",
    "merge",
    "plan",
    "save_compressed",
    "unfreeze",
]

if not TYPE_CHECKING:  # training and running a model need none of these modules
    __getattr__, __dir__ = on_first_use(__name__, __all__, ("compression", "exporting", "freezing"))
