"""mponet for PyTorch: layers, and the `backend` that ``mponet.load("torch")`` gives."""

from mponet_torch.adapter import backend as backend
from mponet_torch.nn.linear import MPOLinear as MPOLinear
from mponet_torch.nn.network import NetworkLinear as NetworkLinear

__all__ = ["MPOLinear", "NetworkLinear", "backend"]
