"""mponet for PyTorch.

Layers, compression, and the `backend` that ``mponet.load("torch")`` gives.
"""

from typing import TYPE_CHECKING

from mponet.backend import on_first_use
from mponet_torch.adapter import backend as backend
from mponet_torch.nn.convolution import MPOConv1d as MPOConv1d
from mponet_torch.nn.convolution import MPOConv2d as MPOConv2d
from mponet_torch.nn.embedding import MPOEmbedding as MPOEmbedding
from mponet_torch.nn.embedding import TiedHead as TiedHead
from mponet_torch.nn.linear import MPOLinear as MPOLinear
from mponet_torch.nn.network import NetworkLinear as NetworkLinear
from mponet_torch.registration import register

if TYPE_CHECKING:
    from mponet_torch.compression import calibrate as calibrate
    from mponet_torch.compression import compress as compress
    from mponet_torch.compression import heal as heal
    from mponet_torch.compression import load_compressed as load_compressed
    from mponet_torch.compression import merge as merge
    from mponet_torch.compression import plan as plan
    from mponet_torch.compression import save_compressed as save_compressed
    from mponet_torch.exporting import export as export
    from mponet_torch.freezing import freeze as freeze
    from mponet_torch.freezing import unfreeze as unfreeze

__all__ = [
    "MPOConv1d",
    "MPOConv2d",
    "MPOEmbedding",
    "MPOLinear",
    "NetworkLinear",
    "TiedHead",
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
register()
