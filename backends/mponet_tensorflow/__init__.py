"""mponet for TensorFlow and Keras 3.

Layers, compression, and the `backend` that ``mponet.load("tensorflow")`` gives.
"""

from typing import TYPE_CHECKING

from mponet.backend import on_first_use
from mponet_tensorflow.adapter import backend as backend
from mponet_tensorflow.nn.convolution import MPOConv1D as MPOConv1D
from mponet_tensorflow.nn.convolution import MPOConv2D as MPOConv2D
from mponet_tensorflow.nn.einsum import MPOEinsumDense as MPOEinsumDense
from mponet_tensorflow.nn.embedding import MPOEmbedding as MPOEmbedding
from mponet_tensorflow.nn.linear import MPODense as MPODense
from mponet_tensorflow.nn.network import NetworkDense as NetworkDense

if TYPE_CHECKING:
    from mponet_tensorflow.compression import calibrate as calibrate
    from mponet_tensorflow.compression import compress as compress
    from mponet_tensorflow.compression import heal as heal
    from mponet_tensorflow.compression import load_compressed as load_compressed
    from mponet_tensorflow.compression import merge as merge
    from mponet_tensorflow.compression import plan as plan
    from mponet_tensorflow.compression import save_compressed as save_compressed
    from mponet_tensorflow.exporting import export as export
    from mponet_tensorflow.freezing import freeze as freeze
    from mponet_tensorflow.freezing import unfreeze as unfreeze

__all__ = [
    "MPOConv1D",
    "MPOConv2D",
    "MPODense",
    "MPOEinsumDense",
    "MPOEmbedding",
    "NetworkDense",
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
