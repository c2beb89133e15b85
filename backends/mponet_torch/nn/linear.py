"""`MPOLinear`: a linear layer whose weight is a matrix product operator."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import nn

from mponet.layers.chain import ChainLayer
from mponet.layers.checks import check_width
from mponet.operators.shape import MPOShape
from mponet_torch.nn.parameters import ParameterAccess, autocast, flattened, unflattened
from mponet_torch.ops.arrays import Array
from mponet_torch.ops.contraction import apply


class MPOLinear(nn.Module, ParameterAccess, ChainLayer):
    """``y = x @ W + b`` with ``W`` a matrix product operator; takes and gives any leading dimensions.

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
        self.shape = MPOShape.from_sizes(in_features, out_features, bond, sites)
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
        """
        check_width(self.shape, inputs.shape)
        rows, bias, cores = autocast(flattened(inputs), self.bias, self.cores)
        plans = self.plans(None if torch.compiler.is_compiling() else rows.shape[0], rows.dtype)
        return unflattened(apply(plans, rows, cores, bias, self._cache), inputs)

    def train(self, mode: bool = True) -> Self:
        """Set the mode as `torch.nn.Module.train` does; in training no weights are kept for inference."""
        if mode:
            self._kept.clear()
        return super().train(mode)

    def extra_repr(self) -> str:
        """Sizes, shape, counts and the plan in use."""
        return self._description()
