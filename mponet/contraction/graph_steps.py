"""The steps of a pairwise plan.

Products of weights, and products of the batch with weights, with their layouts.

Before each of its steps the batch is ``T : (batch * before, contracted, after)``, so that the step
is one (broadcast) product as those of `mponet.contraction.plan` are.  The order of a weight's free
edges is ours to choose, and so is that of the inputs' legs: they are laid out so that what a later
step contracts lies together.  Where it does not, ``T`` is transposed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from mponet.contraction.program import Axes, Program, Step, Transposition, Unfolding, WeightProduct
from mponet.operators.topology import NetworkShape


@dataclass(frozen=True, slots=True)
class _Line:
    """A path taken apart.

    Products of weights, and the weights (number, edges) that the batch meets, in order.
    """

    pairs: tuple[WeightProduct, ...]
    weights: tuple[tuple[int, tuple[str, ...]], ...]


def lowered(wiring: NetworkShape, path: tuple[tuple[int, int], ...]) -> Program:
    """The program of a path.

    The legs of the inputs are in their own order or in that of their use, whichever moves less.
    """
    line = _line(wiring, path)
    used = {edge: k for k, (_, edges) in enumerate(line.weights) for edge in edges}
    natural = list(wiring.inputs)
    orders = (natural, sorted(natural, key=lambda leg: -used[leg]), sorted(natural, key=lambda leg: used[leg]))
    return min((_lower(wiring, line, order) for order in orders), key=transposed_size)


def transposed_size(program: Program) -> int:
    """Elements that are transposed for each row of the batch."""
    transpositions = [*program.orders, *(step.transposition for step in program.steps)]
    return sum(one.elements for one in transpositions if one is not None)


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
        shape = _sizes(wiring, result)
        unfoldings = _unfolding(wiring, a_edges, a_free, shared), _unfolding(wiring, b_edges, shared, b_free)
        left.append((len(nodes) + len(pairs), result))
        m, k, n = (prod(_sizes(wiring, edges)) for edges in (a_free, shared, b_free))
        pairs.append(WeightProduct(a, b, *unfoldings, (m, k, n), Unfolding(shape, None, shape), final=False))
    weights = tuple(weight for weight in met if weight is not None)
    met_numbers = {number for number, _ in weights}
    products = (replace(pair, final=number in met_numbers) for number, pair in enumerate(pairs, start=len(nodes)))
    return _Line(tuple(products), weights)


def _lower(wiring: NetworkShape, line: _Line, order: list[str]) -> Program:
    used = {edge: k for k, (_, edges) in enumerate(line.weights) for edge in edges}  # the last to have it contracts it
    state = list(order)
    steps = []
    for k, (weight, edges) in enumerate(line.weights):
        inner = [edge for edge in state if edge in edges]
        begin = state.index(inner[0]) if inner else len(state)
        transposition = None
        if state[begin : begin + len(inner)] != inner:
            wanted = [edge for edge in state if edge not in inner] + inner
            if k == 0:  # as a whole with the rest of the input order: the gradient's blocks are products only
                order = wanted
            else:
                transposition = _transposition(wiring, state, wanted)
            state, begin = wanted, len(state) - len(inner)
        before, after = state[:begin], state[begin + len(inner) :]
        free = _ordered([edge for edge in edges if edge not in inner], before, after, used, k)
        suffix = prod(_sizes(wiring, after))
        unfolding = _unfolding(wiring, edges, *((inner, free) if suffix == 1 else (free, inner)))
        prefix, rows, contracted = (prod(_sizes(wiring, some)) for some in (before, free, inner))
        steps.append(Step(weight, unfolding, prefix, rows, contracted, suffix, transposition))
        state = [*before, *free, *after]
    return Program(
        wiring.in_features,
        wiring.out_features,
        wiring.sizes,
        line.pairs,
        tuple(steps),
        _transposition(wiring, wiring.inputs, order),
        _transposition(wiring, state, wiring.outputs),
    )


def _ordered(free: list[str], before: list[str], after: list[str], used: dict[str, int], now: int) -> list[str]:
    """The free edges of a weight, those used next on the side where what is used with them lies."""
    when = {edge: used[edge] if used[edge] > now else len(used) + 1 for edge in free}
    soonest = min(when.values(), default=0)
    legs = sorted(free, key=lambda edge: (edge.rstrip("0123456789"), len(edge), edge))
    leftwards = not any(used[edge] == soonest for edge in after) and any(used[edge] == soonest for edge in before)
    return sorted(legs, key=lambda edge: when[edge] if leftwards else -when[edge])


def _unfolding(wiring: NetworkShape, edges: Sequence[str], rows: list[str], columns: list[str]) -> Unfolding:
    """A tensor with these edges as a matrix."""
    axes = tuple(edges.index(edge) for edge in (*rows, *columns))
    shape = prod(_sizes(wiring, rows)), prod(_sizes(wiring, columns))
    return Unfolding.of(_sizes(wiring, edges), axes, shape)


def _transposition(wiring: NetworkShape, edges: Sequence[str], wanted: Sequence[str]) -> Transposition | None:
    """From edges in one order to another; None where no number moves."""
    axes = tuple(edges.index(edge) for edge in wanted)
    sizes = _sizes(wiring, edges)
    moved = [axis for axis in axes if sizes[axis] > 1]
    return None if moved == sorted(moved) else Transposition.of(1, sizes, axes)


def _sizes(wiring: NetworkShape, edges: Sequence[str]) -> Axes:
    return tuple(wiring.dims[edge] for edge in edges)
