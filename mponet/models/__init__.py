"""The networks of the paper as data; `build` makes one, `infer` counts it, `start` initialises it."""

from collections.abc import Callable
from dataclasses import dataclass

from mponet.errors import ModelError
from mponet.models.fc2 import fc2
from mponet.models.layers import Model as Model
from mponet.models.lenet5 import lenet5

VARIANTS = ("dense", "mpo")


@dataclass(frozen=True, slots=True)
class Family:
    """A network with its normal and its MPO variant.

    Attributes:
        make: builds it from variant and bond.
        title: one line for people.
        data: the data set of the paper.
    """

    make: Callable[[str, int | None], Model]
    title: str
    data: str


TABLE: dict[str, Family] = {
    "fc2": Family(fc2, "two fully connected layers, 784-256-10", "mnist"),
    "lenet5": Family(lenet5, "LeNet-5 with ReLU and max pooling", "mnist"),
}


def build(name: str, variant: str = "mpo", bond: int | None = None) -> Model:
    """The network ``name``.

    Args:
        name: a key of `TABLE`.
        variant: ``dense`` or ``mpo``.
        bond: bond dimension of its operators; None for the published one.

    Raises:
        ModelError: an unknown name or variant, or a bond for the dense variant.
    """
    if name not in TABLE:
        raise ModelError(f"model is {name!r}; expected one of {', '.join(TABLE)}")
    if variant not in VARIANTS:
        raise ModelError(f"variant is {variant!r}; expected one of {', '.join(VARIANTS)}")
    if bond is not None and variant == "dense":
        raise ModelError(
            f"bond is {bond} for the dense variant of {name}; expected none; a bond belongs to variant mpo"
        )
    if bond is not None and bond < 1:
        raise ModelError(f"bond is {bond}; expected a whole number of at least 1")
    return TABLE[name].make(variant, bond)
