"""`NetworkLinear`: a linear layer whose weight is any tensor network."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from mponet.contraction.graph_plan import GraphPlan
from mponet.contraction.graph_search import explain, matrix_of, plan_for
from mponet.contraction.search import DEFAULT_BATCH
from mponet.display import NotebookRepr
from mponet.layers.linear import check_bias, check_names, check_width, default_graph_plan, weights_kept
from mponet.operators.initialize import exact_tensors
from mponet.operators.topology import NetworkShape, check_tensors, from_nodes, to_nodes
from mponet_torch.nn.linear import autocast, dtype_name, flattened, unflattened
from mponet_torch.ops.arrays import Array, to_numpy
from mponet_torch.ops.graph import apply_network
from mponet_torch.ops.planning import planner_of


class NetworkLinear(NotebookRepr, nn.Module):
    """``y = x @ W + b`` with ``W`` a tensor network of any form; takes and gives any leading dimensions.

    A chain with one input and one output leg on every node is a matrix product operator, for which
    `MPOLinear` is
    faster: ``MPOLinear.from_mpo(mponet.operators.nodes.from_network(nodes))``.

    Attributes:
        wiring: how the nodes are joined (`mponet.operators.topology.NetworkShape`).
        bias: ``(out_features,)`` or None.
        ...: one parameter for each node, under its name; ``tensors`` gives all of them.

    Args:
        wiring: how the nodes are joined.
        bias: whether to have one.
        initializer: variance of the entries of ``W``, met exactly: ``glorot``, ``he``, ``lecun`` or
            a number.
        seed: of the starting values; None draws one from torch's generator, so
            ``torch.manual_seed`` governs.
        device: as for `torch.nn.Linear`.
        dtype: as for `torch.nn.Linear`.

    Raises:
        GraphError: a node has the name of something that the layer has already.
    """

    def __init__(
        self,
        wiring: NetworkShape,
        bias: bool = True,
        *,
        initializer: str | float = "glorot",
        seed: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.wiring = wiring
        check_names(wiring, self)
        seed = int(torch.randint(2**31 - 1, ())) if seed is None else seed
        options: dict[str, Any] = {"device": device, "dtype": dtype or torch.get_default_dtype()}
        start = exact_tensors(wiring, np.random.default_rng(seed), initializer)
        for name, tensor in zip(wiring.names, start, strict=True):
            self.register_parameter(name, nn.Parameter(torch.tensor(tensor, **options)))
        self.bias = nn.Parameter(torch.zeros(self.out_features, **options)) if bias else None
        self._plans: dict[tuple[int, torch.dtype, torch.device], GraphPlan] = {}
        self._traced = plan_for(wiring, None, dtype_name(self.tensors[0].dtype), planner_of(self.tensors[0].device))

    @property
    def tensors(self) -> tuple[Array, ...]:
        """The nodes' tensors, in the order of the wiring."""
        return tuple(getattr(self, name) for name in self.wiring.names)

    @property
    def in_features(self) -> int:
        """Number of inputs."""
        return self.wiring.in_features

    @property
    def out_features(self) -> int:
        """Number of outputs."""
        return self.wiring.out_features

    @classmethod
    def from_nodes(
        cls, nodes: Sequence[Any], bias: ArrayLike | None = None, *, device: Any = None, dtype: Any = None
    ) -> Self:
        """The layer of TensorNetwork nodes with the dangling edges ``in1 ..`` and ``out1 ..``.

        For a chain with one of each on every node `MPOLinear` is faster.

        Args:
            nodes: all of the network; they are copied, and not consumed.
            bias: ``(out_features,)``; None for a layer without.
            device: as for the layer.
            dtype: as for the layer.

        Raises:
            GraphError: the nodes are no legal layer.
            ShapeError: the bias has another shape.
        """
        wiring, tensors = from_nodes(nodes)
        layer = cls(wiring, bias is not None, seed=0, device=device, dtype=dtype)
        layer.assign(tensors, bias)
        return layer

    def to_nodes(self) -> tuple[Any, ...]:
        """TensorNetwork nodes, float64 numpy, joined and named as the wiring says."""
        return to_nodes(self.wiring, [to_numpy(tensor) for tensor in self.tensors])

    def to_matrix(self) -> NDArray[np.float64]:
        """``W``, ``(in_features, out_features)``, float64 numpy."""
        return matrix_of(self.wiring, [to_numpy(tensor) for tensor in self.tensors])

    def assign(self, tensors: Sequence[ArrayLike], bias: ArrayLike | None = None) -> None:
        """Overwrite the nodes' tensors, in the order of the wiring, and the bias if one is given.

        Raises:
            ShapeError: a tensor or the bias has another shape, or there is no bias to overwrite.
        """
        numbers = check_tensors(self.wiring, tensors)
        values = None if bias is None else check_bias(bias, self.out_features, wanted=self.bias is not None)
        with torch.no_grad():
            for tensor, value in zip(self.tensors, numbers, strict=True):
                tensor.copy_(torch.tensor(value))
            if self.bias is not None and values is not None:
                self.bias.copy_(torch.tensor(values))

    def plan(self, batch: int | None) -> GraphPlan:
        """The plan in use for a batch of so many rows; None while tracing, where the batch may vary."""
        if batch is None:
            return self._traced
        key = batch, self.tensors[0].dtype, self.tensors[0].device
        if key not in self._plans:  # a lookup that hashes the wiring takes as long as a small product
            self._plans[key] = plan_for(self.wiring, batch, dtype_name(key[1]), planner_of(key[2]))
        return self._plans[key]

    def explain(self, batch: int | None = DEFAULT_BATCH) -> str:
        """The steps of the plan in use for a batch, and what else was considered."""
        return explain(self.wiring, batch, dtype_name(self.tensors[0].dtype), planner_of(self.tensors[0].device))

    def forward(self, inputs: Array) -> Array:
        """``inputs @ W + b``, ``(..., in_features)`` to ``(..., out_features)``.

        Raises:
            ShapeError: the last dimension is not ``in_features``.
        """
        check_width(self.wiring, inputs.shape)
        rows, bias, *tensors = autocast(flattened(inputs), self.bias, *self.tensors)
        plan = self.plan(None if torch.compiler.is_compiling() else rows.shape[0])
        return unflattened(apply_network(plan, rows, tensors, bias), inputs)

    def extra_repr(self) -> str:
        """Nodes, counts, and the plan at the usual batch."""
        wiring = self.wiring
        return (
            f"{wiring.in_features}, {wiring.out_features}, {wiring}, bias={self.bias is not None}, "
            f"weights={weights_kept(wiring)}, plan='{default_graph_plan(wiring)}'"
        )
