"""mponet for TensorFlow and Keras 3.

Layers, and the `backend` that ``mponet.load("tensorflow")`` gives.
"""

from mponet_tensorflow.adapter import backend as backend
from mponet_tensorflow.exporting import export as export
from mponet_tensorflow.nn.convolution import MPOConv1D as MPOConv1D
from mponet_tensorflow.nn.convolution import MPOConv2D as MPOConv2D
from mponet_tensorflow.nn.embedding import MPOEmbedding as MPOEmbedding
from mponet_tensorflow.nn.linear import MPODense as MPODense
from mponet_tensorflow.nn.network import NetworkDense as NetworkDense

__all__ = ["MPOConv1D", "MPOConv2D", "MPODense", "MPOEmbedding", "NetworkDense", "backend", "export"]
