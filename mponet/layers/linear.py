"""What the layers of all frameworks check and say of themselves, in one place."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mponet.contraction.graph_search import pairwise_plan
from mponet.contraction.search import DEFAULT_BATCH, choose
from mponet.errors import GraphError, ShapeError
from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape
from mponet.operators.topology import NetworkShape


def check_width(shape: MPOShape | NetworkShape, input_shape: Sequence[int | None]) -> None:
    """Refuse inputs that are not ``(..., in_features)``: a reshape would swallow a wrong width.

    Raises:
        ShapeError: they are not.
    """
    if len(input_shape) == 0 or input_shape[-1] != shape.in_features:
        raise ShapeError(
            f"inputs have the shape {tuple(input_shape)}; expected (..., {shape.in_features}) for {shape}; "
            "flatten feature maps first"
        )


def check_operator(shape: MPOShape, mpo: MPO) -> None:
    """Refuse an operator of another shape than the layer's.

    Raises:
        ShapeError: it is of another.
    """
    if mpo.shape != shape:
        raise ShapeError(f"operator is {mpo.shape}; expected {shape}; make a new layer with from_mpo")


def check_names(wiring: NetworkShape, layer: object) -> None:
    """Refuse nodes that are called as something that the layer has already, as ``forward``.

    Raises:
        GraphError: one is.
    """
    own = set(dir(layer))  # not hasattr: some properties of Keras raise what they like
    taken = [name for name in wiring.names if name in own]
    if taken:
        raise GraphError(
            f"nodes are called {', '.join(taken)}, which a layer has already; expected names of their own, because the "
            "layer's parameters are called as the nodes; rename them with node.set_name"
        )


def check_bias(bias: ArrayLike, features: int, *, wanted: bool) -> NDArray[Any]:
    """The bias as an array ``(features,)``.

    Args:
        bias: what was given.
        features: number of outputs.
        wanted: whether the layer has a bias.

    Raises:
        ShapeError: it has another shape, or the layer has none.
    """
    values = np.asarray(bias)
    if not wanted or values.shape != (features,):
        expected = f"({features},)" if wanted else "none, since the layer was made without"
        raise ShapeError(f"bias has the shape {values.shape}; expected {expected}")
    return values


def weights_kept(shape: MPOShape | NetworkShape) -> str:
    """``15104 of 200704``, for a repr."""
    return f"{shape.parameters} of {shape.dense_parameters}"


def default_graph_plan(wiring: NetworkShape) -> str:
    """The plan of a network at the usual batch, for a repr."""
    return str(pairwise_plan(wiring, DEFAULT_BATCH))


def default_plan(shape: MPOShape) -> str:
    """The plan of a training step at the usual batch, for a repr."""
    return str(choose(shape, DEFAULT_BATCH, purpose="training"))
