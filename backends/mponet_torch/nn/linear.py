"""`MPOLinear`: a linear layer whose weight is a matrix product operator."""

from collections.abc import Sequence
from typing import Any, Self

import torch

from mponet.layers.chain import ChainLayer
from mponet.layers.sizes import chain_shape
from mponet.operators.shape import MPOShape
from mponet_torch.nn.calls import linear
from mponet_torch.nn.parameters import ParameterAccess
from mponet_torch.ops.arrays import Array


class MPOLinear(ParameterAccess, ChainLayer):
    """``y = x @ W + b`` with ``W`` a matrix product operator.

    Takes and gives any leading dimensions.

    Attributes:
        shape: factors and bonds (`mponet.MPOShape`).
        core1, core2, ...: one parameter per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` gives all
            of them.
        bias: ``(out_features,)`` or None.

    Args:
        in_features: number of inputs, or its factors.
        out_features: number of outputs, or its factors.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        bias: whether to have a bias.
        sites: number of factors where only sizes are given; None chooses.
        initializer: variance of the entries of ``W``, met exactly: ``glorot``, ``he``, ``lecun`` or
            a number.
        seed: seed of the starting values; None draws one from torch's generator, so
            ``torch.manual_seed`` governs.
        device: as for `torch.nn.Linear`.
        dtype: as for `torch.nn.Linear`.

    Raises:
        ShapeError: sizes, factors and bonds do not fit together.
    """

    def __init__(
        self,
        in_features: int | Sequence[int],
        out_features: int | Sequence[int],
        bond: int | Sequence[int],
        bias: bool = True,
        *,
        sites: int | None = None,
        initializer: str | float = "glorot",
        seed: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.shape = chain_shape(in_features, out_features, bond, sites)
        self.initializer, self.seed = initializer, seed
        self._make_parameters(bias, device, dtype)

    @classmethod
    def _new(cls, shape: MPOShape, bias: bool, **options: Any) -> Self:
        sizes = shape.input_dims, shape.output_dims, shape.bond_dims[1:-1]
        return cls(*sizes, bias, **{"seed": 0, **options})

    def forward(self, inputs: Array) -> Array:
        """``inputs @ W + b``, ``(..., in_features)`` to ``(..., out_features)``.

        Raises:
            ShapeError: the last dimension is not ``in_features``.
            InputError: the inputs are no tensor, or complex, sparse or masked.
        """
        return linear(self, inputs)
