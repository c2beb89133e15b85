"""What every plan comes down to.

Products of tensors that make weights, then products of the batch with weights.

A chain (`mponet.contraction.plan.Plan`) and a network of any form
(`mponet.contraction.graph_plan.GraphPlan`) differ in how they are searched for and printed.  Both
lower to a `Program`, which is what is run, measured and predicted.
"""

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Self

from mponet.contraction.ops import A, ForwardOps
from mponet.display import NotebookRepr
from mponet.errors import PlanError

Axes = tuple[int, ...]
#: Rows assumed where the batch is not known.
DEFAULT_BATCH = 128


@dataclass(frozen=True, slots=True)
class Unfolding:
    """A tensor whose axes are put in another order and then grouped.

    Attributes:
        sizes: of the axes as they are.
        axes: the new order; None where it moves no number.
        shape: of the result.
        ordered: the sizes in the new order.
        inverse: the order that undoes ``axes``.
    """

    sizes: Axes
    axes: Axes | None
    shape: Axes
    ordered: Axes = field(init=False, repr=False, compare=False)
    inverse: Axes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _order(self, self.axes or tuple(range(len(self.sizes))))

    @classmethod
    def of(cls, sizes: Axes, axes: Axes, shape: Axes) -> "Unfolding":
        """The unfolding in the order ``axes``; no order where only axes of length 1 move."""
        moved = [axis for axis in axes if sizes[axis] > 1]
        return cls(sizes, None if moved == sorted(moved) else axes, shape)

    def apply(self, array: A, ops: ForwardOps[A]) -> A:
        """The tensor, unfolded."""
        return ops.reshape(array if self.axes is None else ops.transpose(array, self.axes), self.shape)

    def undo(self, array: A, ops: ForwardOps[A]) -> A:
        """The tensor that `apply` makes ``array`` of."""
        ordered = ops.reshape(array, self.ordered)
        return ordered if self.axes is None else ops.transpose(ordered, self.inverse)


@dataclass(frozen=True, slots=True)
class WeightProduct:
    """Two tensors made one: ``(m, k) @ (k, n)``.

    Attributes:
        left: number of the first; the plan's tensors come first, products follow in order.
        right: number of the second.
        left_unfolding: the first as ``(m, k)``; None where it is that.
        right_unfolding: the second as ``(k, n)``; None where it is that.
        sizes: ``(m, k, n)``.
        result: from the axes of the product to the shape in which it is used.
        final: whether it is a weight, and no other product is made of it.
    """

    left: int
    right: int
    left_unfolding: Unfolding | None
    right_unfolding: Unfolding | None
    sizes: tuple[int, int, int]
    result: Unfolding
    final: bool

    @property
    def multiplications(self) -> int:
        """Multiplications of the product."""
        return prod(self.sizes)


@dataclass(frozen=True, slots=True)
class Transposition:
    """A state whose axes are put in another order.

    Attributes:
        lead: rows of the state for each row of the batch, which stay first.
        sizes: of the axes after them.
        axes: the new order of those axes, from 0.
        ordered: the sizes in the new order.
        inverse: the order that undoes ``axes``.
    """

    lead: int
    sizes: Axes
    axes: Axes
    ordered: Axes = field(init=False, repr=False, compare=False)
    inverse: Axes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _order(self, self.axes)

    @classmethod
    def of(cls, lead: int, sizes: Axes, axes: Axes) -> Self:
        """The same without axes of length 1, neighbours that stay neighbours as one axis.

        A compiler may copy once more for each axis.
        """
        runs: list[list[int]] = []
        for axis in (axis for axis in axes if sizes[axis] > 1):
            if runs and all(sizes[between] == 1 for between in range(runs[-1][-1] + 1, axis)) and axis > runs[-1][-1]:
                runs[-1].append(axis)
            else:
                runs.append([axis])
        before = sorted(runs)
        return cls(
            lead, tuple(prod(sizes[axis] for axis in run) for run in before), tuple(before.index(run) for run in runs)
        )

    @property
    def elements(self) -> int:
        """Elements moved for each row of the batch."""
        return self.lead * prod(self.sizes)

    def apply(self, state: A, rows: int, ops: ForwardOps[A]) -> A:
        """The state of ``rows`` rows of a batch (-1: unknown), transposed."""
        return self._moved(state, rows, self.sizes, self.axes, ops)

    def undo(self, state: A, rows: int, ops: ForwardOps[A]) -> A:
        """The state that `apply` makes ``state`` of."""
        return self._moved(state, rows, self.ordered, self.inverse, ops)

    def _moved(self, state: A, rows: int, sizes: Axes, axes: Axes, ops: ForwardOps[A]) -> A:
        first = rows * self.lead if rows >= 0 else -1  # explicit sizes keep empty batches legal
        return ops.transpose(ops.reshape(state, (first, *sizes)), (0, *(axis + 1 for axis in axes)))


@dataclass(frozen=True, slots=True)
class Step:
    """One product ``(rows, inner) @ (batch * prefix, inner, suffix)``.

    A suffix of 1 is a plain matrix product.

    Attributes:
        weight: number of the tensor or product that is the weight.
        unfolding: the weight as ``(inner, rows)`` where the suffix is 1, else as ``(rows, inner)``;
            None where it is that.
        prefix: rows of the state for each row of the batch.
        rows: output size of the product.
        inner: contracted size.
        suffix: trailing size that is carried along.
        transposition: of the state before the product; None where it is in order.
    """

    weight: int
    unfolding: Unfolding | None
    prefix: int
    rows: int
    inner: int
    suffix: int
    transposition: Transposition | None = None

    @property
    def multiplications(self) -> int:
        """Multiplications for one row of the batch."""
        return self.prefix * self.rows * self.inner * self.suffix


