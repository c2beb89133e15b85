"""`ChainLayer`: a layer whose operator is a chain of cores, an `mponet.MPO`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from mponet.contraction.plan import Plan, rebuilt
from mponet.layers.checks import check_operator
from mponet.layers.operator import Array, OperatorLayer
from mponet.operators.initialize import exact_variance
from mponet.operators.mpo import MPO, to_matrix
from mponet.operators.nodes import from_network, network
from mponet.operators.shape import MPOShape


class ChainLayer(OperatorLayer):
    """The part of a layer that knows its operator is a matrix product operator.

    Attributes:
        shape: factors and bonds (`mponet.MPOShape`).
        initializer: variance of the entries of ``W``: ``glorot``, ``he``, ``lecun`` or a number.
    """

    shape: MPOShape
    initializer: str | float

    @property
    def chain_shape(self) -> MPOShape:
        """Factors and bonds of the chain.

        Those of the layer, unless a kind of layer knows more than a matrix.
        """
        return self.shape

    def _set_chain_shape(self, shape: MPOShape) -> None:
        """Take over other bonds."""
        self.shape = shape if isinstance(self.shape, MPOShape) else replace(self.shape, mpo=shape)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """``("core1", ..., "coreN")``."""
        return tuple(f"core{k}" for k in range(1, self.chain_shape.sites + 1))

    @property
    def parameter_shapes(self) -> tuple[tuple[int, ...], ...]:
        """``(D_{k-1}, I_k, J_k, D_k)`` of each core."""
        return self.chain_shape.core_shapes

    @property
    def cores(self) -> tuple[Any, ...]:
        """The cores, in the order of the sites."""
        return self.tensors

    @property
    def dense_plan(self) -> Plan:
        """The plan that rebuilds the dense matrix."""
        return rebuilt(self.chain_shape)

    def initial_values(self, rng: np.random.Generator) -> tuple[Array, ...]:
        """Random cores; the entries of ``W`` have the variance of the initializer exactly."""
        return exact_variance(self.chain_shape, rng, self._variance).cores

    @classmethod
    def from_mpo(cls, mpo: MPO, bias: Any = None, **options: Any) -> Self:
        """The layer of an operator and a bias.

        Args:
            mpo: the operator.
            bias: ``(out_features,)``; None for a layer without.
            **options: further arguments of the layer, such as its dtype.

        Raises:
            ShapeError: the bias has another shape.
        """
        layer = cls._new(mpo.shape, bias is not None, **options)
        layer.assign(mpo, bias)
        return layer

    @classmethod
    def from_nodes(cls, nodes: Sequence[Any], bias: Any = None, **options: Any) -> Self:
        """The layer of TensorNetwork nodes that form a chain.

        The dangling edges are ``in1 ..`` and ``out1 ..``.

        Raises:
            GraphError: the nodes form no chain.
            ShapeError: the bias has another shape.
        """
        return cls.from_mpo(from_network(nodes), bias, **options)

    def to_mpo(self) -> MPO:
        """The operator, float64 numpy."""
        return MPO(self.chain_shape, tuple(np.asarray(self._to_numpy(core), np.float64) for core in self.cores))

    def to_nodes(self) -> tuple[Any, ...]:
        """TensorNetwork nodes ``core1, core2, ...``, float64 numpy."""
        return network(self.to_mpo())

    def to_matrix(self) -> Array:
        """``W``, ``(in_features, out_features)``, float64 numpy."""
        return to_matrix(self.to_mpo())

    @property
    def _variance(self) -> str | float:
        """Variance of the entries of the matrix, or the name of a rule for it."""
        return self.initializer

    def _checked(self, operator: Any) -> Sequence[Array]:
        if not isinstance(operator, MPO):
            return self._checked(MPO.from_cores([self._to_numpy(core) for core in operator]))
        check_operator(self.chain_shape, operator)
        return operator.cores
