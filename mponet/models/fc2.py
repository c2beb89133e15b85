"""FC2 on MNIST: paper Fig. 2 and the authors' FC2/mpo/inference.py."""

from mponet.models.spec import PAPER, Dense, Flatten, Layer, Model, ReLU
from mponet.operators.shape import MPOShape

BOND = 16  # where the paper's mpo variant reaches the dense one (Fig. 2)
HIDDEN = 256
CLASSES = 10
SOURCE = f"{PAPER}, Fig. 2; biases as in the authors' code (none in the dense network)"
CODE_SOURCE = f"{SOURCE}; output factors of the second operator as in the authors' code"


def fc2(variant: str, bond: int | None, *, code: bool = False) -> Model:
    """784 -> 256 -> 10.

    Args:
        variant: ``dense`` or ``mpo``.
        bond: bond dimension of the first layer's operator; the second keeps the paper's 4.
        code: whether the output factors of the second operator are those of the authors' code, (1,
            10, 1, 1), instead of those of the paper's text, (1, 1, 10, 1).
    """
    layers = _mpo(BOND if bond is None else bond, (1, 10, 1, 1) if code else (1, 1, 10, 1))
    name = "fc2-code" if code else "fc2"
    return Model(
        name, variant, bond, (28, 28, 1), layers if variant == "mpo" else _dense(), CODE_SOURCE if code else SOURCE
    )


def _dense() -> tuple[Layer, ...]:
    return (Flatten(), Dense("fc1", HIDDEN, bias=False), ReLU(), Dense("fc2", CLASSES, bias=False))


def _mpo(bond: int, outputs: tuple[int, ...]) -> tuple[Layer, ...]:
    first = MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), bond)
    second = MPOShape.from_factors((4, 4, 4, 4), outputs, 4)
    return (Flatten(), Dense("fc1", HIDDEN, mpo=first), ReLU(), Dense("fc2", CLASSES, mpo=second))
