"""`NetworkLayer`: a layer whose operator is any tensor network."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from mponet.contraction.graph_plan import GraphPlan
from mponet.contraction.graph_search import matrix_of, path
from mponet.layers.fixed import FixedNodes
from mponet.layers.operator import Array, OperatorLayer
from mponet.operators.initialize import exact_tensors
from mponet.operators.mpo import MPO
from mponet.operators.nodes import from_network, network
from mponet.operators.topology import NetworkShape, check_tensors, from_nodes, to_nodes


class NetworkLayer(OperatorLayer):
    """The part of a layer that knows its operator is a tensor network of any form.

    Attributes:
        shape: nodes, edges and sizes (`mponet.operators.topology.NetworkShape`).
        initializer: variance of the entries of ``W``: ``glorot``, ``he``, ``lecun`` or a number.
        fixed: the nodes that are constants (`mponet.layers.fixed.FixedNodes`).
    """

    shape: NetworkShape
    fixed: FixedNodes
    initializer: str | float
    #: A network has the sizes of the layer.
    padding: tuple[int, int] = (0, 0)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the nodes."""
        return self.shape.names

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """Names of the copy nodes, and of those that were given as constants."""
        return (*self.shape.copies, *(name for name in self.fixed.names if name not in self.shape.copies))

    @property
    def parameter_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Dimensions of the axes of each node."""
        return self.shape.sizes

    @property
    def dense_plan(self) -> GraphPlan:
        """The plan that rebuilds the dense matrix."""
        return GraphPlan(self.shape, path(self.shape, None))

    def initial_values(self, rng: np.random.Generator) -> tuple[Array, ...]:
        """Random tensors; the entries of ``W`` have the variance of the initializer exactly."""
        return exact_tensors(self.shape, rng, self.initializer, self.fixed.values)

    @classmethod
    def from_nodes(cls, nodes: Sequence[Any], bias: Any = None, *, fixed: Sequence[str] = (), **options: Any) -> Self:
        """The layer of TensorNetwork nodes with the dangling edges ``in1 ..`` and ``out1 ..``.

        A layer of a chain is faster as an operator of its own: use ``from_nodes`` of the chain
        layer.

        Args:
            nodes: all nodes of the network; they are copied, and not consumed.
            bias: ``(out_features,)``; None for a layer without.
            fixed: names of nodes that stay as they are and are not trained; copy nodes always do.
            **options: further arguments of the layer, such as its dtype.

        Raises:
            GraphError: the nodes are not a legal layer, or ``fixed`` names another node.
            ShapeError: the bias has another shape.
        """
        shape, tensors = from_nodes(nodes)
        given = dict(zip(shape.names, tensors, strict=True))
        constants = FixedNodes(shape, {name: given.get(name) for name in fixed})
        layer = cls._new(shape, bias is not None, fixed=constants.values, **options)
        layer.assign(tensors, bias)
        return layer

    @classmethod
    def from_mpo(cls, mpo: MPO, bias: Any = None, **options: Any) -> Self:
        """The layer of a chain as a network, one node for each core.

        Raises:
            ShapeError: the bias has another shape.
        """
        return cls.from_nodes(network(mpo), bias, **options)

    def to_nodes(self) -> tuple[Any, ...]:
        """TensorNetwork nodes, float64 numpy, joined and named as the shape says."""
        return to_nodes(self.shape, self._numbers())

    def to_mpo(self) -> MPO:
        """The operator as a chain, float64 numpy.

        Raises:
            GraphError: the network is not a chain.
        """
        return from_network(self.to_nodes())

    def to_matrix(self) -> Array:
        """``W``, ``(in_features, out_features)``, float64 numpy."""
        return matrix_of(self.shape, self._numbers())

    def _checked(self, operator: Any) -> Sequence[Array]:
        tensors = self._nodes_of(operator) if isinstance(operator, MPO) else operator
        found = check_tensors(self.shape, [self._to_numpy(tensor) for tensor in tensors])
        self.fixed.check(dict(zip(self.shape.names, found, strict=True)))
        return found

    def _weights_kept(self) -> str:
        copied = [name for name in self.fixed.names if name in self.shape.copies]
        own = self.fixed.entries - sum(self.fixed.values[name].size for name in copied)
        return f"{self.shape.parameters - own} of {self.shape.dense_parameters}"

    def _numbers(self) -> list[Any]:
        return [self._to_numpy(tensor) for tensor in self.tensors]

    @staticmethod
    def _nodes_of(mpo: MPO) -> list[Any]:
        return [node.tensor for node in network(mpo)]
