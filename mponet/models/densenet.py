"""DenseNet on CIFAR-10.

Paper Table II and the authors' DenseNet/: no bottleneck, no compression in the transitions.

A convolution to ``n`` features, then three dense blocks of ``m`` layers, each of which adds ``k``
features; the name holds the depth ``3m + 4`` and ``k``.  In the MPO variant the fully connected
layer is an operator without a bias, after one more batch norm and ReLU, as in the authors' code.
Optionally the last convolution becomes a map of the whole feature map as well (the paper's text).
"""

from dataclasses import dataclass

from mponet.errors import ModelError
from mponet.models.spec import (
    PAPER,
    AvgPool,
    BatchNorm,
    Concat,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    Model,
    PadChannels,
    ReLU,
    global_maps,
)
from mponet.operators.factors import factorize
from mponet.operators.shape import MPOShape

BLOCKS = 3
CLASSES = 10
HEAD_BOND = 4  # Table II
SOURCE = f"{PAPER}, Table II; wiring as in the authors' code"
CONV_SOURCE = f"{PAPER}, text; the head's wiring as in the authors' code, the padding is ours"


@dataclass(frozen=True, slots=True)
class LastConv:
    """Factors of the operator for the last convolution.

    Attributes:
        channels: channels of zeros appended to the input, so that the inputs can be factorised.
        inputs: factors of the padded input map.
        outputs: factors of the output map.
        bond: published bond dimension.
    """

    channels: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    bond: int


#: Table II: ``n`` and the factors of the fully connected layer's inputs by ``(depth, k)``.
ROWS: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {
    (40, 12): (16, (4, 4, 7, 4)),
    (40, 24): (16, (4, 5, 11, 4)),
    (100, 12): (24, (4, 7, 7, 6)),
    (100, 24): (96, (5, 8, 12, 5)),
}
#: Text: M^{2,4,4,3,4,2}_{4,5,8,11,4,4}(20).  The product of the inputs is 8 * 8 * 440, but the
#: input of the layer has 436 channels.  The paper does not say how the rest was filled; we append
#: four channels of zeros.
LAST_CONV = {(16, 12, 12): LastConv(4, (4, 5, 8, 11, 4, 4), (2, 4, 4, 3, 4, 2), 20)}


def first_width(depth: int, k: int) -> int:
    """Default number of features of the first convolution: the published one, else ``2k``."""
    return ROWS[depth, k][0] if (depth, k) in ROWS else 2 * k


def densenet(
    name: str,
    depth: int,
    k: int,
    n: int,
    variant: str,
    bond: int | None,
    *,
    conv: bool = False,
    image: tuple[int, int, int] = (32, 32, 3),
    last: LastConv | None = None,
) -> Model:
    """DenseNet of ``depth`` layers and growth ``k``.

    Args:
        name: name of the model.
        depth: ``3m + 4``.
        k: number of features that each layer adds.
        n: number of features of the first convolution.
        variant: ``dense`` or ``mpo``.
        bond: bond dimension of all operators; None for the published 4 (head) and 20 (last
            convolution).
        conv: whether the MPO variant replaces the last convolution as well.
        image: shape of an image, a square whose side is a multiple of 4.
        last: factors of that convolution; None for the published ones.

    Raises:
        ModelError: there is no network of that depth, or no published factors for its last
            convolution.
    """
    per_block, odd = divmod(depth - 4, BLOCKS)
    if per_block < 1 or odd or k < 1 or n < 1:
        raise ModelError(
            f"{name} has depth {depth}, k {k}, n {n}; expected a depth of 3m + 4 (7, 10, ...), k, n from 1"
        )
    features = n + BLOCKS * k * per_block
    factors = ROWS[depth, k][1] if ROWS.get((depth, k), (0,))[0] == n else factorize(features, 4)
    last = last or LAST_CONV.get((n, per_block, k))
    if conv and last is None:
        raise ModelError(f"{name} has no published factors for its last convolution; expected densenet40-12-conv")
    operator = last if conv and variant == "mpo" else None
    layers = [*_body(n, k, per_block, image, bond, operator), *_end(image), *_head(factors, variant, bond)]
    return Model(name, variant, bond, image, tuple(layers), CONV_SOURCE if conv else SOURCE)


def _body(
    n: int, k: int, per_block: int, image: tuple[int, int, int], bond: int | None, last: LastConv | None
) -> list[Layer]:
    layers: list[Layer] = [Conv2D("conv", n, (3, 3), bias=False)]
    features = n
    for block in range(1, BLOCKS + 1):
        for layer in range(1, per_block + 1):
            name = f"block{block}_layer{layer}"
            unit: tuple[Layer, ...] = (Conv2D(f"{name}_conv", k, (3, 3), bias=False),)
            if last is not None and (block, layer) == (BLOCKS, per_block):
                unit = _last(f"{name}_conv", last, (image[0] // 4, image[1] // 4, k), 9 * features * k, bond)
            layers.append(Concat((BatchNorm(f"{name}_bn"), ReLU(), *unit)))
            features += k
        if block < BLOCKS:
            conv = Conv2D(f"transition{block}_conv", features, (1, 1), bias=False)
            layers += [BatchNorm(f"transition{block}_bn"), ReLU(), conv, AvgPool()]
    return layers


def _last(
    name: str, last: LastConv, output_map: tuple[int, int, int], replaces: int, bond: int | None
) -> tuple[Layer, ...]:
    shape = MPOShape.from_factors(last.inputs, last.outputs, last.bond if bond is None else bond)
    operator = Dense(name, shape.out_features, mpo=shape, replaces=replaces)
    return (PadChannels(last.channels), *global_maps([operator], output_map))


def _end(image: tuple[int, int, int]) -> list[Layer]:
    return [BatchNorm("bn"), ReLU(), AvgPool(image[0] // 4, image[0] // 4), Flatten()]


def _head(factors: tuple[int, ...], variant: str, bond: int | None) -> list[Layer]:
    if variant == "dense":
        return [Dense("fc", CLASSES)]
    shape = MPOShape.from_factors(factors, (1, 5, 2, 1), HEAD_BOND if bond is None else bond)
    return [BatchNorm("fc_bn"), ReLU(), Dense("fc", CLASSES, bias=False, mpo=shape)]
