"""An operator in one line of text: ``●─16─●─16─●─16─●  in 4·7·7·4  out 4·4·4·4``."""

from collections.abc import Sequence

from mponet.draw.graph import Graph, neighbours
from mponet.errors import GraphError

#: Bonds from this dimension on are drawn heavy.
HEAVY = 16
WIDTH = 80


def line(graph: Graph, width: int = WIDTH) -> str:
    """A chain in one line, with its gauge: ``>`` for left isometries, ``<`` for right ones.

    The centre that all arrows lead to, and every core that is not an isometry, is ``●``.  A chain
    longer than ``width`` continues in the next line.

    Args:
        graph: a chain in the order of its nodes, such as an operator.
        width: largest number of columns.

    Raises:
        GraphError: the graph is not a chain.

    >>> from mponet.draw.graph import of_shape
    >>> from mponet.operators.shape import MPOShape
    >>> print(line(of_shape(MPOShape.from_factors((4, 7), (4, 4), 3))))
    ●─3─●  in 4·7  out 4·4
    """
    joined = neighbours(graph)
    if any(set(others) != {k - 1, k + 1} & set(range(len(joined))) for k, others in enumerate(joined)):
        raise GraphError(
            f"the graph has the bonds {[graph.edges[k].name for k in graph.bonds]}; expected a chain of nodes in "
            "order; draw it as SVG"
        )
    pieces = []
    for k in range(len(joined)):
        dims = [graph.edges[bond].dim for bond in joined[k].get(k + 1, ())]
        pieces.append(_mark(graph, k) + "".join(f"{_stroke(dim)}{dim}{_stroke(dim)}" for dim in dims))
    legs = [[f"{word} ", *_factors(graph, word)] for word in ("in", "out")]
    whole = "  ".join("".join(part) for part in (pieces, *legs))
    return whole if len(whole) <= width else "\n".join(row for part in (pieces, *legs) for row in _rows(part, width))


def _rows(pieces: Sequence[str], width: int) -> list[str]:
    """Pieces in rows of at most ``width`` columns."""
    rows = [""]
    for piece in pieces:
        if len(rows[-1]) + len(piece) > width:
            rows.append("")
        rows[-1] += piece
    return rows


def _mark(graph: Graph, node: int) -> str:
    """The sign of a node."""
    if node == graph.center:
        return "●"
    towards = {graph.other(node, edge) > node for start, edge in graph.arrows if start == node}
    return {frozenset({True}): ">", frozenset({False}): "<"}.get(frozenset(towards), "●")


def _stroke(dim: int) -> str:
    return "━" if dim >= HEAVY else "─"


def _factors(graph: Graph, word: str) -> list[str]:
    """Dimensions of the legs of a kind, with dots between."""
    dims = [str(edge.dim) for edge in graph.edges if len(edge.ends) == 1 and edge.name.startswith(word)]
    return [f"{dim}·" for dim in dims[:-1]] + dims[-1:] if dims else ["none"]
