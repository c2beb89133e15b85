"""mponet for TensorFlow and Keras 3: layers, and the `backend` that ``mponet.load("tensorflow")`` gives."""

from mponet_tensorflow.adapter import backend as backend
from mponet_tensorflow.nn.linear import MPODense as MPODense
from mponet_tensorflow.nn.network import NetworkDense as NetworkDense

__all__ = ["MPODense", "NetworkDense", "backend"]
