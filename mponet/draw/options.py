"""Options of drawings: what colours show, the batch of the plans, and the cores of operators."""

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
    """Options of a drawing.

    Attributes:
        colour: quantity shown by shades: ``share`` of the parameters, entanglement ``entropy``,
            ``error`` of a cut, or None.
        cut: bond dimension to cut to, with ``error`` only.
        operators: operators with cores by name of the layer; entropies, errors and arrows need
            them.
        batch: examples per batch that plans are chosen for.
        top: amount of the strongest shade; None for the largest amount of each operator.

    Raises:
        InputError: the colour is unknown, or a cut is missing or given with another colour.

    >>> DrawOptions("error", cut=4).cut
    4
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
        """The graph of a layer's operator, and the amounts that colour it.

        Raises:
            InputError: the colour needs cores, and there are none.
        """
        mpo = self.operators.get(operator.name)
        return self.shape(operator.shape, operator.name) if mpo is None else self.operator(mpo)

    def shape(self, shape: MPOShape, name: str) -> tuple[Graph, Overlay | None]:
        """The graph of an operator without cores, and the amounts that colour it.

        Raises:
            InputError: the colour needs cores; the message contains ``name``.
        """
        if self.colour in ("entropy", "error"):
            raise InputError(
                f"colour is {self.colour!r} for {name!r}, of which only the shape is known; expected cores; draw a "
                "checkpoint, or colour by 'share'"
            )
        graph = of_shape(shape)
        return graph, self._scaled(overlay.share(graph)) if self.colour == "share" else None

    def operator(self, mpo: MPO) -> tuple[Graph, Overlay | None]:
        """The graph of an operator, and the amounts that colour it."""
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
        """These options with one scale of shades for all operators of a network."""
        if self.colour is None:
            return self
        overlays = [self.network(operator)[1] for operator in shapes.operators(model)]
        return replace(self, top=max((overlay.largest for overlay in overlays if overlay), default=None))

    def _scaled(self, amounts: Overlay) -> Overlay:
        return amounts if self.top is None else replace(amounts, top=self.top)


def operators(model: Model, parameters: Mapping[str, ArrayLike]) -> dict[str, MPO]:
    """The operators of a network by name of the layer.

    Args:
        model: the network.
        parameters: values by name, in the canonical layout.

    >>> from mponet.models import build
    >>> from mponet.models.init import start
    >>> model = build("fc2")
    >>> list(operators(model, start(model, seed=0)))
    ['fc1', 'fc2']
    """
    return {operator.name: operator.mpo(parameters) for operator in shapes.operators(model)}
