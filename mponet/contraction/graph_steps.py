"""The steps of a pairwise plan: products of weights, and products of the batch with weights, with their layouts.

Before each of its steps the batch is ``T : (batch * before, contracted, behind)``, so that the step
is one (broadcast) product as those of `mponet.contraction.plan` are.  The order of a weight's free
edges is ours to choose, and so is that of the inputs' legs: they are laid out so that what a later
step contracts lies together.  Where it does not, ``T`` is transposed.
"""

from dataclasses import dataclass
from math import prod

from mponet.operators.topology import NetworkShape

Axes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unfolding:
    """A tensor as a matrix: its axes in another order, then grouped.

    Attributes:
        axes: the order; None where it stays.
        sizes: of the axes in that order.
        shape: of the matrix.
    """

    axes: Axes | None
    sizes: Axes
    shape: tuple[int, int]

    @property
    def inverse(self) -> Axes | None:
        """The order that undoes it."""
        return None if self.axes is None else inverse(self.axes)


@dataclass(frozen=True, slots=True)
class WeightProduct:
    """Two weights made one: ``(m, k) @ (k, n)``.

    Attributes:
        left: number of the first; nodes are numbered from 0, products follow.
        right: number of the second.
        left_facing: the first as ``(m, k)``.
        right_facing: the second as ``(k, n)``.
        shape: of the product.
    """

    left: int
    right: int
    left_facing: Unfolding
    right_facing: Unfolding
    shape: Axes

    @property
    def multiplications(self) -> int:
        """Multiplications of the product."""
        return prod(self.left_facing.shape) * self.right_facing.shape[1]


@dataclass(frozen=True, slots=True)
class BatchStep:
    """One product of the batch with a weight, ``(rows, inner) @ (batch * prefix, inner, suffix)``.

    Attributes:
        weight: its number, as in `WeightProduct`.
        facing: the weight as ``(inner, rows)`` where the suffix is 1, else as ``(rows, inner)``.
        turn: order of the axes of ``T`` behind the batch that the step wants; None where it has it,
            as the first always does.
        sizes: of the axes of ``T`` behind the batch, before they are turned.
        prefix: rows of ``T`` for each row of the batch.
        rows: output size of the product.
        inner: contracted size.
        suffix: trailing size that is carried along.
    """

    weight: int
    facing: Unfolding
    turn: Axes | None
    sizes: Axes
    prefix: int
    rows: int
    inner: int
    suffix: int

    @property
    def multiplications(self) -> int:
        """Multiplications for one row of the batch."""
        return self.prefix * self.rows * self.inner * self.suffix

    @property
    def transposed_sizes(self) -> Axes:
        """Of the axes of ``T`` behind the batch as the step wants them."""
        return self.sizes if self.turn is None else tuple(self.sizes[axis] for axis in self.turn)


