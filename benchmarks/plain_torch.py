"""The dense networks and their training step written in PyTorch by hand, for `plumbing.py`.

Nothing here knows of mponet.  The networks are those of the paper in the authors' wiring: units of
batch norm, ReLU and a convolution without bias.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

STAGES = (
    ((64, 3), (64, 3)),
    ((128, 3), (128, 3)),
    ((256, 3), (256, 3), (256, 1)),
    ((512, 3), (512, 3), (512, 1)),
    ((512, 3), (512, 3), (512, 1)),
)


def unit(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Batch norm, ReLU, convolution."""
    return [*activation(inputs), nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)]


def activation(features: int) -> list[nn.Module]:
    """Batch norm, ReLU."""
    return [nn.BatchNorm2d(features, eps=1e-3, momentum=0.01), nn.ReLU(inplace=True)]


def vgg16() -> nn.Module:
    """Configuration C, whose last convolutions of stages 3 to 5 are 1 x 1."""
    layers: list[nn.Module] = []
    channels = 3
    for stage in STAGES:
        for features, kernel in stage:
            layers += unit(channels, features, kernel)
            channels = features
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    for inputs, outputs in pairwise((512, 4096, 4096)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True), nn.Dropout(0.2)]
    return nn.Sequential(*layers, nn.Linear(4096, 10))


class Block(nn.Module):
    """A ResNet block with pre-activation; a projected shortcut starts after the first ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.begin = nn.Sequential(*activation(inputs))
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), *unit(outputs, outputs, 3)
        )
        self.project = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The sum of both branches."""
        begun = self.begin(inputs)
        return self.body(begun) + (inputs if self.project is None else self.project(begun))


def resnet20() -> nn.Module:
    """Three groups of three blocks, 64, 128 and 256 wide."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    for inputs, outputs, stride in ((16, 64, 1), (64, 128, 2), (128, 256, 2)):
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1), Block(outputs, outputs, 1)]
    return nn.Sequential(*layers, *end(256))


class Grown(nn.Module):
    """A layer of a DenseNet: the input, and behind it what a unit makes of it."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.unit = nn.Sequential(*unit(inputs, growth, 3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """``growth`` channels more."""
        return torch.cat((inputs, self.unit(inputs)), 1)


def densenet40() -> nn.Module:
    """Three blocks of twelve layers, each twelve channels more."""
    channels, growth = 16, 12
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
    for block in range(3):
        if block:
            layers += [*unit(channels, channels, 1), nn.AvgPool2d(2)]
        for _ in range(12):
            layers.append(Grown(channels, growth))
            channels += growth
    return nn.Sequential(*layers, *end(channels))


def end(features: int) -> list[nn.Module]:
    """From the last map to ten logits."""
    return [*activation(features), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(features, 10)]


NETWORKS = {"vgg16": vgg16, "resnet20": resnet20, "densenet40-12": densenet40}


class Step:
    """One training step after another.

    Attributes:
        parameters: number of parameters.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.device = device
        self.model = model.to(device=device, memory_format=torch.channels_last).train()
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=2e-4, fused=True
        )

    def __call__(self, images: Any, labels: Any) -> torch.Tensor:
        """The loss of images ``(batch, height, width, channels)`` before the step, numpy both."""
        self.optimizer.zero_grad(set_to_none=True)
        inputs = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)  # channels-last already
        loss = cross_entropy(self.model(inputs), torch.from_numpy(labels).to(self.device))
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def trainer(name: str) -> Step:
    """The training step of a new network: ``step(images, labels)`` gives the loss."""
    return Step(NETWORKS[name](), torch.device("cuda" if torch.cuda.is_available() else "cpu"))
