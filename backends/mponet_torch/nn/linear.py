"""`MPOLinear`: a linear layer whose weight is a matrix product operator."""

from collections.abc import Sequence
from typing import Any, Self

import torch

from mponet.layers.linear import LinearLayer
from mponet.layers.sizes import layer_sizes
from mponet.operators.padding import Objective
from mponet.operators.shape import MPOShape
from mponet_torch.nn.calls import linear
from mponet_torch.nn.parameters import ParameterAccess
from mponet_torch.ops.arrays import Array


class MPOLinear(ParameterAccess, LinearLayer):
    """``y = x @ W + b`` with ``W`` a matrix product operator.

    Takes and gives any leading dimensions.

    Attributes:
        shape: factors and bonds of the operator (`mponet.MPOShape`).
        padding: how many zeros are appended to the inputs and dropped from the outputs.
        core1, core2, ...: one parameter per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` gives all
            of them.
        bias: ``(out_features,)`` or None.

    Args:
        in_features: number of inputs, or factors of that number and the padding.
        out_features: number of outputs, or factors of that number and the padding.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        bias: whether to have a bias.
        sites: number of factors where only sizes are given; None chooses.
        padding: how many zeros are appended to the inputs and dropped from the outputs; None
            chooses for sizes that factor badly, and pads no factors that are given.
        objective: what factors of sizes make small: ``balance``, ``parameters`` or
            ``multiplications`` (see `mponet.choose_factors`).
        initializer: variance of the entries of ``W``, met exactly: ``glorot``, ``he``, ``lecun`` or
            a number.
        seed: seed of the starting values; None draws one from torch's generator, so
            ``torch.manual_seed`` governs.
        memory: bytes that a pass may take beside inputs, outputs and their gradients; None for what
            ``MPONET_MEMORY`` says, else for a limit by the size of the layer.
        device: as for `torch.nn.Linear`.
        dtype: as for `torch.nn.Linear`.

    Raises:
        ShapeError: sizes, factors, bonds and padding do not fit together.

    Warns:
        SizeWarning: the operator has more weights than the dense layer.

    Example:
        >>> layer = MPOLinear(127, 113, bond=8)
        >>> layer.shape, layer.padding
        (MPOShape(input_dims=(13, 10), output_dims=(13, 9), bond_dims=(1, 8, 1)), (3, 4))
        >>> layer(torch.ones(2, 127)).shape
        torch.Size([2, 113])
    """

    def __init__(
        self,
        in_features: int | Sequence[int],
        out_features: int | Sequence[int],
        bond: int | Sequence[int],
        bias: bool = True,
        *,
        sites: int | None = None,
        padding: Sequence[int] | None = None,
        objective: Objective = "balance",
        initializer: str | float = "glorot",
        seed: int | None = None,
        memory: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.sizes = layer_sizes(in_features, out_features, bond, sites, padding, objective)
        self.initializer, self.seed, self.memory = initializer, seed, memory
        self._make_parameters(bias, device, dtype)

    @classmethod
    def _new(cls, shape: MPOShape, bias: bool, **options: Any) -> Self:
        sizes = shape.input_dims, shape.output_dims, shape.bond_dims[1:-1]
        return cls(*sizes, bias, **{"seed": 0, **options})

    def forward(self, inputs: Array) -> Array:
        """``inputs @ W + b``, ``(..., in_features)`` to ``(..., out_features)``.

        Raises:
            ShapeError: the last dimension is not ``in_features``.
            InputError: the inputs are not a tensor, or complex, sparse or masked.
        """
        return linear(self, inputs)
