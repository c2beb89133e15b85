"""The layers that networks are made of, as data.

Feature maps are ``(height, width, channels)`` and are flattened in that order; convolution kernels
are ``(height, width, in, out)``, dense kernels ``(in, out)``.  Only layers with parameters have a
name.  It is the first part of the names of their parameters, and unique within a network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mponet.display import NotebookRepr
from mponet.operators.shape import MPOShape

PAPER = "PRR 2, 023300 (2020)"  # the source of the networks
Padding = Literal["SAME", "VALID"]


@dataclass(frozen=True, slots=True)
class Dense:
    """``y = x @ W + b`` on vectors; with ``mpo``, ``W`` is a matrix product operator.

    Attributes:
        name: name of the layer.
        features: number of outputs.
        bias: whether a bias is added.
        mpo: shape of the operator; None for a full matrix.
        replaces: number of weights that the operator replaces, if it does not replace a full matrix
            (for a convolution that is its kernel, paper Eq. 9); None for the full matrix.
    """

    name: str
    features: int
    bias: bool = True
    mpo: MPOShape | None = None
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class Conv2D:
    """Cross-correlation of a feature map with a kernel.

    With ``mpo``, the kernel is a matrix product operator.

    Padding follows TensorFlow: ``SAME`` gives ``ceil(size / stride)`` positions, and an odd zero is
    added at the bottom or the right.

    Attributes:
        name: name of the layer.
        features: number of output channels.
        kernel: ``(height, width)`` of the kernel.
        stride: step between two positions, the same in both directions.
        padding: ``SAME`` or ``VALID``.
        bias: whether a bias is added to each output channel.
        mpo: shape of the operator that replaces the kernel, read as the matrix ``(height * width *
            input channels, features)``; None for a full kernel.
    """

    name: str
    features: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: Padding = "SAME"
    bias: bool = True
    mpo: MPOShape | None = None

    def pads(self, input_shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Zeros before and after the rows and the columns of ``(height, width, channels)``."""
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
    """Largest value of each ``size x size`` window, without padding."""

    size: int = 2
    stride: int = 2


@dataclass(frozen=True, slots=True)
class Flatten:
    """A feature map as one vector, height slowest, channels fastest."""


@dataclass(frozen=True, slots=True)
class AvgPool:
    """Mean of each ``size x size`` window, without padding."""

    size: int = 2
    stride: int = 2


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """``(x - mean) / sqrt(variance + epsilon) * scale + shift`` over the last axis.

    In training, mean and variance (biased, divided by the number of values) are taken over the
    batch and all positions, and the running statistics change by ``running <- decay * running + (1
    - decay) * batch``.  Inference uses the running statistics ``mean`` and ``variance``, which are
    not parameters.
    """

    name: str
    decay: float = 0.99
    epsilon: float = 1e-3


@dataclass(frozen=True, slots=True)
class Dropout:
    """In training, keeps each value with probability ``1.

    Rate`` and divides it by that, else sets it to zero.
    """

    rate: float


@dataclass(frozen=True, slots=True)
class Reshape:
    """Reads an example in another shape, row-major.

    For example, a vector as ``(height, width, channels)``.
    """

    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PadChannels:
    """Appends ``channels`` channels of zeros to a feature map."""

    channels: int


@dataclass(frozen=True, slots=True)
class Residual:
    """``body(x) + shortcut(x)``; an empty shortcut is ``x`` itself."""

    body: "tuple[Layer, ...]"
    shortcut: "tuple[Layer, ...]" = ()


@dataclass(frozen=True, slots=True)
class Concat:
    """``x`` and ``body(x)``, concatenated along the channels."""

    body: "tuple[Layer, ...]"


Layer = (
    Dense
    | Conv2D
    | BatchNorm
    | ReLU
    | MaxPool
    | AvgPool
    | Flatten
    | Reshape
    | PadChannels
    | Dropout
    | Residual
    | Concat
)


def global_maps(
    operators: Sequence[Dense], output_map: tuple[int, int, int], norms: Sequence[str] = ()
) -> tuple[Layer, ...]:
    """Linear maps of a whole feature map, as layers; the paper calls them MPO convolutions.

    The feature map ``(height, width, channels)`` is flattened, height slowest and channels fastest,
    multiplied by an operator of ``height * width * channels`` inputs, and read as ``output_map``;
    each output has its own bias.  This is neither a convolution nor a decomposition of a kernel:
    positions share no weights, and every output depends on every input.

    Between two operators the map stays flat, so that the batch norm there is over all its values,
    not over channels, as in the authors' code.

    Args:
        operators: the maps, in order; ``replaces`` of each counts the kernel that it replaces, as
            the paper's ratio does (Eq. 9).
        output_map: ``(height, width, channels)`` after the last map.
        norms: names of the batch norms before each map but the first.
    """
    first, *rest = operators
    between = [layer for norm, map_ in zip(norms, rest, strict=True) for layer in (BatchNorm(norm), ReLU(), map_)]
    return (Flatten(), first, *between, Reshape(output_map))


@dataclass(frozen=True, slots=True)
class Model(NotebookRepr):
    """A network: layers applied one after the other to images ``(batch, height, width, channels)``.

    Attributes:
        name: the name that `mponet.models.build` takes.
        variant: ``dense``, ``mpo`` or ``low-rank``.
        bond: chosen bond dimension of the MPO variant; None for the published one.
        input_shape: ``(height, width, channels)`` of an image.
        layers: the layers, in order.
        source: source of the numbers: `PAPER`, a comma, the place in it, and after a semicolon any
            further source.
    """

    name: str
    variant: str
    bond: int | None
    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    source: str

    def __str__(self) -> str:
        return f"{self.name} ({self.variant})"
