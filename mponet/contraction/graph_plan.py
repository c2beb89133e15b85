"""How to contract any tensor network with a batch, two tensors at a time: plans as values.

A path of pairs comes from opt_einsum, with the batch among the dimensions.  Pairs of nodes are
merged once for each call; the others form a line along which the batch is led through the weights,
tile by tile (`mponet.contraction.graph_steps`).
"""

from dataclasses import dataclass
from functools import cached_property

from mponet.contraction.graph_steps import lowered, transposed_size
from mponet.contraction.program import BasePlan, Program
from mponet.errors import PlanError
from mponet.operators.topology import NetworkShape


@dataclass(frozen=True)
class GraphPlan(BasePlan):
    """A way to contract a network of some wiring with a batch.

    Attributes:
        shape: the network that it is for.
        path: the pairs in order, as opt_einsum gives them: places in the list of what is left,
            where the inputs come first, then the nodes; the product goes to its end.
        tile: rows of the batch led through at a time; None for all.
        saves_states: whether a training step saves weights and states for the backward pass.

    Raises:
        PlanError: the path does not end in one tensor, the tile is not a positive number, or a plan
            that saves states has tiles.
    """

    shape: NetworkShape
    path: tuple[tuple[int, int], ...]
    tile: int | None = None
    saves_states: bool = False

    def __post_init__(self) -> None:
        left = len(self.shape.names) + 1
        legal = len(self.path) == left - 1
        for k, pair in enumerate(self.path):
            legal = legal and len(set(pair)) == len(pair) == 2 and all(0 <= place < left - k for place in pair)
        if not legal:
            raise PlanError(
                f"path is {self.path}; expected {left - 1} pairs of places in a list of the inputs and "
                f"{len(self.shape.names)} nodes"
            )
        self._check_options()

    @cached_property
    def program(self) -> Program:
        """The products of the plan."""
        return lowered(self.shape, self.path)

    @property
    def weights_key(self) -> tuple[object, ...]:
        """The path."""
        return self.path

    @property
    def transposed_size(self) -> int:
        """Elements that are transposed for each row of the batch."""
        return transposed_size(self.program)

    def __str__(self) -> str:
        if len(self.steps) == 1:
            return f"rebuild W, 1 product{self._options}"
        return f"pass {' > '.join(self._names[step.weight] for step in self.steps)}{self._options}"

    @property
    def _tensor_names(self) -> tuple[str, ...]:
        return self.shape.names
