"""The layer vocabulary: what a network is made of, as data.

Feature maps are ``(height, width, channels)`` and flattened in that order; convolution kernels are ``(height, width,
in, out)``, dense kernels ``(in, out)``.  Only layers with parameters have a name; it is the first part of their
parameters' names.
"""

from dataclasses import dataclass
from typing import Literal

from mponet.shape import MPOShape

Padding = Literal["SAME", "VALID"]


@dataclass(frozen=True, slots=True)
class Dense:
    """``y = x @ W + b`` on vectors; with ``mpo``, ``W`` is a matrix product operator.

    Attributes:
        name: of the layer.
        features: number of outputs.
        bias: whether there is a bias.
        mpo: shape of the operator; None for a full matrix.
        replaces: weights of the layer that the operator stands for, where that is no full matrix (a convolution counts
            its kernel, paper Eq. 9); None for the full matrix.
    """

    name: str
    features: int
    bias: bool = True
    mpo: MPOShape | None = None
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class Conv2D:
    """Cross-correlation of a feature map with a kernel.

    Padding as TensorFlow does it: ``SAME`` gives ``ceil(size / stride)`` positions and pads the odd one at the bottom
    and right.
    """

    name: str
    features: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: Padding = "SAME"
    bias: bool = True

    def pads(self, input_shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Zeros put before and after the rows and the columns of a map ``(height, width, channels)``."""
        if self.padding == "VALID":
            return (0, 0), (0, 0)
        missing = [
            max((-(-n // self.stride) - 1) * self.stride + k - n, 0)
            for n, k in zip(input_shape[:2], self.kernel, strict=True)
        ]
        rows, columns = ((total // 2, total - total // 2) for total in missing)
        return rows, columns


@dataclass(frozen=True, slots=True)
class ReLU:
    """``max(x, 0)``."""


@dataclass(frozen=True, slots=True)
class MaxPool:
    """Largest value of each ``size x size`` window, no padding."""

    size: int = 2
    stride: int = 2


@dataclass(frozen=True, slots=True)
class Flatten:
    """A feature map as one vector, height slowest, channels fastest."""


Layer = Dense | Conv2D | ReLU | MaxPool | Flatten


@dataclass(frozen=True, slots=True)
class Model:
    """A network: layers applied one after the other to images ``(batch, height, width, channels)``.

    Attributes:
        name: as in `mponet.models.TABLE`.
        variant: ``dense`` for the normal network, ``mpo`` for the one with operators.
        bond: the bond dimension asked for; None for the published one.
        input_shape: ``(height, width, channels)``.
        layers: the layers, in order.
        source: where the numbers are from.
    """

    name: str
    variant: str
    bond: int | None
    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    source: str

    def __str__(self) -> str:
        return f"{self.name} ({self.variant})"
