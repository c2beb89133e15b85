"""How to contract any tensor network with a batch, two tensors at a time: plans as values.

A path of pairs comes from opt_einsum, with the batch among the dimensions.  Pairs of nodes are
merged once for each call; the others form a line along which the batch is led through the weights,
tile by tile (`mponet.contraction.graph_steps`).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from mponet.contraction.graph_steps import Axes, BatchStep, Lowered, WeightProduct, lowered
from mponet.contraction.search import DEFAULT_BATCH
from mponet.errors import PlanError
from mponet.operators.topology import NetworkShape


@dataclass(frozen=True)
class GraphPlan:
    """A way to contract a network of some wiring with a batch.

    Attributes:
        wiring: what it is for.
        path: the pairs in order, as opt_einsum gives them: places in the list of what is left,
            where the inputs come first, then the nodes; the product goes to its end.
        tile: rows of the batch led through at a time; None for all.

    Raises:
        PlanError: the path does not end in one tensor, or the tile is no positive number.
    """

    wiring: NetworkShape
    path: tuple[tuple[int, int], ...]
    tile: int | None = None

    def __post_init__(self) -> None:
        left = len(self.wiring.names) + 1
        legal = len(self.path) == left - 1
        for k, pair in enumerate(self.path):
            legal = legal and len(set(pair)) == len(pair) == 2 and all(0 <= place < left - k for place in pair)
        if not legal:
            raise PlanError(
                f"path is {self.path}; expected {left - 1} pairs of places in a list of the inputs and "
                f"{len(self.wiring.names)} nodes"
            )
        if self.tile is not None and (type(self.tile) is not int or self.tile < 1):
            raise PlanError(f"tile is {self.tile}; expected a whole number of at least 1 row, or None")

    @cached_property
    def pairs(self) -> tuple[WeightProduct, ...]:
        """The products of weights, once for each call."""
        return self._lowered.pairs

    @cached_property
    def passages(self) -> tuple[BatchStep, ...]:
        """The products with the batch, in order."""
        return self._lowered.passages

    @property
    def entry(self) -> Axes | None:
        """Order of the input legs in which the batch goes in; None where it is theirs."""
        return self._lowered.entry

    @property
    def exit(self) -> Axes | None:
        """Order of the axes in which the batch comes out that makes ``out1, out2, ..`` of them; None where they are."""
        return self._lowered.exit

    @property
    def out_sizes(self) -> Axes:
        """Of the axes in which the batch comes out."""
        return self._lowered.out_sizes

    @property
    def multiplications_of_pairs(self) -> int:
        """Multiplications of the products of weights, once for each call."""
        return sum(pair.multiplications for pair in self.pairs)

    @property
    def multiplications_of_passages(self) -> int:
        """Multiplications with each row of the batch."""
        return sum(passage.multiplications for passage in self.passages)

    def multiplications(self, batch: int) -> int:
        """Multiplications of one forward pass."""
        return self.multiplications_of_pairs + batch * self.multiplications_of_passages

    def peak_size(self, batch: int) -> int:
        """Largest number of elements of an intermediate of the batch, in one tile."""
        rows = min(batch, self.tile or batch)
        return rows * max((step.prefix * step.rows * step.suffix for step in self.passages[:-1]), default=0)

    @property
    def transposed_size(self) -> int:
        """Elements that are transposed for each row of the batch."""
        turned = sum(prod(step.sizes) for step in self.passages if step.turn is not None)
        ends = (self.wiring.in_features, self.entry), (self.wiring.out_features, self.exit)
        return turned + sum(size for size, axes in ends if axes is not None)

    def with_tile(self, tile: int | None) -> "GraphPlan":
        """The same plan with other tiles."""
        plan = replace(self, tile=tile)
        plan.__dict__["_lowered"] = self._lowered  # it is the same; made anew it would cost more than all else here
        return plan

    def __str__(self) -> str:
        tiles = f", tiles of {self.tile}" if self.tile else ""
        if len(self.passages) == 1:
            return f"rebuild W, 1 product{tiles}"
        return f"pass {' > '.join(self._called[step.weight] for step in self.passages)}{tiles}"

    def explain(self, batch: int = DEFAULT_BATCH) -> str:
        """The steps as a table: what is multiplied with what, sizes, multiplications for a batch of so many rows."""
        lines = [f"{self.wiring}", f"{self}", f"  {'step':<32}{'product':<36}{'multiplications':>16}"]
        for pair in self.pairs:
            name = f"merge {self._called[pair.left]} {self._called[pair.right]}"
            (m, k), (_, n) = pair.left_facing.shape, pair.right_facing.shape
            lines.append(f"  {name:<32}{f'({m}, {k}) @ ({k}, {n})':<36}{pair.multiplications:>16}")
        for step in self.passages:
            times, weight = batch * step.prefix, f"({step.rows}, {step.inner})"
            product = f"({times}, {step.inner}) @ ({step.inner}, {step.rows})"
            if step.suffix > 1:
                product = f"{weight} @ ({times}, {step.inner}, {step.suffix})"
            turned = "" if step.turn is None else ", batch transposed first"
            name = f"pass {self._called[step.weight]}"
            lines.append(f"  {name:<32}{product:<36}{batch * step.multiplications:>16}{turned}")
        dense = batch * self.wiring.dense_parameters
        return "\n".join([*lines, f"  {f'in all; a dense layer: {dense}':<68}{self.multiplications(batch):>16}"])

    @cached_property
    def _called(self) -> tuple[str, ...]:
        """What the nodes and the products are called, by number."""
        called = list(self.wiring.names)
        for pair in self.pairs:
            called.append(f"({called[pair.left]} {called[pair.right]})")
        return tuple(called)

    @cached_property
    def _lowered(self) -> Lowered:
        return lowered(self.wiring, self.path)
