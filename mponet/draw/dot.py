"""Networks for Graphviz: what TensorNetwork's ``to_graphviz`` writes, with dimensions, and the same bytes every time.

``to_graphviz`` names nodes by their place in memory and knows no dimensions; a test compares the rest.
"""

from collections.abc import Iterator

from mponet.draw.graph import Graph
from mponet.draw.layout import shown, thickness


def dot(graph: Graph, name: str = "G") -> str:
    """A tensor network in the DOT language, for ``neato``; ends in a newline."""
    return "\n".join([f"graph {quoted(name)} {{", "  graph [layout=neato]", *statements(graph), "}", ""])


def statements(graph: Graph, prefix: str = "") -> Iterator[str]:
    """The statements of a network, without the frame.

    Args:
        graph: the network.
        prefix: in front of the names of the nodes, where several networks share a file.
    """
    for k, node in enumerate(graph.nodes):
        yield f"  {prefix}node{k} [label={quoted(_visible(node.name))}, shape=box, style=rounded]"
    for k, edge in enumerate(graph.edges):
        ends = [f"{prefix}node{end}" for end in edge.ends]
        if len(ends) == 1:
            yield f'  {prefix}leg{k} [label="", style=invis]'
            ends = [f"{prefix}leg{k}", *ends]
        label = quoted(" ".join(filter(None, [_visible(edge.name), str(edge.dim)])))
        yield f"  {' -- '.join(ends)} [label={label}, penwidth={thickness(edge.dim):.2f}]"


def quoted(text: str) -> str:
    """A text as DOT writes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _visible(name: str) -> str:
    return name if shown(name) else ""
