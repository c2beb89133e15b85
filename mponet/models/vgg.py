"""VGG-16 and VGG-19 on CIFAR-10: paper Table I and the authors' VGG/.

A unit is batch norm, ReLU, convolution without bias, also on the input image.  VGG-16 is configuration C, whose third
convolutions in stages 3 to 5 are 1 x 1.  In the MPO-Nets, two convolutions of the last stage become maps of the whole
feature map (`mponet.models.layers.global_map` has the meaning), with batch norm over all their features in between, and
the three fully connected layers become operators.
"""

from dataclasses import dataclass
from math import prod

from mponet.models.layers import BatchNorm, Conv2D, Dense, Dropout, Flatten, Layer, MaxPool, Model, ReLU, Reshape
from mponet.shape import MPOShape

SOURCE = "PRR 2, 023300 (2020), Table I; wiring as in the authors' code, dropout off in evaluation as usual"
DROPOUT = 0.2  # the authors keep 0.8, behind the first two fully connected layers
Factors = tuple[tuple[int, ...], tuple[int, ...], int]  # inputs, outputs, bond


@dataclass(frozen=True, slots=True)
class Row:
    """What tells one VGG from another.

    Attributes:
        stages: ``(features, kernel size)`` of each convolution, stage by stage; each stage ends in a pooling by 2.
        replaced: the convolutions that become operators, counted from 1 in the last stage.
        conv: factors of each of them.
        head: ``(features, bias in the MPO-Net, factors)`` of each fully connected layer.
        image: shape of the input.
    """

    stages: tuple[tuple[tuple[int, int], ...], ...]
    replaced: tuple[int, ...]
    conv: Factors
    head: tuple[tuple[int, bool, Factors], ...]
    image: tuple[int, int, int] = (32, 32, 3)


_CONV: Factors = ((2, 8, 8, 8, 2), (2, 8, 8, 8, 2), 4)
_FC: tuple[Factors, ...] = (
    ((4, 4, 4, 4, 2), (4, 4, 8, 8, 4), 4),
    ((4, 4, 8, 8, 4), (4, 4, 8, 8, 4), 4),
    ((4, 4, 8, 8, 4), (1, 10, 1, 1, 1), 4),
)
ROWS = {
    16: Row(
        stages=(
            ((64, 3),) * 2,
            ((128, 3),) * 2,
            ((256, 3), (256, 3), (256, 1)),
            ((512, 3), (512, 3), (512, 1)),
            ((512, 3), (512, 3), (512, 1)),
        ),
        replaced=(1, 2),
        conv=_CONV,
        head=((4096, True, _FC[0]), (4096, True, _FC[1]), (10, False, _FC[2])),
    ),
    19: Row(
        stages=(((64, 3),) * 2, ((128, 3),) * 2, ((256, 3),) * 4, ((512, 3),) * 4, ((512, 3),) * 4),
        replaced=(3, 4),
        conv=_CONV,
        head=((4096, False, _FC[0]), (4096, False, _FC[1]), (10, False, _FC[2])),
    ),
}


def vgg(depth: int, variant: str, bond: int | None) -> Model:
    """VGG-16 or VGG-19; ``bond`` is asked of all five operators (None: 4)."""
    return network(f"vgg{depth}", ROWS[depth], variant, bond)


def network(name: str, row: Row, variant: str, bond: int | None) -> Model:
    """The network of a row; a narrow row of your own makes a small one."""
    layers: list[Layer] = []
    channels = row.image[2]
    for number, convs in enumerate(row.stages, start=1):
        replaced = row.replaced if variant == "mpo" and number == len(row.stages) else ()
        layers += _stage(number, convs, channels, replaced, row, bond)
        channels = convs[-1][0]
    layers += [Flatten(), *_head(row, variant, bond)]
    return Model(name, variant, bond, row.image, tuple(layers), SOURCE)


def _stage(
    number: int,
    convs: tuple[tuple[int, int], ...],
    channels: int,
    replaced: tuple[int, ...],
    row: Row,
    bond: int | None,
) -> list[Layer]:
    layers: list[Layer] = []
    size = row.image[0] >> (number - 1), row.image[1] >> (number - 1)
    flat = False
    for index, (features, kernel) in enumerate(convs, start=1):
        name = f"{number}_{index}"
        if flat and index not in replaced:
            layers.append(Reshape((*size, channels)))
            flat = False
        layers += [BatchNorm(f"bn{name}"), ReLU()]
        if index in replaced:
            if not flat:
                layers.append(Flatten())
            mpo = _shape(row.conv, bond)
            layers.append(
                Dense(f"conv{name}", mpo.out_features, mpo=mpo, replaces=prod((kernel, kernel, channels, features)))
            )
            flat = True
        else:
            layers.append(Conv2D(f"conv{name}", features, (kernel, kernel), bias=False))
        channels = features
    if flat:
        layers.append(Reshape((*size, channels)))
    return [*layers, MaxPool()]


def _head(row: Row, variant: str, bond: int | None) -> list[Layer]:
    layers: list[Layer] = []
    for number, (features, bias, factors) in enumerate(row.head, start=1):
        if variant == "mpo":
            layers.append(Dense(f"fc{number}", features, bias=bias, mpo=_shape(factors, bond)))
        else:
            layers.append(Dense(f"fc{number}", features))
        if number < len(row.head):
            layers += [ReLU(), Dropout(DROPOUT)]
    return layers


def _shape(factors: Factors, bond: int | None) -> MPOShape:
    inputs, outputs, published = factors
    return MPOShape.of(inputs, outputs, published if bond is None else bond)