@dataclass(frozen=True, slots=True)
class Program:
    """What is run.

    Attributes:
        in_features: size of a row of the inputs.
        out_features: size of a row of the outputs.
        tensor_shapes: shapes of the tensors that it takes.
        products: the products of tensors, each after those that it is made of.
        steps: the products with the batch, in order.
        input_order: of a row of the inputs before the first step; None where it is in order.
        output_order: of a row after the last step; None where it is in order.
        merges_nothing: whether each weight is a tensor as it lies in memory, neither multiplied nor
            copied, as those of low rank are.
    """

    in_features: int
    out_features: int
    tensor_shapes: tuple[Axes, ...]
    products: tuple[WeightProduct, ...]
    steps: tuple[Step, ...]
    input_order: Transposition | None = None
    output_order: Transposition | None = None
    merges_nothing: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        in_place = all(step.unfolding is None or step.unfolding.axes is None for step in self.steps)
        object.__setattr__(self, "merges_nothing", not self.products and in_place)  # asked for at every call

    @property
    def orders(self) -> tuple[Transposition, ...]:
        """The transpositions of whole inputs and outputs."""
        return tuple(order for order in (self.input_order, self.output_order) if order is not None)


class BasePlan(NotebookRepr):
    """What plans of both kinds offer: their program, counts, and tiles.

    Attributes:
        shape: the operator that the plan is for.
        tile: rows of the batch that are led through the steps at a time; None for all.
        saves_states: whether the forward pass of a training step saves its weights and states for
            the backward pass, which computes them again otherwise; only without tiles.
    """

    shape: Any
    tile: int | None
    saves_states: bool
    #: A `functools.cached_property` of each kind of plan.
    program: Any

    def _check_options(self) -> None:
        if self.tile is not None and (type(self.tile) is not int or self.tile < 1):
            raise PlanError(f"tile is {self.tile}; expected a whole number of at least 1 row, or None")
        if self.saves_states and self.tile is not None:
            raise PlanError(
                f"a plan that saves states has tiles of {self.tile}; expected none: saved states leave the cache"
            )

    @property
    @abstractmethod
    def weights_key(self) -> Hashable:
        """Plans of one operator with equal keys have equal weights; their tiles may differ."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The products with the batch, in order."""
        return self.program.steps  # type: ignore[no-any-return]

    @property
    def merge_multiplications(self) -> int:
        """Multiplications of the products of tensors, once for each call."""
        return sum(product.multiplications for product in self.program.products)

    @property
    def sweep_multiplications(self) -> int:
        """Multiplications with one row of the batch."""
        return sum(step.multiplications for step in self.steps)

    def multiplications(self, batch: int) -> int:
        """Multiplications of one forward pass."""
        return self.merge_multiplications + batch * self.sweep_multiplications

    def peak_size(self, batch: int) -> int:
        """Largest number of elements of an intermediate of the batch, in one tile."""
        rows = min(batch, self.tile or batch)
        return rows * max((step.prefix * step.rows * step.suffix for step in self.steps[:-1]), default=0)

    def explain(self, batch: int = DEFAULT_BATCH) -> str:
        """The products as a table: operands, sizes, multiplications for a batch of so many rows."""
        names = self._names
        lines = [f"{self.shape}", f"{self}", f"  {'step':<32}{'product':<36}{'multiplications':>16}"]
        for one in self.program.products:
            name, (m, k, n) = f"merge {names[one.left]} {names[one.right]}", one.sizes
            lines.append(f"  {name:<32}{f'({m}, {k}) @ ({k}, {n})':<36}{one.multiplications:>16}")
        for step in self.steps:
            times = batch * step.prefix
            product = f"({times}, {step.inner}) @ ({step.inner}, {step.rows})"
            if step.suffix > 1:
                product = f"({step.rows}, {step.inner}) @ ({times}, {step.inner}, {step.suffix})"
            note = "" if step.transposition is None else ", batch transposed first"
            name = f"pass {names[step.weight]}"
            lines.append(f"  {name:<32}{product:<36}{batch * step.multiplications:>16}{note}")
        dense = batch * self.shape.dense_parameters
        return "\n".join([*lines, f"  {f'in all; a dense layer: {dense}':<68}{self.multiplications(batch):>16}"])

    @property
    def _tensor_names(self) -> tuple[str, ...]:
        return tuple(f"core{k + 1}" for k in range(len(self.program.tensor_shapes)))

    @property
    def _names(self) -> list[str]:
        """Names of the tensors and of their products, by number."""
        names = list(self._tensor_names)
        for one in self.program.products:
            names.append(f"({names[one.left]} {names[one.right]})")
        return names

    def with_tile(self, tile: int | None) -> Self:
        """The same plan with other tiles, and without saved states where it has tiles."""
        return self._changed(tile, self.saves_states and tile is None)

    def saving(self) -> Self:
        """The same plan without tiles that saves its states."""
        return self._changed(None, True)

    @property
    def _options(self) -> str:
        """Tiles and saved states in words, for the end of a line."""
        return (f", tiles of {self.tile}" if self.tile else "") + (", states saved" if self.saves_states else "")

    def _changed(self, tile: int | None, saves_states: bool) -> Self:
        plan = replace(self, tile=tile, saves_states=saves_states)  # type: ignore[type-var]
        if "program" in self.__dict__:  # depends on neither, and takes long to make
            plan.__dict__["program"] = self.__dict__["program"]
        return plan


def _order(made: Unfolding | Transposition, axes: Sequence[int]) -> None:
    """Set what follows from an order; once, because it is asked for at every call."""
    object.__setattr__(made, "ordered", tuple(made.sizes[axis] for axis in axes))
    object.__setattr__(made, "inverse", tuple(sorted(range(len(axes)), key=axes.__getitem__)))
