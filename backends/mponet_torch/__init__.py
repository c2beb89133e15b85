"""mponet for PyTorch: layers, and the `backend` that ``mponet.load("torch")`` gives."""

from mponet_torch.adapter import backend as backend
from mponet_torch.nn.convolution import MPOConv1d as MPOConv1d
from mponet_torch.nn.convolution import MPOConv2d as MPOConv2d
from mponet_torch.nn.embedding import MPOEmbedding as MPOEmbedding
from mponet_torch.nn.embedding import TiedHead as TiedHead
from mponet_torch.nn.linear import MPOLinear as MPOLinear
from mponet_torch.nn.network import NetworkLinear as NetworkLinear

__all__ = ["MPOConv1d", "MPOConv2d", "MPOEmbedding", "MPOLinear", "NetworkLinear", "TiedHead", "backend"]
