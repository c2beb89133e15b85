"""FC2 on MNIST: paper Fig. 2 and the authors' FC2/mpo/inference.py."""

from mponet.models.layers import Dense, Flatten, Layer, Model, ReLU
from mponet.shape import MPOShape

BOND = 16  # where the paper's MPO-Net reaches the normal network (Fig. 2)
HIDDEN = 256
CLASSES = 10
SOURCE = "PRR 2, 023300 (2020), Fig. 2; biases as in the authors' code (none in the normal network)"


def fc2(variant: str, bond: int | None) -> Model:
    """784 -> 256 -> 10; with ``mpo``, ``bond`` is that of the first layer, the second keeps the paper's 4."""
    layers = _mpo(BOND if bond is None else bond) if variant == "mpo" else _dense()
    return Model("fc2", variant, bond, (28, 28, 1), layers, SOURCE)


def _dense() -> tuple[Layer, ...]:
    return (Flatten(), Dense("fc1", HIDDEN, bias=False), ReLU(), Dense("fc2", CLASSES, bias=False))


def _mpo(bond: int) -> tuple[Layer, ...]:
    first = MPOShape.of((4, 7, 7, 4), (4, 4, 4, 4), bond)
    second = MPOShape.of((4, 4, 4, 4), (1, 1, 10, 1), 4)  # text; the code has (1, 10, 1, 1), the same count
    return (Flatten(), Dense("fc1", HIDDEN, mpo=first), ReLU(), Dense("fc2", CLASSES, mpo=second))
