"""Nodes of a network that are constants, which no layer trains."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mponet.errors import GraphError, ShapeError
from mponet.operators.arrays import Array, as_float64
from mponet.operators.axes import SAME_MATRIX
from mponet.operators.topology import NetworkShape


class FixedNodes:
    """The numbers of the fixed nodes of a network, by name.

    Two are equal if their numbers are, so that a framework can keep one as a static attribute.

    Args:
        shape: the network.
        values: the numbers of each fixed node; None for none.

    Raises:
        GraphError: the network has no such node.
        ShapeError: a node has another shape.
        InputError: numbers are complex or not finite.

    Example:
        >>> import numpy as np
        >>> from mponet import NetworkShape
        >>> from mponet.layers.fixed import FixedNodes
        >>> shape = NetworkShape(("a", "b"), (("in1", "x"), ("x", "out1")), ((4, 2), (2, 3)))
        >>> FixedNodes(shape, {"b": np.ones((2, 3))}).names
        ('b',)
    """

    def __init__(self, shape: NetworkShape, values: Mapping[str, Any] | None = None) -> None:
        self.values: dict[str, Array] = {}
        sizes = dict(zip(shape.names, shape.sizes, strict=True))
        for name, value in (values or {}).items():
            if name not in sizes:
                raise GraphError(f"fixed names {name!r}; expected nodes of the network: {', '.join(shape.names)}")
            numbers = np.array(as_float64(value, name))
            if numbers.shape != sizes[name]:
                raise ShapeError(f"fixed node {name!r} has the shape {numbers.shape}; expected {sizes[name]}")
            numbers.flags.writeable = False
            self.values[name] = numbers

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fixed nodes."""
        return tuple(self.values)

    @property
    def entries(self) -> int:
        """How many numbers they have."""
        return sum(value.size for value in self.values.values())

    def check(self, tensors: Mapping[str, Array]) -> None:
        """Refuse other numbers for fixed nodes, beyond the rounding of half precision.

        Raises:
            GraphError: a tensor differs.
        """
        for name, value in self.values.items():
            if np.linalg.norm(tensors[name] - value) > SAME_MATRIX * np.linalg.norm(value):
                raise GraphError(f"node {name!r} is fixed; expected its own numbers; make a new layer for others")

    def config(self) -> dict[str, Any]:
        """The numbers as JSON has them."""
        return {name: value.tolist() for name, value in self.values.items()}

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, FixedNodes)
            and self.names == other.names
            and all(np.array_equal(value, other.values[name]) for name, value in self.values.items())
        )

    def __hash__(self) -> int:
        return hash(tuple((name, value.shape) for name, value in self.values.items()))

    def __repr__(self) -> str:
        return f"FixedNodes({', '.join(self.names)})"
