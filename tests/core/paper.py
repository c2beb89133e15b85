"""Published figures that several tests look up."""

from dataclasses import dataclass

#: Bond dimension of FC2's first layer to the weights of both layers: paper Fig. 2, bonds capped at
#: their maximum.
FIGURE_2_WEIGHTS = {
    2: 1024,
    4: 1760,
    6: 2944,
    8: 4576,
    10: 6656,
    12: 9184,
    14: 12160,
    16: 15584,
    18: 17376,
    20: 19168,
    22: 20960,
}


@dataclass(frozen=True)
class Row:
    """Counts by hand from the paper's architectures; only ``dense`` and ``mpo`` include biases.

    Attributes:
        dense: parameters of the normal network.
        mpo: parameters of the MPO-Net, as wired in the authors' code.
        replaced: weights of the layers that become operators, a convolution's those of its kernel.
        weights: of the operators.
        rho: the ratio of these two as the paper would print it.
        whole: the ratio of the first two, rounded.
    """

    dense: int
    mpo: int
    replaced: int
    weights: int
    rho: str
    whole: str


ROWS = {
    "fc2": Row(203_264, 15_850, 203_264, 15_584, "0.0767", "0.078"),
    "lenet5": Row(61_612, 5_646, 58_920, 2_860, "0.0485", "0.0916"),
    "vgg16": Row(28_922_832, 5_307_014, 23_633_920, 10_944, "0.000463", "0.1835"),
    "vgg19": Row(38_952_400, 15_328_390, 23_633_920, 10_944, "0.000463", "0.3935"),
    "resnet20": Row(4_298_970, 4_297_188, 2_560, 276, "0.108", "0.9996"),
    "resnet56": Row(13_599_450, 13_597_668, 2_560, 276, "0.108", "0.9999"),
    "resnet56-unit": Row(13_599_450, 12_486_180, 1_182_208, 3_412, "0.00289", "0.918"),
    "densenet40-12": Row(1_019_722, 1_016_704, 4_480, 576, "0.129", "0.997"),
    "densenet40-24": Row(3_877_402, 3_871_136, 8_800, 784, "0.089", "0.998"),
    "densenet100-12": Row(7_083_538, 7_074_944, 11_760, 824, "0.070", "0.999"),
    "densenet100-24": Row(29_313_322, 29_295_176, 24_000, 1_064, "0.044", "0.999"),
}

#: Millions of multiplications of the normal network for one image.
MILLIONS = {
    "vgg16": 257,
    "vgg19": 417,
    "resnet14": 393,
    "resnet20": 619,
    "resnet56": 1978,
    "resnet110": 4016,
    "densenet40-12": 265,
    "densenet40-24": 987,
    "densenet100-12": 1817,
    "densenet100-24": 7835,
}

#: Layer -> (input factors, output factors, weights of the operator, weights that it replaces);
#: bonds are 4.
VGG_OPERATORS = {
    "conv A": ((2, 8, 8, 8, 2), (2, 8, 8, 8, 2), 3104, 9 * 512 * 512),
    "conv B": ((2, 8, 8, 8, 2), (2, 8, 8, 8, 2), 3104, 9 * 512 * 512),
    "fc1": ((4, 4, 4, 4, 2), (4, 4, 8, 8, 4), 1376, 512 * 4096),
    "fc2": ((4, 4, 8, 8, 4), (4, 4, 8, 8, 4), 2432, 4096 * 4096),
    "fc3": ((4, 4, 8, 8, 4), (1, 10, 1, 1, 1), 928, 4096 * 10),
}
