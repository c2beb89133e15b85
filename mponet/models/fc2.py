"""FC2 on MNIST: paper Fig. 2 and the authors' FC2/mpo/inference.py."""

from mponet.models.spec import PAPER, Dense, Flatten, Layer, Model, ReLU
from mponet.operators.shape import MPOShape

BOND = 16  # where the paper's MPO-Net reaches the normal network (Fig. 2)
HIDDEN = 256
CLASSES = 10
SOURCE = f"{PAPER}, Fig. 2; biases as in the authors' code (none in the normal network)"
CODE_SOURCE = f"{SOURCE}; output factors of the second operator as in the authors' code"


def fc2(variant: str, bond: int | None, *, code: bool = False) -> Model:
    """784 -> 256 -> 10; with ``mpo``, ``bond`` is that of the first layer, the second keeps the paper's 4.

    The second layer's output factors are (1, 1, 10, 1) in the paper's text and (1, 10, 1, 1) in the
    authors' ``code``.
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
