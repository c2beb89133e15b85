"""How the operators of a network are drawn: coloured by what, for which batch, with which cores."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from numpy.typing import ArrayLike

from mponet.contraction.program import DEFAULT_BATCH
from mponet.draw import overlay
from mponet.draw.graph import Graph, of_mpo, of_shape
from mponet.draw.overlay import KINDS, Kind, Overlay
from mponet.errors import InputError
from mponet.models import shapes
from mponet.models.shapes import Operator
from mponet.models.spec import Model
from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape


@dataclass(frozen=True, slots=True)
class DrawOptions:
    """Settings of a drawing.

    Attributes:
        colour: what shades show: ``share`` of the parameters, entanglement ``entropy``, ``error``
            of a cut; or None.
        cut: the bond dimension whose error is shown; needed for ``error`` alone.
        operators: cores by name of the layer, where there are any; they give entropies, errors and
            arrows.
        batch: examples at a time that plans are chosen for.
        top: the amount of the strongest shade; None takes the largest of each operator.

    Raises:
        InputError: an unknown colour, ``error`` without a cut, or a cut for anything else.
    """

    colour: Kind | None = None
    cut: int | None = None
    operators: Mapping[str, MPO] = field(default_factory=dict)
    batch: int = DEFAULT_BATCH
    top: float | None = None

    def __post_init__(self) -> None:
        if self.colour is not None and self.colour not in KINDS:
            raise InputError(f"colour is {self.colour!r}; expected one of {', '.join(KINDS)}, or none")
        if (self.colour == "error") != (self.cut is not None):
            raise InputError(
                f"cut is {self.cut} and colour {self.colour}; expected a bond dimension to cut to with colour 'error', "
                "and only there"
            )
        if self.cut is not None and self.cut < 1:
            raise InputError(f"cut is {self.cut}; expected a bond dimension of at least 1")

    def network(self, operator: Operator) -> tuple[Graph, Overlay | None]:
        """The graph of a layer's operator, and what colours it.

        Raises:
            InputError: the colour needs cores, and there are none.
        """
        mpo = self.operators.get(operator.name)
        return self.shape(operator.shape, operator.name) if mpo is None else self.operator(mpo)

    def shape(self, shape: MPOShape, name: str) -> tuple[Graph, Overlay | None]:
        """The graph of an operator without cores, and what colours it.

        Raises:
            InputError: the colour needs cores; ``name`` says whose.
        """
        if self.colour in ("entropy", "error"):
            raise InputError(
                f"colour is {self.colour!r} for {name!r}, of which only the shape is known; expected cores; draw a "
                "checkpoint, or colour by 'share'"
            )
        graph = of_shape(shape)
        return graph, self._scaled(overlay.share(graph)) if self.colour == "share" else None

    def operator(self, mpo: MPO) -> tuple[Graph, Overlay | None]:
        """The graph of an operator, and what colours it."""
        graph = of_mpo(mpo)
        match self.colour:
            case None:
                return graph, None
            case "share":
                return graph, self._scaled(overlay.share(graph))
            case "entropy":
                return graph, self._scaled(overlay.entropy(mpo))
            case "error":
                assert self.cut is not None
                return graph, self._scaled(overlay.error(mpo, self.cut))

    def for_model(self, model: Model) -> "DrawOptions":
        """The same with one scale of shades for all operators of a network."""
        if self.colour is None:
            return self
        overlays = [self.network(operator)[1] for operator in shapes.operators(model)]
        return replace(self, top=max((overlay.largest for overlay in overlays if overlay), default=None))

    def _scaled(self, amounts: Overlay) -> Overlay:
        return amounts if self.top is None else replace(amounts, top=self.top)


def operators(model: Model, parameters: Mapping[str, ArrayLike]) -> dict[str, MPO]:
    """The operators of a network by name of the layer, from its parameters by name (canonical layout)."""
    return {operator.name: operator.mpo(parameters) for operator in shapes.operators(model)}
