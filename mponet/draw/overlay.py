"""Amounts that a diagram shows for bonds or nodes, as shades and as numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mponet.draw.graph import Graph
from mponet.operators.mpo import MPO

Kind = Literal["share", "entropy", "error"]
KINDS: tuple[Kind, ...] = ("share", "entropy", "error")


@dataclass(frozen=True, slots=True)
class Overlay:
    """Amounts that colour a diagram.

    Attributes:
        title: name of the quantity.
        nodes: amount by index of the node.
        edges: amount by name of the edge.
        symbol: text before an amount.
        percent: whether amounts are shares, written in per cent.
        top: amount of the strongest shade; None for the largest amount.
    """

    title: str
    nodes: Mapping[int, float] = field(default_factory=dict)
    edges: Mapping[str, float] = field(default_factory=dict)
    symbol: str = ""
    percent: bool = False
    top: float | None = None

    @property
    def largest(self) -> float:
        """The amount of the strongest shade."""
        return self.top if self.top is not None else max((*self.nodes.values(), *self.edges.values()), default=0.0)

    def share(self, amount: float) -> float:
        """An amount as its share of the largest, in [0, 1]."""
        return min(max(amount / self.largest, 0.0), 1.0) if self.largest > 0 else 0.0

    def text(self, amount: float) -> str:
        """An amount as text."""
        rounded = amount if abs(amount) >= 1e-12 else 0.0  # smaller amounts are rounding errors
        return self.symbol + (f"{100 * rounded:.3g} %" if self.percent else f"{rounded:.3g}")


def share(graph: Graph) -> Overlay:
    """The share of each node in the number of parameters."""
    sizes = [graph.size(node) for node in range(len(graph.nodes))]
    shares = {node: size / sum(sizes) for node, size in enumerate(sizes)}
    return Overlay("share of the parameters", nodes=shares, percent=True)


def entropy(mpo: MPO) -> Overlay:
    """The entanglement entropy at each bond, in nats."""
    return Overlay("entanglement entropy", edges=_by_bond(mpo.entropy()), symbol="S ")


def error(mpo: MPO, bond: int) -> Overlay:
    """The error of cutting each bond alone to ``bond``, as a share of the operator's norm.

    Raises:
        ShapeError: ``bond`` is not a positive whole number.
    """
    errors = mpo.truncation_error(bond, relative=True)
    return Overlay(f"error of a cut to bond {bond}", edges=_by_bond(errors), symbol="ε ", percent=True)


def _by_bond(amounts: Sequence[float]) -> dict[str, float]:
    return {f"bond{k}": amount for k, amount in enumerate(amounts, start=1)}
