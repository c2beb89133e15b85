"""`MPOLinear`: a linear layer whose weight is a matrix product operator."""

from collections.abc import Sequence
from typing import Any, Self

from flax import nnx

from mponet.layers.linear import LinearLayer
from mponet.layers.sizes import layer_sizes
from mponet.operators.padding import Objective
from mponet.operators.shape import MPOShape
from mponet_jax.nn.calls import linear
from mponet_jax.nn.parameters import ParameterAccess
from mponet_jax.ops.arrays import Array


class MPOLinear(ParameterAccess, LinearLayer, nnx.Module):
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
        use_bias: whether to have a bias.
        sites: number of factors where only sizes are given; None chooses.
        padding: how many zeros are appended to the inputs and dropped from the outputs; None
            chooses for sizes that factor badly, and pads no factors that are given.
        objective: what factors of sizes make small: ``balance``, ``parameters`` or
            ``multiplications`` (see `mponet.choose_factors`).
        initializer: variance of the entries of ``W``, met exactly: ``glorot``, ``he``, ``lecun`` or
            a number.
        dtype: as for `flax.nnx.Linear`.
        param_dtype: dtype of the parameters; None for float32, or ``dtype`` where that is wider.
        memory: bytes that a pass may take beside inputs, outputs and their gradients; None for what
            ``MPONET_MEMORY`` says, else for a limit by the size of the layer.
        rngs: its ``params`` stream gives the seed of the starting values.

    Raises:
        ShapeError: sizes, factors, bonds and padding do not fit together.
        BackendError: a dtype is float64, which JAX has switched off.

    Warns:
        SizeWarning: the operator has more weights than the dense layer.

    Example:
        >>> import numpy as np
        >>> layer = MPOLinear(127, 113, bond=8, rngs=nnx.Rngs(0))
        >>> layer.shape, layer.padding
        (MPOShape(input_dims=(13, 10), output_dims=(13, 9), bond_dims=(1, 8, 1)), (3, 4))
        >>> layer(np.ones((2, 127))).shape
        (2, 113)
    """

    def __init__(
        self,
        in_features: int | Sequence[int],
        out_features: int | Sequence[int],
        bond: int | Sequence[int],
        *,
        use_bias: bool = True,
        sites: int | None = None,
        padding: Sequence[int] | None = None,
        objective: Objective = "balance",
        initializer: str | float = "glorot",
        dtype: Any = None,
        param_dtype: Any = None,
        memory: int | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.sizes = layer_sizes(in_features, out_features, bond, sites, padding, objective)
        self.initializer, self.memory = initializer, memory
        self._make_parameters(use_bias, dtype, param_dtype, rngs)

    @classmethod
    def _new(cls, shape: MPOShape, bias: bool, **options: Any) -> Self:
        sizes = shape.input_dims, shape.output_dims, shape.bond_dims[1:-1]
        return cls(*sizes, use_bias=bias, **{"rngs": nnx.Rngs(0), **options})

    def __call__(self, inputs: Array) -> Array:
        """``inputs @ W + b``, ``(..., in_features)`` to ``(..., out_features)``.

        Raises:
            ShapeError: the last dimension is not ``in_features``.
            InputError: the inputs are not an array, or complex.
        """
        return linear(self, inputs)
