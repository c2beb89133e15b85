"""`NetworkLinear`: a linear layer whose weight is any tensor network."""

from collections.abc import Mapping
from typing import Any, Self

import torch

from mponet.layers.checks import check_names
from mponet.layers.fixed import FixedNodes
from mponet.layers.network import NetworkLayer
from mponet.operators.topology import NetworkShape
from mponet_torch.nn.calls import linear
from mponet_torch.nn.parameters import ParameterAccess
from mponet_torch.ops.arrays import Array


class NetworkLinear(ParameterAccess, NetworkLayer):
    """``y = x @ W + b`` with ``W`` a tensor network of any form.

    Takes and gives any leading dimensions.

    For a chain with one input and one output leg on every node `MPOLinear` is faster:
    ``MPOLinear.from_nodes(nodes)``.

    Attributes:
        shape: nodes, edges and sizes (`mponet.operators.topology.NetworkShape`).
        bias: ``(out_features,)`` or None.
        ...: one parameter for each node, under its name; ``tensors`` gives all of them.

    Args:
        shape: nodes, edges and sizes.
        bias: whether to have a bias.
        fixed: numbers of nodes that are constants and not trained, by name; None for none.
        initializer: variance of the entries of ``W``, met exactly: ``glorot``, ``he``, ``lecun`` or
            a number.
        seed: seed of the starting values; None draws one from torch's generator, so
            ``torch.manual_seed`` governs.
        memory: bytes that a pass may take beside inputs, outputs and their gradients; None for what
            ``MPONET_MEMORY`` says, else for a limit by the size of the layer.
        device: as for `torch.nn.Linear`.
        dtype: as for `torch.nn.Linear`.

    Raises:
        GraphError: a node has the name of an attribute of the layer, or ``fixed`` no node.
        ShapeError: a fixed node has another shape.
    """

    def __init__(
        self,
        shape: NetworkShape,
        bias: bool = True,
        *,
        fixed: Mapping[str, Any] | None = None,
        initializer: str | float = "glorot",
        seed: int | None = None,
        memory: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_names(shape, self)
        self.shape, self.fixed = shape, FixedNodes(shape, fixed)
        self.initializer, self.seed, self.memory = initializer, seed, memory
        self._make_parameters(bias, device, dtype)

    @classmethod
    def _new(cls, shape: NetworkShape, bias: bool, **options: Any) -> Self:
        return cls(shape, bias, **{"seed": 0, **options})

    def forward(self, inputs: Array) -> Array:
        """``inputs @ W + b``, ``(..., in_features)`` to ``(..., out_features)``.

        Raises:
            ShapeError: the last dimension is not ``in_features``.
            InputError: the inputs are not a tensor, or complex, sparse or masked.
        """
        return linear(self, inputs)
