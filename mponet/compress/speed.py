"""Multiplications of an operator's forward pass, and its predicted time over a dense layer's."""

from functools import lru_cache
from math import prod

from mponet.contraction.cost import dense, predict
from mponet.contraction.machine import DEFAULT_COSTS, Machine
from mponet.contraction.search import choose
from mponet.layers.embedding import EmbeddingShape
from mponet.layers.lookup import best_lookup
from mponet.operators.shape import MPOShape

#: Rows of the forward pass whose time is predicted.
DEFAULT_ROWS = 512


def multiplications(shape: MPOShape) -> int:
    """Multiplications of one row: the cheaper of a sweep from either end and the dense product.

    Examples:
        >>> multiplications(MPOShape.from_factors((16, 1), (1, 16), 4))
        128
    """
    pairs = list(zip(shape.core_shapes, range(shape.sites), strict=True))
    rightmost = sum(
        d * i * j * e * prod(shape.input_dims[:k]) * prod(shape.output_dims[k + 1 :]) for (d, i, j, e), k in pairs
    )
    leftmost = sum(
        d * i * j * e * prod(shape.input_dims[k + 1 :]) * prod(shape.output_dims[:k]) for (d, i, j, e), k in pairs
    )
    return min(rightmost, leftmost, shape.dense_parameters)


def use_multiplications(shape: MPOShape, kind: str, positions: int) -> int:
    """Multiplications for one example of a module that an operator takes the place of.

    Args:
        shape: of the operator, or of its transpose.
        kind: of the module; an embedding multiplies slices of cores, and reads no other rows.
        positions: rows per example.
    """
    if kind == "embedding":
        return best_lookup(EmbeddingShape(shape.in_features, shape)).multiplications * positions
    return multiplications(shape) * positions


@lru_cache(maxsize=4096)
def speedup(shape: MPOShape, rows: int = DEFAULT_ROWS, machine: Machine = DEFAULT_COSTS) -> float:
    """Predicted time of a dense layer over that of the operator, weights kept.

    Above 1 it is faster.

    Args:
        shape: of the operator.
        rows: of the batch.
        machine: constants of the cost model.
    """
    plan = choose(shape, rows, purpose="inference", machine=machine)
    full = dense(shape, rows, purpose="inference", machine=machine).seconds
    return full / predict(plan, rows, purpose="inference", machine=machine)
