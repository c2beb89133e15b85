"""ResNet on CIFAR-10: paper Fig. 3 and the authors' ResNet/, a wide ResNet with pre-activation.

Three groups of ``n`` blocks with ``16k``, ``32k`` and ``64k`` features; the name holds the depth
``6n + 2``.  A block is batch norm, ReLU and convolution, twice, with a shortcut around them.  The
first block of a group projects its shortcut, which starts after its first ReLU.  In the MPO variant
the fully connected layer is an operator without a bias, after one more batch norm and ReLU (the
authors' code of January 2019, which runs).  Optionally the last block becomes two maps of the whole
feature map as well (the paper's text, 56 layers).
"""

from math import prod

from mponet.errors import ModelError
from mponet.models.spec import (
    PAPER,
    AvgPool,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    Model,
    ReLU,
    Residual,
    global_maps,
)
from mponet.operators.factors import factorize
from mponet.operators.shape import MPOShape

K = 4
WIDTHS = (16, 32, 64)
CLASSES = 10
HEAD_BOND = 3  # Fig. 3
UNIT_BOND = 4  # text
UNIT_FACTORS = (2, 4, 4, 4, 4, 4, 4, 2)  # text: for the 8 x 8 map of 256 features at k = 4
SOURCE = f"{PAPER}, Fig. 3; wiring as in the authors' code, January 2019"
UNIT_SOURCE = f"{PAPER}, text; the head's wiring as in the authors' code, January 2019"


def resnet(
    name: str,
    depth: int,
    k: int,
    variant: str,
    bond: int | None,
    *,
    unit: bool = False,
    image: tuple[int, int, int] = (32, 32, 3),
) -> Model:
    """ResNet of ``depth`` layers.

    Args:
        name: name of the model.
        depth: ``6n + 2``.
        k: widening factor; the paper's is 4.
        variant: ``dense`` or ``mpo``.
        bond: bond dimension of all operators; None for the published 3 (head) and 4 (last unit).
        unit: whether the MPO variant replaces the last block as well.
        image: shape of an image, a square whose side is a multiple of 4.

    Raises:
        ModelError: there is no network of that depth, or its last block cannot be replaced.
    """
    blocks, odd = divmod(depth - 2, 6)
    if blocks < 1 or odd or k < 1:
        raise ModelError(f"{name} has depth {depth} and k {k}; expected a depth of 6n + 2 (8, 14, 20, ...), k from 1")
    if unit and blocks < 2:
        raise ModelError(
            f"{name} has one block in each group, whose shortcut changes shape; expected two or more to replace one"
        )
    layers: list[Layer] = [Conv2D("conv", WIDTHS[0], (3, 3), bias=False)]
    for group, width in enumerate(WIDTHS, start=1):
        for block in range(1, blocks + 1):
            last = unit and variant == "mpo" and (group, block) == (len(WIDTHS), blocks)
            here = f"group{group}_block{block}"
            layers += _unit(here, k, bond, image) if last else _block(here, width * k, block == 1, min(group, 2))
    layers += [BatchNorm("bn"), ReLU(), AvgPool(image[0] // 4, image[0] // 4), Flatten(), *_head(k, variant, bond)]
    return Model(name, variant, bond, image, tuple(layers), UNIT_SOURCE if unit else SOURCE)


def _block(name: str, features: int, first: bool, stride: int) -> list[Layer]:
    stride = stride if first else 1
    begin: list[Layer] = [BatchNorm(f"{name}_bn1"), ReLU()]
    rest: list[Layer] = [
        Conv2D(f"{name}_conv1", features, (3, 3), stride, bias=False),
        BatchNorm(f"{name}_bn2"),
        ReLU(),
        Conv2D(f"{name}_conv2", features, (3, 3), bias=False),
    ]
    if not first:
        return [Residual((*begin, *rest))]
    return [*begin, Residual(tuple(rest), (Conv2D(f"{name}_shortcut", features, (1, 1), stride, bias=False),))]


def _unit(name: str, k: int, bond: int | None, image: tuple[int, int, int]) -> list[Layer]:
    """The last block as two maps of its whole feature map."""
    size, features = image[0] // 4, WIDTHS[-1] * k
    total = size * size * features
    factors = UNIT_FACTORS if total == prod(UNIT_FACTORS) else factorize(total, len(UNIT_FACTORS))
    shape = MPOShape.from_factors(factors, factors, UNIT_BOND if bond is None else bond)
    operators = [Dense(f"{name}_conv{number}", total, mpo=shape, replaces=9 * features * features) for number in (1, 2)]
    maps = global_maps(operators, (size, size, features), norms=[f"{name}_bn2"])
    return [Residual((BatchNorm(f"{name}_bn1"), ReLU(), *maps))]


def _head(k: int, variant: str, bond: int | None) -> list[Layer]:
    if variant == "dense":
        return [Dense("fc", CLASSES)]
    shape = MPOShape.from_factors((4, 4, 4, k), (1, 5, 2, 1), HEAD_BOND if bond is None else bond)
    return [BatchNorm("fc_bn"), ReLU(), Dense("fc", CLASSES, bias=False, mpo=shape)]
