"""`MPOConv`: a convolution whose kernel is a chain of cores."""

from collections.abc import Sequence
from math import prod
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from numpy.typing import NDArray

from mponet.errors import InputError
from mponet.layers.conv_choice import conv_plans
from mponet.layers.conv_layer import ConvLayer, check_maps
from mponet.layers.conv_plan import ConvPlan, ConvStep, kernels, run
from mponet.layers.convolution import ConvShape
from mponet.layers.operator import DenseWeights
from mponet.layers.window import NUMPY_MODES, Window
from mponet_jax.nn.calls import check_inputs
from mponet_jax.nn.parameters import ParameterAccess, put
from mponet_jax.ops.arrays import OPS, PRECISION, Array, to_numpy
from mponet_jax.ops.planning import planner

Sizes = int | Sequence[int]


class MPOConv(ParameterAccess, ConvLayer, nnx.Module):
    """`flax.nnx.Conv` with a kernel that is a chain of cores.

    One or two spatial axes, as ``kernel_size`` says.

    Attributes:
        shape: sizes, structure, factors and bonds (`mponet.layers.convolution.ConvShape`).
        core1, core2, ...: one parameter per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` gives all
            of them.
        bias: ``(out_features,)`` or None.
        kernel: the dense kernel, built when it is asked for.

    Args:
        in_features: as for `flax.nnx.Conv`.
        out_features: as for `flax.nnx.Conv`.
        kernel_size: as for `flax.nnx.Conv`.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        strides: as for `flax.nnx.Conv`.
        padding: as for `flax.nnx.Conv`.
        kernel_dilation: as for `flax.nnx.Conv`.
        feature_group_count: as for `flax.nnx.Conv`.
        use_bias: whether to have a bias.
        structure: how the kernel is a matrix (`mponet.layers.convolution`): ``separable``,
            ``kernel``, ``channel`` or ``spatial``.
        sites: number of factors where they are chosen; None takes the smallest chain of the
            structure.
        input_dims: factors of the rows of the matrix; None chooses.
        output_dims: factors of the columns; None chooses.
        initializer: variance of the entries of the kernel, met exactly: ``glorot``, ``he``,
            ``lecun`` or a number.
        dtype: as for `flax.nnx.Conv`.
        param_dtype: dtype of the parameters; None for float32, or ``dtype`` where that is wider.
        memory: bytes that states between steps may take; None for what ``MPONET_MEMORY`` says, else
            for a limit by the size of the layer.
        rngs: its ``params`` stream gives the seed of the starting values.

    Raises:
        ShapeError: sizes, factors and bonds do not fit together.
        BackendError: a dtype is float64, which JAX has switched off.

    Example:
        >>> layer = MPOConv(16, 32, (3, 3), bond=8, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((1, 8, 8, 16))).shape
        (1, 8, 8, 32)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Sizes,
        bond: Sizes,
        strides: Sizes | None = 1,
        *,
        padding: str | int | Sequence[int | Sequence[int]] = "SAME",
        kernel_dilation: Sizes | None = 1,
        feature_group_count: int = 1,
        use_bias: bool = True,
        structure: str = "separable",
        sites: int | None = None,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
        initializer: str | float = "glorot",
        dtype: Any = None,
        param_dtype: Any = None,
        memory: int | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.shape = ConvShape.from_sizes(
            in_features,
            out_features,
            kernel_size,
            bond,
            groups=feature_group_count,
            structure=structure,
            sites=sites,
            input_dims=input_dims,
            output_dims=output_dims,
        )
        self.window = window_of(self.shape.kernel_size, strides, padding, kernel_dilation)
        self.padding = padding if isinstance(padding, str) else self.window.padding
        self.initializer, self.memory = initializer, memory
        self._make_parameters(use_bias, dtype, param_dtype, rngs)

    @property
    def kernel(self) -> Array:
        """The dense kernel ``(*kernel_size, in_features / groups, out_features)``.

        It is built each time it is read.

        It is differentiable in the cores; writing to it does not change them.
        """
        cores = [core[...] for core in self.cores]
        kernel: Array = kernels(ConvPlan(self.shape, (self.shape.sites,)), cores, OPS)[0]
        return kernel

    @classmethod
    def _new(cls, shape: ConvShape, bias: bool, **options: Any) -> Self:
        mpo = shape.mpo
        return cls(
            shape.in_channels,
            shape.out_channels,
            shape.kernel_size,
            mpo.bond_dims[1:-1],
            feature_group_count=shape.groups,
            use_bias=bias,
            structure=shape.structure,
            input_dims=mpo.input_dims,
            output_dims=mpo.output_dims,
            **{"rngs": nnx.Rngs(0), **options},
        )

    @classmethod
    def _dense_weights(cls, dense: Any) -> DenseWeights:
        if not isinstance(dense, nnx.Conv):
            raise InputError(f"conv is a {type(dense).__name__}; expected a flax.nnx.Conv")
        if dense.mask is not None or _any_above_one(dense.input_dilation):
            raise InputError("conv has a mask or an input_dilation; expected neither")
        kernel = dense.kernel[...]
        options = {
            "strides": dense.strides,
            "padding": dense.padding,
            "kernel_dilation": dense.kernel_dilation,
            "groups": dense.feature_group_count,
            "dtype": dense.dtype,
            "param_dtype": kernel.dtype,
        }
        bias = None if dense.bias is None else to_numpy(dense.bias[...])
        return DenseWeights(to_numpy(kernel), bias, options, jax.default_device(next(iter(kernel.devices()))))

    def _make_dense(self, matrix: NDArray[Any], bias: NDArray[Any] | None) -> Any:
        first, window = self.tensors[0][...], self.window
        with jax.default_device(next(iter(first.devices()))):
            dense = nnx.Conv(
                self.in_features,
                self.out_features,
                self.shape.kernel_size,
                window.stride,
                padding=self.padding,
                kernel_dilation=window.dilation,
                feature_group_count=self.shape.groups,
                use_bias=bias is not None,
                dtype=self.dtype,
                param_dtype=first.dtype,
                precision=PRECISION,
                kernel_init=nnx.initializers.zeros_init(),
                rngs=nnx.Rngs(0),
            )
            put(dense.kernel, matrix)
            if bias is not None and dense.bias is not None:
                put(dense.bias, bias)
        return dense

    def __call__(self, inputs: Array) -> Array:
        """The convolution of maps ``(..., *sizes, in_features)``, with any leading dimensions.

        Raises:
            ShapeError: the inputs have other channels or too few axes, or are smaller than the
                window.
            InputError: the inputs are not an array, or complex.
        """
        rank, window = self.shape.rank, self.window
        check_inputs(inputs)
        check_maps(self.shape, inputs.shape, -1, batched=False)
        leading = inputs.shape[: -1 - rank]
        inputs, bias, cores = self._promoted(inputs)
        maps = inputs.reshape(prod(leading), *inputs.shape[-1 - rank :])
        batch, *sizes = (size if isinstance(size, int) else None for size in maps.shape[:-1])
        # Not by the method: nnx.tabulate compiles the methods that a forward pass calls, and a plan
        # is not an array.  Tracing does not tell what will be differentiated, so the plan is that
        # of training.
        if self.frozen is not None:
            plan, merged = self.frozen.plans, self.frozen.weights(0, maps.dtype)
        else:
            known = window, batch, tuple(sizes), maps.dtype.name
            plan = conv_plans(self.shape, *known, planner(), self.memory).training
            merged = kernels(plan, cores, OPS)
        if window.mode != "zeros":
            pads = ((0, 0), *window.pads(maps.shape[1:-1]), (0, 0))
            maps, window = jnp.pad(maps, pads, NUMPY_MODES[window.mode]), window.unpadded
        outputs: Array = run(plan, window, merged, maps, _convolved)
        outputs = outputs if bias is None else outputs + bias.reshape(*(1 for _ in range(rank + 1)), -1)
        return outputs.reshape(*leading, *outputs.shape[1:])


def _convolved(state: Array, kernel: Array, step: ConvStep, window: Window) -> Array:
    """One step: the channels that are carried along are folded into the batch, and come back."""
    batch, *sizes, _ = state.shape
    rank, carried = len(sizes), step.prefix * step.suffix
    channels = step.groups * step.inner
    if carried > 1:
        apart = state.reshape(batch, *sizes, step.prefix, channels, step.suffix)
        state = jnp.moveaxis(apart, (rank + 1, rank + 3), (1, 2)).reshape(batch * carried, *sizes, channels)
    result = lax.conv_general_dilated(
        state,
        kernel,
        window.stride,
        "SAME" if window.padding == "same" else window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=lax.ConvDimensionNumbers(
            (0, rank + 1, *range(1, rank + 1)), (rank + 1, rank, *range(rank)), (0, rank + 1, *range(1, rank + 1))
        ),
        feature_group_count=step.groups,
        precision=PRECISION,
    )
    if carried > 1:
        sizes = list(result.shape[1:-1])
        apart = result.reshape(batch, step.prefix, step.suffix, *sizes, step.rows)
        result = jnp.moveaxis(apart, (1, 2), (rank + 1, rank + 3)).reshape(batch, *sizes, step.out_channels)
    return result


def window_of(size: tuple[int, ...], strides: Sizes | None, padding: Any, dilation: Sizes | None) -> Window:
    """The window by the names of paddings that nnx has."""
    name = padding.upper() if isinstance(padding, str) else ""
    if name not in ("CIRCULAR", "REFLECT"):
        return Window.of(size, strides, padding, dilation)
    same = Window.of(size, 1, "same", dilation)
    return Window.of(size, strides, same.padding, dilation, name.lower())  # type: ignore[arg-type]


def _any_above_one(numbers: Sizes | None) -> bool:
    return max((numbers,) if isinstance(numbers, int) else numbers or (1,)) > 1
