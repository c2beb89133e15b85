"""The candidates for a network of any form: paths from opt_einsum, in tiles; and its matrix."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from mponet.contraction.graph_plan import GraphPlan
from mponet.contraction.program import DEFAULT_BATCH
from mponet.operators.arrays import Array
from mponet.operators.topology import NetworkShape, check_tensors

#: Every path is tried up to `OPTIMAL_LIMIT` nodes and inputs; dynamic programming without outer
#: products up to `DP_LIMIT`, greedy above.
OPTIMAL_LIMIT, DP_LIMIT = 6, 14


def graph_candidates(shape: NetworkShape, batch: int | None, tiles: Sequence[int | None]) -> Iterator[GraphPlan]:
    """The path of the fewest operations for this batch, and that which merges all nodes first.

    Each comes with every tile.

    Args:
        shape: the network.
        batch: rows; None where it is not known, then `DEFAULT_BATCH` is assumed.
        tiles: rows at a time; of no use where all nodes are merged first.
    """
    rows = max(DEFAULT_BATCH if batch is None else batch, 1)
    for way in dict.fromkeys((path(shape, rows), path(shape, None))):
        plan = GraphPlan(shape, way)
        yield from (plan.with_tile(tile) for tile in (tiles if len(plan.steps) > 1 else (None,)))


@lru_cache(maxsize=1024)
def path(shape: NetworkShape, batch: int | None) -> tuple[tuple[int, int], ...]:
    """The pairs for a `GraphPlan`; the same for the same arguments in every process.

    Args:
        shape: the network.
        batch: rows, at least 1; None to merge all nodes before they meet the batch.
    """
    legs = (*shape.inputs, *shape.outputs)
    if batch is None:
        places = _cheapest(shape.edges, legs, shape.dims)
        # the batch is the first of the list until the end
        return (*((first + 1, second + 1) for first, second in places), (0, 1))
    tensors = (("batch", *shape.inputs), *shape.edges)
    return _cheapest(tensors, ("batch", *shape.outputs), {"batch": batch, **shape.dims})


def matrix_of(shape: NetworkShape, tensors: Sequence[ArrayLike]) -> Array:
    """``W`` in float64, ``(in_features, out_features)``.

    Raises:
        ShapeError: the tensors are not those of the shape.
    """
    import opt_einsum

    numbers = check_tensors(shape, tensors)
    legs = (*shape.inputs, *shape.outputs)
    terms = _terms((*shape.edges, legs), shape.dims)
    way = _cheapest(shape.edges, legs, shape.dims) or ((0,),)
    found = opt_einsum.contract(f"{','.join(terms[:-1])}->{terms[-1]}", *numbers, optimize=way)
    return np.asarray(found).reshape(shape.in_features, shape.out_features)


def _cheapest(
    tensors: Sequence[tuple[str, ...]], result: tuple[str, ...], dims: Mapping[str, int]
) -> tuple[tuple[int, int], ...]:
    """The pairs of fewest operations as opt_einsum counts them.

    Multiplications, twice those of products that sum.
    """
    import opt_einsum

    if len(tensors) == 1:
        return ()
    *terms, last = _terms((*tensors, result), dims)
    shapes = [tuple(dims[edge] for edge in edges) for edges in tensors]
    way = "optimal" if len(shapes) <= OPTIMAL_LIMIT else "dp" if len(shapes) <= DP_LIMIT else "greedy"
    found, _ = opt_einsum.contract_path(f"{','.join(terms)}->{last}", *shapes, shapes=True, optimize=way)
    return tuple((int(first), int(second)) for first, second in found)


def _terms(tensors: Sequence[tuple[str, ...]], dims: Mapping[str, int]) -> list[str]:
    """The edges of tensors in the letters of opt_einsum."""
    import opt_einsum

    symbols = {edge: opt_einsum.get_symbol(k) for k, edge in enumerate(dims)}
    return ["".join(symbols[edge] for edge in edges) for edges in tensors]
