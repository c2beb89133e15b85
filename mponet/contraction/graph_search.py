"""Which pairwise plan to take: the path from opt_einsum, the tile by the cost model."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import ceil, prod

import numpy as np
from numpy.typing import ArrayLike

from mponet.contraction.cost import DEFAULT_COSTS, Machine
from mponet.contraction.graph_plan import GraphPlan
from mponet.contraction.planner import ITEMSIZE, PlanningContext, rounded, time_text
from mponet.contraction.search import DEFAULT_BATCH, TILES
from mponet.operators.arrays import Array
from mponet.operators.topology import NetworkShape, check_tensors

#: Nodes and inputs up to which every path is tried, and up to which all that multiply no strangers
#: are; beyond, greedy.
OPTIMAL_LIMIT, DP_LIMIT = 6, 14


@lru_cache(maxsize=1024)
def pairwise_plan(
    wiring: NetworkShape, batch: int | None, *, itemsize: int = 4, machine: Machine = DEFAULT_COSTS
) -> GraphPlan:
    """What the model prefers: the path of the fewest operations for this batch, or all nodes merged first; tiles.

    Args:
        wiring: the network.
        batch: rows of the batch; None when it is not known while tracing, then `DEFAULT_BATCH` is
            assumed and no tiles are used.
        itemsize: bytes per number.
        machine: where it is run.
    """
    return ranked(wiring, batch, itemsize=itemsize, machine=machine)[0]


def ranked(
    wiring: NetworkShape, batch: int | None, *, itemsize: int = 4, machine: Machine = DEFAULT_COSTS
) -> list[GraphPlan]:
    """The plans that `pairwise_plan` chooses from, the one that the model prefers first."""
    rows = _rows(batch)
    tiles = [None, *(tile for tile in TILES if batch is not None and 2 * tile <= batch)]
    plans = [GraphPlan(wiring, way) for way in dict.fromkeys((path(wiring, rows), path(wiring, None)))]
    options = [plan.with_tile(tile) for plan in plans for tile in (tiles if len(plan.passages) > 1 else [None])]
    return sorted(options, key=lambda plan: predicted(plan, rows, itemsize, machine))


def plan_for(wiring: NetworkShape, batch: int | None, dtype: str, backend: PlanningContext) -> GraphPlan:
    """The plan of a backend's layer; batches within an eighth of one another share a choice, as for a chain."""
    rows = None if batch is None else rounded(batch)
    return pairwise_plan(wiring, rows, itemsize=ITEMSIZE.get(dtype, 4), machine=backend.machine(dtype))


def explain(wiring: NetworkShape, batch: int | None, dtype: str, backend: PlanningContext, top: int = 8) -> str:
    """The plan of a backend's layer step by step, and below it the best candidates as a table."""
    rows, itemsize = None if batch is None else rounded(batch), ITEMSIZE.get(dtype, 4)
    machine = backend.machine(dtype)
    options = ranked(wiring, rows, itemsize=itemsize, machine=machine)
    lines = [
        options[0].explain(_rows(rows)),
        f"batch {'unknown' if rows is None else rows}: {len(options)} candidates, each the path of the fewest "
        "operations with the batch or without it, in tiles",
        f"  {'plan':<56}{'predicted':>11}{'multiplications':>17}{'MB':>8}",
    ]
    for k, plan in enumerate(options[:top]):
        seconds = predicted(plan, _rows(rows), itemsize, machine)
        lines.append(
            f"{'>' if k == 0 else ' '} {plan!s:<56}{time_text(seconds):>11}{plan.multiplications(_rows(rows)):>17}"
            f"{plan.peak_size(_rows(rows)) * itemsize / 1e6:>8.2f}"
        )
    return "\n".join([*lines, "> is predicted to be the fastest"])


def path(wiring: NetworkShape, batch: int | None) -> tuple[tuple[int, int], ...]:
    """The pairs for a `GraphPlan`; the same for the same arguments in every process.

    Args:
        wiring: the network.
        batch: rows, at least 1; None to merge all nodes before they meet the batch.
    """
    legs = (*wiring.inputs, *wiring.outputs)
    if batch is None:
        places = _cheapest(wiring.edges, legs, wiring.dims)
        # the batch is the first of the list until the end
        return (*((first + 1, second + 1) for first, second in places), (0, 1))
    tensors = (("batch", *wiring.inputs), *wiring.edges)
    return _cheapest(tensors, ("batch", *wiring.outputs), {"batch": batch, **wiring.dims})


def predicted(plan: GraphPlan, batch: int, itemsize: int, machine: Machine) -> float:
    """Predicted seconds of a forward and a backward pass."""
    rows = min(batch, plan.tile or batch)
    merging = passing = 0.0
    for pair in plan.pairs:
        (outer, inner), (_, other) = pair.left_facing.shape, pair.right_facing.shape
        moved = machine.moving((outer * inner + inner * other + outer * other) * itemsize)
        # forward, forward again, its two gradients
        merging += 4 * (machine.multiplying((outer, inner, other), 1, itemsize) + moved + machine.call_overhead)
    for number, step in enumerate(plan.passages):
        times = rows * step.prefix
        sizes = (times if step.suffix == 1 else step.suffix, step.rows, step.inner)
        count = 1 if step.suffix == 1 else times
        moved = machine.moving((times * step.suffix * (step.inner + step.rows) + step.rows * step.inner) * itemsize)
        products = 4 if number < len(plan.passages) - 1 else 3  # the last is not run again
        passing += products * (machine.multiplying(sizes, count, itemsize) + moved + machine.call_overhead)
        if step.turn is not None:
            passing += 3 * (machine.moving(2 * rows * prod(step.sizes) * itemsize) + machine.call_overhead)
    return merging + ceil(batch / rows) * passing


def matrix_of(wiring: NetworkShape, tensors: Sequence[ArrayLike]) -> Array:
    """``W`` in float64, ``(in_features, out_features)``.

    Raises:
        ShapeError: the tensors are not those of the wiring.
    """
    import opt_einsum

    numbers = check_tensors(wiring, tensors)
    legs = (*wiring.inputs, *wiring.outputs)
    terms = _terms((*wiring.edges, legs), wiring.dims)
    way = _cheapest(wiring.edges, legs, wiring.dims) or ((0,),)
    found = opt_einsum.contract(f"{','.join(terms[:-1])}->{terms[-1]}", *numbers, optimize=way)
    return np.asarray(found).reshape(wiring.in_features, wiring.out_features)


def _rows(batch: int | None) -> int:
    return max(DEFAULT_BATCH if batch is None else batch, 1)


def _cheapest(
    tensors: Sequence[tuple[str, ...]], result: tuple[str, ...], dims: Mapping[str, int]
) -> tuple[tuple[int, int], ...]:
    """The pairs of fewest operations as opt_einsum counts them: multiplications, twice those of products that sum."""
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
