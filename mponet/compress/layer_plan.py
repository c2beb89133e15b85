"""`LayerPlan`: what becomes of one layer."""

from dataclasses import dataclass

from mponet.compress.structures import Layout
from mponet.errors import CompressionError
from mponet.operators.shape import MPOShape

#: Largest count in a plan: every reader of JSON keeps it exactly, and it can be divided as a float.
MAX_COUNT = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlan:
    """What becomes of one layer.

    Attributes:
        name: dotted name of the module.
        kind: ``linear``, ``convolution`` or ``embedding``.
        type_name: of the module's class.
        dense_weights: weights of the layer as it is.
        dense_multiplications: multiplications for one example, as it is.
        itemsize: bytes per weight.
        positions: rows per example: tokens of a sequence, pixels of a map.
        layout: factors of the operator that replaces it; None leaves it as it is.
        bonds: inner bonds of the operator.
        reason: why it is left as it is; empty if it is replaced.
        matched: whether the config lets it be replaced; such a layer may still be left dense.
        multiplications: for one example, afterwards.
        output_error: predicted relative error of its outputs; None if unknown.
        loss: predicted rise of the loss; None if unknown.
        speed: predicted time before over time after; None if unknown.
        measured: the same, measured; None if it was not.
        tied_to: name of the module that holds the same weight; empty for none.

    Raises:
        CompressionError: a layer is replaced and has a reason why not, or neither; or a count is
            out of range.
        ShapeError: factors and bonds do not fit together.
    """

    name: str
    kind: str
    type_name: str
    dense_weights: int
    dense_multiplications: int
    itemsize: int = 4
    positions: int = 1
    layout: Layout | None = None
    bonds: tuple[int, ...] = ()
    reason: str = ""
    matched: bool = True
    multiplications: int = 0
    output_error: float | None = None
    loss: float | None = None
    speed: float | None = None
    measured: float | None = None
    tied_to: str = ""

    def __post_init__(self) -> None:
        counts = (self.dense_weights - 1, self.dense_multiplications, self.itemsize - 1, self.multiplications)
        if not 0 <= min(counts) <= max(counts) < MAX_COUNT:
            raise CompressionError(
                f"{self.name} has {self.dense_weights} weights of {self.itemsize} bytes, {self.dense_multiplications} "
                f"multiplications before and {self.multiplications} after; expected whole numbers up to {MAX_COUNT}"
            )
        if (self.layout is None) != bool(self.reason):
            raise CompressionError(
                f"{self.name} has the layout {self.layout} and the reason {self.reason!r}; expected a layout for a "
                "layer that is replaced, and a reason for one that is not"
            )
        if self.shape is not None and not self.dense_weights <= self.shape.dense_parameters <= MAX_COUNT:
            raise CompressionError(
                f"{self.name} has {self.dense_weights} weights, and {self.shape} is an operator of "
                f"{self.shape.dense_parameters}; expected factors of the layer's inputs and outputs"
            )

    @property
    def shape(self) -> MPOShape | None:
        """The operator's shape; None for a layer that is left as it is."""
        return None if self.layout is None else self.layout.shape(self.bonds)

    @property
    def replaced(self) -> bool:
        """Whether an operator takes the layer's place."""
        return self.layout is not None

    @property
    def weights(self) -> int:
        """Weights afterwards."""
        shape = self.shape
        return self.dense_weights if shape is None else shape.parameters

    @property
    def keep(self) -> float:
        """Share of its weights that is left."""
        return self.weights / self.dense_weights
