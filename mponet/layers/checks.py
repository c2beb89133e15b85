"""Checks that the layers of all frameworks make."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mponet.errors import GraphError, InputError, ShapeError
from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape
from mponet.operators.topology import NetworkShape


def check_width(features: int, shape: object, input_shape: Sequence[int | None]) -> None:
    """Refuse inputs that are not ``(..., features)``: a reshape would swallow a wrong width.

    Args:
        features: number of inputs of the layer.
        shape: of its operator, for the error.
        input_shape: shape of the inputs.

    Raises:
        ShapeError: the last dimension is not ``features``.
    """
    if len(input_shape) == 0 or input_shape[-1] != features:
        raise ShapeError(
            f"inputs have the shape {tuple(input_shape)}; expected (..., {features}) for {shape}; "
            "flatten feature maps first"
        )


def check_real(dtype: str, what: str) -> None:
    """Refuse complex numbers.

    An operator of a layer is real, and an imaginary part must not be dropped.

    Args:
        dtype: name of a dtype, such as ``complex64``.
        what: what has it, for the error: ``inputs``, ``the layer``.

    Raises:
        InputError: the dtype is complex.
    """
    if dtype.startswith("complex"):
        raise InputError(f"{what} has dtype {dtype}; expected real numbers; pass the real and imaginary parts apart")


def check_operator(shape: MPOShape, mpo: MPO) -> None:
    """Refuse an operator of another shape than the layer's.

    Raises:
        ShapeError: the shapes differ.
    """
    if mpo.shape != shape:
        raise ShapeError(f"operator is {mpo.shape}; expected {shape}; make a new layer with from_mpo")


def check_names(shape: NetworkShape, layer: object) -> None:
    """Refuse nodes that have the name of an attribute of the layer, such as ``forward``.

    Raises:
        GraphError: a name is taken.
    """
    own = set(dir(layer))  # not hasattr: some properties of Keras raise what they like
    own.update(*(getattr(base, "__annotations__", {}) for base in type(layer).__mro__))  # set later
    taken = [name for name in shape.names if name in own]
    if taken:
        raise GraphError(
            f"nodes are called {', '.join(taken)}, which a layer has already; expected names of their own, because the "
            "layer's parameters are called as the nodes; rename them with node.set_name"
        )


def check_bias(bias: ArrayLike, features: int, *, wanted: bool) -> NDArray[Any]:
    """The bias as an array ``(features,)``.

    Args:
        bias: the bias that was given.
        features: number of outputs.
        wanted: whether the layer has a bias.

    Raises:
        ShapeError: the bias has another shape, or the layer has none.
    """
    values = np.asarray(bias)
    if not wanted or values.shape != (features,):
        expected = f"({features},)" if wanted else "none, since the layer was made without"
        raise ShapeError(f"bias has the shape {values.shape}; expected {expected}")
    return values
