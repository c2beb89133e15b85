"""Sizes and distances in a diagram, in pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

from mponet.draw.graph import Graph
from mponet.draw.ports import Routing

BOX, HEIGHT = 66.0, 44.0  # smallest box
LEG, LABEL = 26.0, 32.0  # length of a leg, room for its two lines of text
PORT = 38.0  # between two bonds on one side of a box
GAP, WIDE = 58.0, 100.0  # smallest room between columns: of one node each, or more


def thickness(dim: int) -> float:
    """Width of the line of an edge, which grows with the logarithm of its dimension."""
    return min(1.25 + 0.85 * log2(dim), 16.0)


def text_width(text: str, size: float = 13.0) -> float:
    """An upper estimate of the width of a text."""
    return 0.64 * size * len(text)


def shown(name: str) -> str:
    """A name as it is drawn: empty for default names of TensorNetwork, shortened if it is long."""
    if name.startswith("__"):
        return ""
    return name if len(name) <= 24 else f"{name[:23]}…"


@dataclass(frozen=True, slots=True)
class Spacing:
    """Sizes of boxes and of the space around them.

    Attributes:
        graph: the network.
        routing: routing of its edges.
        gap: smallest distance between neighbours, for the labels of their bonds.
    """

    graph: Graph
    routing: Routing
    gap: float

    def pitch(self, legs: Sequence[int]) -> float:
        """Distance between two legs at the same side."""
        edges = [self.graph.edges[k] for k in legs]
        return max((text_width(text, 12) + 10 for e in edges for text in (shown(e.name), str(e.dim))), default=0.0)

    def size(self, node: int) -> tuple[float, float]:
        """Width and height of a box."""
        ports = self.routing.ports[node]
        label = text_width(shown(self.graph.nodes[node].name)) + 18
        legs = max(len(side) * self.pitch(side) for side in (ports.up, ports.down))
        return max(BOX, label, legs), max(HEIGHT, PORT * max(len(ports.left), len(ports.right)))

    def over(self, node: int) -> float:
        """Space above a box for its outputs."""
        return LEG + LABEL if self.routing.ports[node].up else 0.0

    def under(self, node: int) -> float:
        """Space below a box for its inputs."""
        return LEG + LABEL if self.routing.ports[node].down else 0.0

    def after_column(self, columns: Sequence[Sequence[int]], c: int) -> float:
        """Space after a column for bonds to the next one and bonds within it, with their labels."""
        following = columns[c + 1] if c + 1 < len(columns) else ()
        single = len(columns[c]) == 1 and len(following) <= 1
        onward = [k for node in columns[c] for k in self.routing.ports[node].right if self._leads(node, k, following)]
        widths = [self._label(k, stacked=single) + (22 if single else 44) for k in onward]
        width = max((self.gap if single else WIDE) if following else 0.0, *widths, 0.0)
        inside = [k for k in self.routing.same_column if self.graph.edges[k].ends[0] in columns[c]]
        return width + (30 + 24 * len(inside) + max(self._label(k) for k in inside) if inside else 0.0)

    def _leads(self, node: int, k: int, following: Sequence[int]) -> bool:
        return self.graph.other(node, k) in following and k not in self.routing.around

    def _label(self, k: int, stacked: bool = False) -> float:
        """Width of the label of a bond, in one line or with the dimension above the name."""
        name, dim = shown(self.graph.edges[k].name), str(self.graph.edges[k].dim)
        return max(text_width(name, 11.5), text_width(dim)) if stacked else text_width(f"{name} {dim}", 12)
