"""`ConvLayer`: a convolution whose kernel is a chain of cores."""

from collections.abc import Sequence
from math import prod
from typing import Any, Self

from mponet.errors import ShapeError
from mponet.layers.chain import ChainLayer
from mponet.layers.conv_choice import ConvPlanSet, conv_plans
from mponet.layers.convolution import ConvShape, from_kernel, kernel_of
from mponet.layers.fitting import fit_kernel
from mponet.layers.operator import Array
from mponet.layers.window import Window
from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape

#: ``(batch, *sizes)`` of the maps that a plan is for; None where it is not known.
Maps = tuple[int | None, ...]


class ConvLayer(ChainLayer):
    """The part of a layer that knows its operator is the kernel of a convolution.

    Attributes:
        shape: sizes, structure, factors and bonds (`mponet.layers.convolution.ConvShape`).
        window: strides, dilations and padding (`mponet.layers.window.Window`).
    """

    shape: ConvShape  # type: ignore[assignment]
    window: Window

    @property
    def chain_shape(self) -> MPOShape:
        """Factors and bonds of the matrix of the kernel."""
        return self.shape.mpo

    @property
    def _variance(self) -> str | float:
        return self.shape.variance(self.initializer)

    @classmethod
    def from_mpo(  # type: ignore[override]
        cls,
        mpo: MPO,
        bias: Any = None,
        *,
        kernel_size: int | Sequence[int],
        structure: str = "separable",
        groups: int = 1,
        **options: Any,
    ) -> Self:
        """The layer of an operator that is the matrix of a kernel.

        Args:
            mpo: the operator; rows and columns as ``structure`` says.
            bias: ``(out_channels,)``; None for a layer without.
            kernel_size: length of the window along each spatial axis.
            structure: a name of `mponet.layers.convolution.STRUCTURES`.
            groups: number of groups of channels.
            **options: further arguments of the layer, such as its strides, padding and dtype.

        Raises:
            ShapeError: the operator is not the matrix of such a kernel, or the bias has another
                shape.
        """
        shape = ConvShape.from_mpo(mpo.shape, kernel_size, structure=structure, groups=groups)
        layer = cls._new(shape, bias is not None, **options)
        layer.assign(mpo, bias)
        return layer

    @classmethod
    def from_kernel(
        cls,
        kernel: Any,
        bias: Any = None,
        *,
        structure: str = "separable",
        groups: int = 1,
        sites: int | None = None,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
        max_bond: int | Sequence[int] | None = None,
        relative_error: float = 0.0,
        inputs: Any = None,
        covariance: Any = None,
        **options: Any,
    ) -> Self:
        """The layer nearest to a convolution with ``kernel``.

        With ``inputs`` or ``covariance`` the outputs on these patches are what is near.

        Args:
            kernel: ``(*kernel_size, in_channels / groups, out_channels)``: HWIO.
            bias: ``(out_channels,)``; None for a layer without.
            structure: a name of `mponet.layers.convolution.STRUCTURES`.
            groups: number of groups of channels.
            sites: number of factors where they are chosen; None takes the smallest chain.
            input_dims: factors of the rows of the matrix; None chooses.
            output_dims: factors of the columns; None chooses.
            max_bond: largest bond, one for all or one for each inner bond; None for no limit.
            relative_error: largest Frobenius error, relative to the norm of the kernel; with inputs
                or their covariance that of the outputs.
            inputs: patches that the kernel is multiplied with, ``(..., kernel_size * channels)``
                in the order of HWIO; a bias then takes up the mean error.
            covariance: ``sum x^T x`` over patches; instead of them.
            **options: further arguments of the layer, such as its strides, padding and dtype.

        Raises:
            ShapeError: factors do not multiply to the sizes, or the bias has another shape.
        """
        numbers = cls._to_numpy(kernel)
        *window, channels, outputs = numbers.shape
        shape = ConvShape.from_sizes(
            channels * groups,
            outputs,
            window,
            1,
            groups=groups,
            structure=structure,
            sites=sites,
            input_dims=input_dims,
            output_dims=output_dims,
        )
        limits: dict[str, Any] = {"max_bond": max_bond, "relative_error": relative_error}
        seen = cls._statistics(inputs, covariance, prod(window) * channels, has_bias=bias is not None)
        if seen is None:
            mpo = from_kernel(numbers, shape, **limits).mpo
        else:
            mpo = fit_kernel(numbers, shape, seen.metric, **limits)
            made = ConvShape.from_mpo(mpo.shape, shape.kernel_size, structure=structure)
            rest = numbers - kernel_of(made, mpo)
            bias = None if bias is None else seen.corrected(cls._to_numpy(bias), rest.reshape(-1, rest.shape[-1]))
        return cls.from_mpo(mpo, bias, kernel_size=shape.kernel_size, structure=structure, groups=groups, **options)

    @classmethod
    def from_conv(cls, conv: Any, **options: Any) -> Self:
        """The layer nearest to a trained convolution, on its device and in its dtype.

        Args:
            conv: the framework's own layer.
            **options: as for `from_kernel`: ``structure``, ``sites``, ``max_bond``,
                ``relative_error``, ...; further arguments of the layer override what ``conv`` says.

        Raises:
            ShapeError: factors do not multiply to the sizes, or ``conv`` has no weights yet.
            InputError: ``conv`` is not a convolution that the layer can stand in for.
        """
        weights = cls._dense_weights(conv)
        with weights.place:
            layer = cls.from_kernel(weights.matrix, weights.bias, **{**weights.options, **options})
        layer._adopt(conv)
        return layer

    @classmethod
    def from_dense(cls, dense: Any, **options: Any) -> Self:
        """`from_conv`, under the name that all layers have."""
        return cls.from_conv(dense, **options)

    def to_kernel(self) -> Array:
        """The kernel ``(*kernel_size, in_channels / groups, out_channels)``, float64 numpy."""
        return self.shape.to_kernel(self.to_matrix())

    def to_dense(self) -> Any:
        """The framework's convolution with the same kernel, bias, device and dtype."""
        bias = None if self.bias is None else self._to_numpy(self.bias)
        return self._make_dense(self.to_kernel(), bias)

    def explain(self, batch: int | None = None, sizes: Sequence[int] | None = None) -> str:
        """The plan in use for a training step on maps of these sizes, and what else was considered.

        Args:
            batch: number of maps; None for a default.
            sizes: sizes of the maps; None for a default.
        """
        known = (None,) * self.shape.rank if sizes is None else tuple(sizes)
        return self.plans((batch, *known)).explain("training")

    def plans(self, batch: Maps | int | None) -> ConvPlanSet:  # type: ignore[override]
        """The plans in use for maps ``(batch, *sizes)``; None for what is not known."""
        maps = batch if isinstance(batch, tuple) else (batch, *(None,) * self.shape.rank)
        return conv_plans(self.shape, self.window, maps[0], maps[1:], *self._planning(), self.memory)

    def _plan_in_use(self) -> str:
        plans = self.plans(None)
        sizes = "x".join(map(str, plans.request.sizes))
        return f"{plans.training} ({plans.request.batch} maps of {sizes})"


def check_maps(shape: ConvShape, input_shape: Sequence[int | None], channel_axis: int, batched: bool) -> None:
    """Refuse inputs that are not feature maps of the layer.

    Args:
        shape: the convolution.
        input_shape: shape of the inputs.
        channel_axis: axis of the channels, from the end.
        batched: whether there must be one axis of the batch; otherwise any number of them will do.

    Raises:
        ShapeError: too few axes, or another number of channels.
    """
    count = len(input_shape)
    few = count != shape.rank + 2 if batched else count <= shape.rank
    if few or input_shape[channel_axis] not in (None, shape.in_channels):
        raise ShapeError(
            f"inputs have the shape {tuple(input_shape)}; expected {shape.rank} spatial axes and {shape.in_channels} "
            f"channels on axis {channel_axis} for {shape}"
        )
