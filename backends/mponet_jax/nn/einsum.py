"""`MPOEinsum`: an einsum whose kernel is a matrix product operator."""

from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from mponet.contraction import execute
from mponet.contraction.planner import plans_for
from mponet.errors import InputError, ShapeError
from mponet.layers.chain import ChainLayer
from mponet.layers.einsum import MatrixEinsum
from mponet.layers.operator import DenseWeights
from mponet.layers.sizes import layer_sizes
from mponet.operators.shape import MPOShape
from mponet_jax.nn.calls import check_inputs
from mponet_jax.nn.parameters import ParameterAccess, put
from mponet_jax.ops.arrays import OPS, PRECISION, Array, to_numpy
from mponet_jax.ops.contraction import apply
from mponet_jax.ops.planning import planner


class MPOEinsum(ParameterAccess, ChainLayer, nnx.Module):
    """`flax.nnx.Einsum` with a kernel that is a matrix product operator.

    The equation must be a product with one matrix (`mponet.layers.einsum.MatrixEinsum`), as those
    of attention are.  `flax.nnx.LinearGeneral` is such an einsum, too: ``from_dense`` takes both.

    Attributes:
        shape: factors and bonds of the matrix (`mponet.MPOShape`).
        einsum_str: the equation.
        kernel_shape: shape of the dense kernel.
        core1, core2, ...: one parameter per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` gives all
            of them.
        bias: ``(out_features,)``, added to the features in the order of the outputs, or None.

    Args:
        einsum_str: as for `flax.nnx.Einsum`.
        kernel_shape: as for `flax.nnx.Einsum`.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        use_bias: whether to have a bias, one number for each feature.
        input_dims: factors of the rows of the matrix; None chooses.
        output_dims: factors of the columns; None chooses.
        sites: number of factors where they are chosen; None chooses.
        initializer: variance of the entries of the kernel, met exactly: ``glorot``, ``he``,
            ``lecun`` or a number.
        dtype: as for `flax.nnx.Einsum`.
        param_dtype: dtype of the parameters; None for float32, or ``dtype`` where that is wider.
        memory: bytes that a pass may take beside inputs, outputs and their gradients; None for what
            ``MPONET_MEMORY`` says, else for a limit by the size of the layer.
        rngs: its ``params`` stream gives the seed of the starting values.

    Raises:
        ShapeError: the equation is not a product with one matrix, or sizes, factors and bonds do
            not fit together.
        BackendError: a dtype is float64, which JAX has switched off.

    Example:
        >>> layer = MPOEinsum("btd,dhm->bthm", (16, 4, 4), bond=4, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((2, 5, 16))).shape
        (2, 5, 4, 4)
    """

    def __init__(
        self,
        einsum_str: str,
        kernel_shape: Sequence[int],
        bond: int | Sequence[int],
        *,
        use_bias: bool = False,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
        sites: int | None = None,
        initializer: str | float = "glorot",
        dtype: Any = None,
        param_dtype: Any = None,
        memory: int | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.einsum_str, self.kernel_shape = einsum_str, tuple(kernel_shape)
        inputs, outputs = self.equation.matrix_shape(self.kernel_shape)
        self.shape = layer_sizes(input_dims or inputs, output_dims or outputs, bond, sites, (0, 0)).shape
        if (self.shape.in_features, self.shape.out_features) != (inputs, outputs):
            raise ShapeError(f"factors are those of {self.shape}; expected a matrix of {inputs} x {outputs}")
        self.initializer, self.memory = initializer, memory
        self._make_parameters(use_bias, dtype, param_dtype, rngs)

    @property
    def equation(self) -> MatrixEinsum:
        """The equation, read."""
        return MatrixEinsum.parse(self.einsum_str)

    @property
    def kernel(self) -> Array:
        """The dense kernel, built when it is asked for.

        It is differentiable in the cores; writing to it does not change them.
        """
        matrix: Array = execute.dense_matrix(self.dense_plan, [core[...] for core in self.cores], OPS)
        return jnp.transpose(matrix.reshape(self._sizes), np.argsort(self.equation.kernel_axes).tolist())

    @property
    def _sizes(self) -> tuple[int, ...]:
        """Sizes of the rows' and of the columns' subscripts."""
        inputs, outputs = self.equation.dims(self.kernel_shape)
        return inputs + outputs

    @classmethod
    def _new(cls, shape: MPOShape, bias: bool, **options: Any) -> Self:
        dims: dict[str, Any] = {"input_dims": shape.input_dims, "output_dims": shape.output_dims}
        return cls(bond=shape.bond_dims[1:-1], use_bias=bias, **{"rngs": nnx.Rngs(0), **dims, **options})

    @classmethod
    def _dense_weights(cls, dense: Any) -> DenseWeights:
        equation = einsum_of(dense)
        kernel = dense.kernel[...]
        options = {
            "einsum_str": str(equation),
            "kernel_shape": kernel.shape,
            "dtype": dense.dtype,
            "param_dtype": kernel.dtype,
        }
        matrix = to_numpy(kernel).transpose(equation.kernel_axes).reshape(equation.matrix_shape(kernel.shape))
        bias = None if dense.bias is None else to_numpy(dense.bias[...]).reshape(-1)
        return DenseWeights(matrix, bias, options, jax.default_device(next(iter(kernel.devices()))))

    def _make_dense(self, matrix: NDArray[Any], bias: NDArray[Any] | None) -> Any:
        first, equation = self.tensors[0][...], self.equation
        with jax.default_device(next(iter(first.devices()))):
            dense = nnx.Einsum(
                self.einsum_str,
                self.kernel_shape,
                None if bias is None else equation.dims(self.kernel_shape)[1],
                dtype=self.dtype,
                param_dtype=first.dtype,
                precision=PRECISION,
                kernel_init=nnx.initializers.zeros_init(),
                rngs=nnx.Rngs(0),
            )
            put(dense.kernel, matrix.reshape(self._sizes).transpose(np.argsort(equation.kernel_axes)))
            if bias is not None and dense.bias is not None:
                put(dense.bias, bias.reshape(dense.bias.shape))
        return dense

    def __call__(self, inputs: Array, *, out_sharding: Any = None) -> Array:
        """The einsum of inputs and kernel, plus the bias.

        Args:
            inputs: an array with the axes of the equation's first operand.
            out_sharding: as for `flax.nnx.Einsum`.

        Raises:
            ShapeError: the inputs have other axes.
            InputError: they are not an array, or complex.
        """
        check_inputs(inputs)
        equation = self.equation
        dims, features = equation.dims(self.kernel_shape)
        axes = equation.input_axes(inputs.ndim)
        rows = as_rows(inputs, axes, dims)
        leading = tuple(inputs.shape[axis] for axis in axes[: len(axes) - len(dims)])
        rows, bias, cores = self._promoted(rows)
        if self.frozen is not None:
            outputs = self.frozen.product(rows, bias)
        else:
            batch = rows.shape[0] if isinstance(rows.shape[0], int) else None
            # not by the method: nnx.tabulate compiles the methods that a forward pass calls, and a
            # plan is not an array
            plans = plans_for(self.shape, batch, rows.dtype.name, planner(), self.memory)
            outputs = apply(plans, rows, cores, bias)
        outputs = outputs.reshape(*leading, *features)
        outputs = jnp.transpose(outputs, equation.output_axes(outputs.ndim))
        return outputs if out_sharding is None else jax.sharding.reshard(outputs, out_sharding)


def as_rows(array: Array, axes: Sequence[int], dims: Sequence[int]) -> Array:
    """Rows ``(n, prod(dims))`` of an array whose axes are put in the order ``axes``.

    Raises:
        ShapeError: its last axes, in that order, have other sizes than ``dims``.
    """
    sizes = tuple(array.shape[axis] for axis in axes)
    count = len(sizes) - len(dims)
    if sizes[count:] != tuple(dims):
        raise ShapeError(
            f"inputs have the shape {array.shape}; expected {tuple(dims)} along axes {tuple(axes[count:])}"
        )
    return jnp.transpose(array, axes).reshape(-1, int(np.prod(dims)))


def einsum_of(dense: Any) -> MatrixEinsum:
    """The equation of an `flax.nnx.Einsum` or `flax.nnx.LinearGeneral`.

    Raises:
        InputError: it is neither, has a product of its own, or contracts axes counted from both
            ends.
        ShapeError: it is not a product with one matrix.
    """
    if isinstance(dense, nnx.Einsum):
        if dense.einsum_str is None:
            raise InputError("dense has no einsum_str; expected an equation that is known before the call")
        return MatrixEinsum.parse(dense.einsum_str)
    if not isinstance(dense, nnx.LinearGeneral):
        raise InputError(f"dense is a {type(dense).__name__}; expected a flax.nnx.Einsum or flax.nnx.LinearGeneral")
    if dense.batch_axis:
        raise InputError(f"dense has the batch_axis {dict(dense.batch_axis)}; expected one matrix, without batch axes")
    if len({axis < 0 for axis in dense.axis}) > 1:
        raise InputError(f"dense contracts the axes {dense.axis}; expected all counted from the same end")
    # axes in the order of the inputs, which is that of the kernel (LinearGeneral sorts them)
    axes = sorted(dense.axis)
    letters = "abcdefghijklmnopqrstuvwxyz"
    last = axes[0] < 0
    count = -axes[0] if last else axes[-1] + 1
    inputs, outputs = letters[:count], letters[count : count + len(dense.out_features)]
    rows = [inputs[axis] for axis in axes]
    kept = "".join(letter for letter in inputs if letter not in rows)
    dots = (f"...{inputs}", f"...{kept}") if last else (f"{inputs}...", f"{kept}...")
    return MatrixEinsum.parse(f"{dots[0]},{''.join(rows)}{outputs}->{dots[1]}{outputs}")
