"""`NetworkLinear`: a linear layer whose weight is any tensor network."""

from typing import Any, Self

import torch

from mponet.layers.checks import check_names
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
        initializer: variance of the entries of ``W``, met exactly: ``glorot``, ``he``, ``lecun`` or
            a number.
        seed: seed of the starting values; None draws one from torch's generator, so
            ``torch.manual_seed`` governs.
        device: as for `torch.nn.Linear`.
        dtype: as for `torch.nn.Linear`.

    Raises:
        GraphError: a node has the name of an attribute of the layer.
    """

    def __init__(
        self,
        shape: NetworkShape,
        bias: bool = True,
        *,
        initializer: str | float = "glorot",
        seed: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_names(shape, self)
        self.shape = shape
        self.initializer, self.seed = initializer, seed
        self._make_parameters(bias, device, dtype)

    @classmethod
    def _new(cls, shape: NetworkShape, bias: bool, **options: Any) -> Self:
        return cls(shape, bias, **{"seed": 0, **options})

    def forward(self, inputs: Array) -> Array:
        """``inputs @ W + b``, ``(..., in_features)`` to ``(..., out_features)``.

        Raises:
            ShapeError: the last dimension is not ``in_features``.
            InputError: the inputs are no tensor, or complex, sparse or masked.
        """
        return linear(self, inputs)
