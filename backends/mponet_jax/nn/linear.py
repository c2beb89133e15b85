"""`MPOLinear`: a linear layer whose weight is a matrix product operator."""

from collections.abc import Sequence
from math import prod
from typing import Any, Self

from flax import nnx

from mponet.contraction.planner import plans_for
from mponet.layers.chain import ChainLayer
from mponet.layers.sizes import chain_shape
from mponet.operators.shape import MPOShape
from mponet_jax.nn.parameters import ParameterAccess
from mponet_jax.ops.arrays import Array
from mponet_jax.ops.contraction import apply
from mponet_jax.ops.planning import planner


class MPOLinear(ParameterAccess, ChainLayer, nnx.Module):
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
        use_bias: whether to have a bias.
        sites: number of factors where only sizes are given; None chooses.
        initializer: variance of the entries of ``W``, met exactly: ``glorot``, ``he``, ``lecun`` or
            a number.
        dtype: as for `flax.nnx.Linear`.
        param_dtype: dtype of the parameters; None for float32, or ``dtype`` where that is wider.
        rngs: its ``params`` stream gives the seed of the starting values.

    Raises:
        ShapeError: sizes, factors and bonds do not fit together.
        BackendError: a dtype is float64, which JAX has switched off.
    """

    def __init__(
        self,
        in_features: int | Sequence[int],
        out_features: int | Sequence[int],
        bond: int | Sequence[int],
        *,
        use_bias: bool = True,
        sites: int | None = None,
        initializer: str | float = "glorot",
        dtype: Any = None,
        param_dtype: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.shape = chain_shape(in_features, out_features, bond, sites)
        self.initializer = initializer
        self._make_parameters(use_bias, dtype, param_dtype, rngs)

    @classmethod
    def _new(cls, shape: MPOShape, bias: bool, **options: Any) -> Self:
        sizes = shape.input_dims, shape.output_dims, shape.bond_dims[1:-1]
        return cls(*sizes, use_bias=bias, **{"rngs": nnx.Rngs(0), **options})

    def __call__(self, inputs: Array) -> Array:
        """``inputs @ W + b``, ``(..., in_features)`` to ``(..., out_features)``.

        Raises:
            ShapeError: the last dimension is not ``in_features``.
        """
        inputs, bias, cores = self._promoted(inputs)
        leading = inputs.shape[:-1]
        rows = inputs.reshape(prod(leading), self.in_features)
        batch = rows.shape[0] if isinstance(rows.shape[0], int) else None
        # not by the method: nnx.tabulate compiles the methods that a forward pass calls, and a plan
        # is no array
        plans = plans_for(self.shape, batch, rows.dtype.name, planner())
        return apply(plans, rows, cores, bias).reshape(*leading, self.out_features)
