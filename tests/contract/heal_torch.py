"""What `tests.backends.test_heal` asks of PyTorch."""

from copy import deepcopy

import torch
from torch import nn

from mponet.compress import CompressConfig
from mponet_torch import MPOConv2d, MPOLinear, compress, heal  # noqa: F401
from mponet_torch.compression.healing import NativeHealing
from mponet_torch.ops.arrays import to_numpy

#: What the data hold a whole pass of.
BATCHES = 12


class Network(nn.Module):
    """A convolution, statistics, dropout, and two layers that are a matrix."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.drop = nn.Dropout(0.3)
        self.hidden = nn.Linear(12 * 4, 30)
        self.head = nn.Linear(30, 5)

    def forward(self, maps):
        maps = torch.relu(self.norm(self.first(maps)))
        maps = nn.functional.max_pool2d(maps, 4)
        return self.head(torch.relu(self.hidden(self.drop(maps.flatten(1)))))


def networks():
    """A compressed network and the original, float64, both in eval mode."""
    torch.manual_seed(0)
    teacher = Network().double().eval()
    config = CompressConfig(keep=0.5, min_weights=1, structures=("low-rank", "balanced", "window"))
    student, _ = compress(teacher, config, batches())
    assert isinstance(student.first, MPOConv2d) and isinstance(student.hidden, MPOLinear)
    return student, teacher


def batches():
    """Inputs of the networks."""
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(BATCHES, 16, 3, 8, 8, generator=generator, dtype=torch.float64))


def copied(network):
    """A network with parameters of its own."""
    return deepcopy(network)


def arrays(network):
    """Parameters and statistics by name."""
    return {name: to_numpy(value) for name, value in network.state_dict().items() if value.ndim}


def outputs(network, batch):
    """Of the network in inference mode."""
    with torch.no_grad():
        return to_numpy(network.eval()(batch))


def operators(network):
    """The operators of a network as `mponet.MPO`, by name."""
    return {name: m.to_mpo() for name, m in network.named_modules() if isinstance(m, MPOConv2d | MPOLinear)}


def adapter(student, teacher, config):
    """The two as the core sees them."""
    return NativeHealing(student, teacher, config)


def modes(network):
    """What healing must give back."""
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    return [module.training for module in network.modules()], wanted
