"""VGG-16 and VGG-19 on CIFAR-10: paper Table I and the authors' VGG/.

A unit is batch norm, ReLU and a convolution without bias, also on the input image.  VGG-16 is
configuration C, whose third convolutions in stages 3 to 5 are 1 x 1.  In the MPO variant two
convolutions of the last stage become maps of the whole feature map
(`mponet.models.spec.global_maps`), with batch norm over all features in between, and the three
fully connected layers become operators.
"""

from dataclasses import dataclass

from mponet.models.spec import (
    PAPER,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool,
    Model,
    ReLU,
    global_maps,
)
from mponet.operators.shape import MPOShape

SOURCE = f"{PAPER}, Table I; wiring as in the authors' code, dropout off in evaluation as usual"
DROPOUT = 0.2  # the authors keep 0.8 after each of the first two fully connected layers
Factors = tuple[tuple[int, ...], tuple[int, ...], int]  # inputs, outputs, bond
Convs = tuple[tuple[int, int], ...]  # (features, kernel size) of each


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a VGG.

    Attributes:
        stages: the convolutions, stage by stage; each stage ends in a pooling by 2.
        replaced: consecutive convolutions of the last stage that become operators, counted from 1.
        conv: factors and bond dimension of each of them.
        head: ``(features, bias in the MPO variant, factors)`` of each fully connected layer.
        image: shape of an image.
    """

    stages: tuple[Convs, ...]
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
SIZES = {
    16: Sizes(
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
    19: Sizes(
        stages=(((64, 3),) * 2, ((128, 3),) * 2, ((256, 3),) * 4, ((512, 3),) * 4, ((512, 3),) * 4),
        replaced=(3, 4),
        conv=_CONV,
        head=((4096, False, _FC[0]), (4096, False, _FC[1]), (10, False, _FC[2])),
    ),
}


def vgg(depth: int, variant: str, bond: int | None) -> Model:
    """VGG-16 or VGG-19; all five operators have ``bond`` (None: 4)."""
    return network(f"vgg{depth}", SIZES[depth], variant, bond)


def network(name: str, sizes: Sizes, variant: str, bond: int | None) -> Model:
    """The network of given sizes; `mponet.models.miniatures` has small ones."""
    layers: list[Layer] = []
    for number, convs in enumerate(sizes.stages, start=1):
        replaced = variant == "mpo" and number == len(sizes.stages)
        layers += [*(_last_stage(sizes, bond) if replaced else _units(number, convs)), MaxPool()]
    layers += [Flatten(), *_head(sizes, variant, bond)]
    return Model(name, variant, bond, sizes.image, tuple(layers), SOURCE)


def _units(stage: int, convs: Convs, first: int = 1) -> list[Layer]:
    layers: list[Layer] = []
    for index, (features, kernel) in enumerate(convs, start=first):
        name = f"{stage}_{index}"
        layers += [BatchNorm(f"bn{name}"), ReLU(), Conv2D(f"conv{name}", features, (kernel, kernel), bias=False)]
    return layers


def _last_stage(sizes: Sizes, bond: int | None) -> list[Layer]:
    """The last stage of the MPO variant, without its pooling."""
    stage, convs = len(sizes.stages), sizes.stages[-1]
    channels = (
        sizes.stages[-2][-1][0],
        *(features for features, _ in convs),
    )  # before, and after each
    mpo = _shape(sizes.conv, bond)
    operators = [
        Dense(
            f"conv{stage}_{index}",
            mpo.out_features,
            mpo=mpo,
            replaces=convs[index - 1][1] ** 2 * channels[index - 1] * channels[index],
        )
        for index in sizes.replaced
    ]
    norm, *norms = (f"bn{stage}_{index}" for index in sizes.replaced)
    before, after = sizes.replaced[0] - 1, sizes.replaced[-1]
    height, width = (size >> (stage - 1) for size in sizes.image[:2])
    maps = global_maps(operators, (height, width, channels[after]), norms)
    return [*_units(stage, convs[:before]), BatchNorm(norm), ReLU(), *maps, *_units(stage, convs[after:], after + 1)]


def _head(sizes: Sizes, variant: str, bond: int | None) -> list[Layer]:
    layers: list[Layer] = []
    for number, (features, bias, factors) in enumerate(sizes.head, start=1):
        if variant == "mpo":
            layers.append(Dense(f"fc{number}", features, bias=bias, mpo=_shape(factors, bond)))
        else:
            layers.append(Dense(f"fc{number}", features))
        if number < len(sizes.head):
            layers += [ReLU(), Dropout(DROPOUT)]
    return layers


def _shape(factors: Factors, bond: int | None) -> MPOShape:
    inputs, outputs, published = factors
    return MPOShape.from_factors(inputs, outputs, published if bond is None else bond)
