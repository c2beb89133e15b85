"""`Target`: a module of somebody's network, described without its framework."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mponet.errors import CompressionError

Array = NDArray[np.float64]
Kind = Literal["linear", "convolution", "embedding"]
KINDS: tuple[Kind, ...] = ("linear", "convolution", "embedding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A module with a weight that can be seen as a matrix ``(in_features, out_features)``.

    An adapter describes every module of a network that holds a weight, also those that it cannot
    replace: they are listed with the reason.  Numbers are read only when they are needed.

    Attributes:
        name: dotted name of the module in its network.
        kind: ``linear``, ``convolution`` or ``embedding``.
        type_name: of the module's class, for messages.
        in_features: rows of the matrix: inputs, ``kh kw C_in`` of a convolution (NHWC patches,
            kernel HWIO), or the vocabulary of an embedding.
        out_features: columns of the matrix.
        load: returns the matrix ``(in_features, out_features)``, float64.
        load_bias: returns the bias ``(out_features,)``; None if the module has no bias.
        positions: rows per example of its input (tokens of a sequence, pixels of a map), for
            counts of multiplications.
        input_dims: a natural split of the rows, as ``(kh, kw, C_in)``; empty for none.
        itemsize: bytes per weight as stored.
        tied_to: name of the target that holds the same weight; empty for none.  A tied module is
            compressed with the one that it is tied to, which is tied to none itself.
        transposed: whether its matrix is the transpose of that one's, as an output head's is of its
            embedding's; ``in_features`` and ``out_features`` are its own.
        unsupported: why the adapter cannot replace the module; empty if it can.

    Raises:
        CompressionError: there is no such kind, a size is below 1, or a module is transposed and
            tied to none.
    """

    name: str
    kind: Kind
    type_name: str
    in_features: int
    out_features: int
    load: Callable[[], Array] = field(repr=False, compare=False)
    load_bias: Callable[[], Array] | None = field(default=None, repr=False, compare=False)
    positions: int = 1
    input_dims: tuple[int, ...] = ()
    itemsize: int = 4
    tied_to: str = ""
    transposed: bool = False
    unsupported: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise CompressionError(f"{self.name} has the kind {self.kind!r}; expected one of {', '.join(KINDS)}")
        if min(self.in_features, self.out_features, self.positions, self.itemsize) < 1:
            raise CompressionError(
                f"{self.name} has {self.in_features} x {self.out_features} weights, {self.positions} positions and "
                f"{self.itemsize} bytes each; expected at least 1 of each"
            )
        if self.transposed and not self.tied_to:
            raise CompressionError(f"{self.name} is transposed and tied to no module; expected tied_to= with it")
        if self.input_dims and prod(self.input_dims) != self.in_features:
            raise CompressionError(
                f"{self.name} has input_dims {self.input_dims}; expected factors of in_features {self.in_features}"
            )

    @property
    def has_bias(self) -> bool:
        """Whether the module adds a bias."""
        return self.load_bias is not None

    @property
    def weights(self) -> int:
        """Entries of the matrix."""
        return self.in_features * self.out_features

    @property
    def multiplications(self) -> int:
        """Multiplications for one example; an embedding reads rows and multiplies nothing."""
        return 0 if self.kind == "embedding" else self.weights * self.positions


def tied_groups(targets: Sequence[Target]) -> dict[str, list[Target]]:
    """Each target that is tied to none, with those that are tied to it after it, by its name."""
    groups = {target.name: [target] for target in targets if not target.tied_to}
    for target in targets:
        if target.tied_to in groups:
            groups[target.tied_to].append(target)
    return groups