@dataclass(frozen=True, slots=True)
class _Line:
    """A path taken apart: products of weights, and the weights (number, edges) that the batch meets, in order."""

    pairs: tuple[WeightProduct, ...]
    weights: tuple[tuple[int, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Lowered:
    """The steps of a plan, for one order of the inputs' legs.

    Attributes:
        pairs: the products of weights.
        passages: the products with the batch.
        entry: order of the input legs in which the batch goes in; None where it is theirs.
        exit: order of the axes in which it comes out that makes the output legs of them; None where
            they are.
        out_sizes: of the axes in which it comes out.
        moved: elements that are transposed for each row of the batch.
    """

    pairs: tuple[WeightProduct, ...]
    passages: tuple[BatchStep, ...]
    entry: Axes | None
    exit: Axes | None
    out_sizes: Axes
    moved: int


def inverse(axes: Axes) -> Axes:
    """The order that undoes ``axes``."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def lowered(wiring: NetworkShape, path: tuple[tuple[int, int], ...]) -> Lowered:
    """The steps of a path, with the inputs' legs in their own order or in that of their use, whichever moves less."""
    line = _line(wiring, path)
    used = {edge: k for k, (_, edges) in enumerate(line.weights) for edge in edges}
    natural = list(wiring.inputs)
    orders = (natural, sorted(natural, key=lambda leg: -used[leg]), sorted(natural, key=lambda leg: used[leg]))
    return min((_lower(wiring, line, order) for order in orders), key=lambda lowered: lowered.moved)


def _line(wiring: NetworkShape, path: tuple[tuple[int, int], ...]) -> _Line:
    nodes = list(enumerate(wiring.edges))
    left: list[tuple[int, tuple[str, ...]] | None] = [None, *nodes]  # None is the batch
    pairs: list[WeightProduct] = []
    met = []
    for places in path:
        first, second = (left.pop(place) for place in sorted(places, reverse=True))
        if first is None or second is None:
            met.append(second or first)
            left.append(None)
            continue
        (b, b_edges), (a, a_edges) = first, second  # the one that came first in the list stays first
        shared = [edge for edge in a_edges if edge in b_edges]
        a_free = [edge for edge in a_edges if edge not in shared]
        b_free = [edge for edge in b_edges if edge not in shared]
        result = (*a_free, *b_free)
        shape = tuple(wiring.dims[edge] for edge in result)
        facings = _facing(wiring, a_edges, a_free, shared), _facing(wiring, b_edges, shared, b_free)
        left.append((len(nodes) + len(pairs), result))
        pairs.append(WeightProduct(a, b, *facings, shape))
    return _Line(tuple(pairs), tuple(weight for weight in met if weight is not None))


def _lower(wiring: NetworkShape, line: _Line, order: list[str]) -> Lowered:
    used = {edge: k for k, (_, edges) in enumerate(line.weights) for edge in edges}  # the last to have it contracts it
    state, moved = list(order), 0
    passages = []
    for k, (weight, edges) in enumerate(line.weights):
        inner = [edge for edge in state if edge in edges]
        begin = state.index(inner[0]) if inner else len(state)
        sizes, turn = _sizes(wiring, state), None
        if state[begin : begin + len(inner)] != inner:
            wanted = [edge for edge in state if edge not in inner] + inner
            if k == 0:  # as a whole with the rest of the entry: the gradient's blocks are products and nothing else
                order, sizes = wanted, _sizes(wiring, wanted)
            else:
                turn = tuple(state.index(edge) for edge in wanted)
                moved += prod(sizes)
            state, begin = wanted, len(state) - len(inner)
        before, behind = state[:begin], state[begin + len(inner) :]
        free = _ordered([edge for edge in edges if edge not in inner], before, behind, used, k)
        suffix = prod(_sizes(wiring, behind))
        facing = _facing(wiring, edges, *((inner, free) if suffix == 1 else (free, inner)))
        prefix, rows, contracted = (prod(_sizes(wiring, some)) for some in (before, free, inner))
        passages.append(BatchStep(weight, facing, turn, sizes, prefix, rows, contracted, suffix))
        state = [*before, *free, *behind]
    entry, leave = _order(wiring.inputs, order), _order(state, wiring.outputs)
    ends = (wiring.in_features, entry), (wiring.out_features, leave)
    moved += sum(size for size, axes in ends if axes is not None)
    return Lowered(line.pairs, tuple(passages), entry, leave, _sizes(wiring, state), moved)


def _ordered(free: list[str], before: list[str], behind: list[str], used: dict[str, int], now: int) -> list[str]:
    """The free edges of a weight, those used next on the side where what is used with them lies."""
    when = {edge: used[edge] if used[edge] > now else len(used) + 1 for edge in free}
    soonest = min(when.values(), default=0)
    legs = sorted(free, key=lambda edge: (edge.rstrip("0123456789"), len(edge), edge))
    leftwards = not any(used[edge] == soonest for edge in behind) and any(used[edge] == soonest for edge in before)
    return sorted(legs, key=lambda edge: when[edge] if leftwards else -when[edge])


def _facing(wiring: NetworkShape, edges: tuple[str, ...], rows: list[str], columns: list[str]) -> Unfolding:
    wanted = [*rows, *columns]
    shape = prod(_sizes(wiring, rows)), prod(_sizes(wiring, columns))
    return Unfolding(_order(edges, wanted), _sizes(wiring, wanted), shape)


def _order(edges: "list[str] | tuple[str, ...]", wanted: "list[str] | tuple[str, ...]") -> Axes | None:
    """Places of the wanted edges among the edges; None where they have that order."""
    axes = tuple(edges.index(edge) for edge in wanted)
    return None if axes == tuple(range(len(axes))) else axes


def _sizes(wiring: NetworkShape, edges: "list[str] | tuple[str, ...]") -> Axes:
    return tuple(wiring.dims[edge] for edge in edges)
