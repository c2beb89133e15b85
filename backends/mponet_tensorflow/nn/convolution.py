"""`MPOConv1D`, `MPOConv2D`: convolutions whose kernel is a chain of cores."""

from collections.abc import Sequence
from math import prod
from typing import Any, Self

from numpy.typing import NDArray

from mponet.errors import InputError, ShapeError
from mponet.layers.conv_layer import ConvLayer, check_maps
from mponet.layers.conv_plan import ConvPlan, ConvStep, kernels, run
from mponet.layers.convolution import ConvShape
from mponet.layers.operator import DenseWeights
from mponet.layers.window import Window
from mponet_tensorflow.nn.calls import real
from mponet_tensorflow.nn.options import WeightOptions
from mponet_tensorflow.nn.parameters import ParameterAccess
from mponet_tensorflow.ops.arrays import OPS, Array, keras, tf, to_numpy

Sizes = int | Sequence[int]
_DENSE = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}


class _MPOConv(ParameterAccess, ConvLayer, keras.layers.Layer):
    """What `MPOConv1D` and `MPOConv2D` share."""

    _rank: int

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        bond: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        *,
        structure: str = "separable",
        sites: int | None = None,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
        initializer: str | float = "glorot",
        seed: int | None = None,
        memory: int | None = None,
        **kwargs: Any,
    ) -> None:
        options = WeightOptions.taken_from(kwargs)
        super().__init__(**kwargs)
        self._take(activation, use_bias, initializer, seed, memory, options)
        self.units = self.filters = filters
        self.kernel_size = (kernel_size,) * self._rank if isinstance(kernel_size, int) else tuple(kernel_size)
        if len(self.kernel_size) != self._rank:
            raise ShapeError(f"kernel_size is {kernel_size}; expected {self._rank} numbers, or one for all axes")
        self.bond = tuple(bond) if isinstance(bond, Sequence) else bond
        self.window = Window.of(self.kernel_size, strides, padding, dilation_rate)
        self.strides, self.dilation_rate = self.window.stride, self.window.dilation
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ShapeError(
                f"strides are {self.strides} and dilation_rate is {self.dilation_rate}; expected 1 for one of them, "
                "since TensorFlow has no convolution with both"
            )
        self.padding, self.data_format = padding, data_format or keras.config.image_data_format()
        self.groups, self.structure, self.sites = groups, structure, sites
        self.input_dims = None if input_dims is None else tuple(input_dims)
        self.output_dims = None if output_dims is None else tuple(output_dims)
        self._shape: ConvShape | None = None
        # sizes that are wrong whatever the inputs are refused here, not at the first call
        ConvShape.from_sizes(groups, filters, self.kernel_size, 1, groups=groups, structure=structure)

    @property
    def shape(self) -> ConvShape:  # type: ignore[override]
        """Sizes, structure, factors and bonds.

        Raises:
            ShapeError: they are not known before the layer is built.
        """
        if self._shape is None:
            raise ShapeError(f"{self.name} has no shape yet; expected a built layer; call it on maps first")
        return self._shape

    @property
    def kernel(self) -> Array:
        """The dense kernel ``(*kernel_size, channels / groups, filters)``.

        It is built each time it is read.

        It is differentiable in the cores; writing to it does not change them.
        """
        cores = [tf.convert_to_tensor(core) for core in self.cores]
        return kernels(ConvPlan(self.shape, (self.shape.sites,)), cores, OPS)[0]

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the weights for maps with so many channels."""
        channels = input_shape[self._channel_axis] if len(input_shape) == self._rank + 2 else None
        if channels is None:
            raise ShapeError(
                f"{self.name} is built for inputs {tuple(input_shape)}; expected {self._rank + 2} axes and a known "
                f"number of channels on axis {self._channel_axis}"
            )
        self._shape = self._shape_for(channels)
        self._make_parameters()

    @classmethod
    def _new(cls, shape: ConvShape, bias: bool, **options: Any) -> Self:
        mpo = shape.mpo
        layer = cls(
            shape.out_channels,
            shape.kernel_size,
            mpo.bond_dims[1:-1],
            groups=shape.groups,
            use_bias=bias,
            structure=shape.structure,
            input_dims=mpo.input_dims,
            output_dims=mpo.output_dims,
            **{"seed": 0, **options},
        )
        layer.build(layer._maps((None,) * cls._rank, shape.in_channels))
        return layer

    @classmethod
    def _dense_weights(cls, dense: Any) -> DenseWeights:
        wanted = _DENSE[cls._rank]
        if not isinstance(dense, wanted):
            raise InputError(f"conv is a {type(dense).__name__}; expected a keras.layers.{wanted.__name__}")
        if not dense.built:
            raise ShapeError(f"{dense.name} has no weights yet; expected a built layer; call it on maps first")
        names = ("name", "strides", "padding", "data_format", "dilation_rate", "groups", "activation")
        options = {name: getattr(dense, name) for name in names} | {"dtype": dense.dtype_policy}
        kernel = to_numpy(tf.convert_to_tensor(dense.kernel))  # merges LoRA
        bias = None if dense.bias is None else to_numpy(dense.bias)
        return DenseWeights(kernel, bias, options | WeightOptions.of_layer(dense))

    def _make_dense(self, matrix: NDArray[Any], bias: NDArray[Any] | None) -> Any:
        dense = _DENSE[self._rank](
            self.filters,
            self.kernel_size,
            self.strides,
            self.padding,
            self.data_format,
            self.dilation_rate,
            self.groups,
            self.activation,
            bias is not None,
            dtype=self.dtype_policy,
            name=self.name,
            activity_regularizer=self.activity_regularizer,
            **WeightOptions.of_layer(self.options),
        )
        dense.build(self._maps((None,) * self._rank, self.shape.in_channels))
        dense.trainable = self.trainable
        self._write(dense.kernel, matrix)
        if bias is not None:
            self._write(dense.bias, bias)
        return dense

    def call(self, inputs: Array) -> Array:
        """The convolution of maps, ``(batch, *sizes, channels)`` or as ``data_format`` says.

        Raises:
            ShapeError: the inputs have other channels or axes, or are smaller than the window.
            InputError: they are complex, or sparse or ragged.
        """
        check_maps(self.shape, tuple(inputs.shape), self._channel_axis - self._rank - 2, batched=True)
        maps = real(inputs, self.compute_dtype)
        last = self.data_format == "channels_last"
        maps = maps if last else tf.transpose(maps, (0, *range(2, self._rank + 2), 1))
        if self.frozen is not None:
            plan, merged = self.frozen.plans, self.frozen.weights(0, maps.dtype)
        else:
            cores = [tf.convert_to_tensor(core) for core in self.cores]
            plan = self.plans(tuple(maps.shape[:-1])).training
            merged = kernels(plan, cores, OPS)
        outputs = run(plan, self.window, merged, maps, _convolved)
        if self.bias is not None:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        outputs = outputs if last else tf.transpose(outputs, (0, self._rank + 1, *range(1, self._rank + 1)))
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Sizes of the maps as the window makes them, ``filters`` channels."""
        sizes = input_shape[1:-1] if self.data_format == "channels_last" else input_shape[2:]
        known = self.window.output_sizes([self._span(axis) if n is None else n for axis, n in enumerate(sizes)])
        outputs = tuple(None if n is None else made for n, made in zip(sizes, known, strict=True))
        return (input_shape[0], *self._maps(outputs, self.filters)[1:])

    def _take_shape(self, shape: ConvShape) -> None:
        mpo, self._shape = shape.mpo, shape
        self.input_dims, self.output_dims, self.bond = mpo.input_dims, mpo.output_dims, mpo.bond_dims[1:-1]

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        names = (
            *("filters", "kernel_size", "bond", "strides", "padding", "data_format", "dilation_rate", "groups"),
            *("structure", "sites", "input_dims", "output_dims"),
        )
        return {**super().get_config(), **{name: getattr(self, name) for name in names}, **self._own_config()}

    def __repr__(self) -> str:
        name = type(self).__name__
        if not self.built:
            return f"<{name} name={self.name}, filters={self.filters}, bond={self.bond}, built=False>"
        return f"<{name} name={self.name}, {self._description('use_bias')}, {self.window}>"

    @property
    def _fans(self) -> tuple[int, int]:
        *window, inputs, _ = self.shape.kernel_shape
        return prod(window) * inputs, prod(window) * self.filters

    @property
    def _channel_axis(self) -> int:
        return self._rank + 1 if self.data_format == "channels_last" else 1

    def _maps(self, sizes: tuple[int | None, ...], channels: int) -> tuple[int | None, ...]:
        """Shape of maps of an unknown number."""
        return (None, *sizes, channels) if self.data_format == "channels_last" else (None, channels, *sizes)

    def _span(self, axis: int) -> int:
        """A length that the window fits in."""
        return self.dilation_rate[axis] * (self.kernel_size[axis] - 1) + 1

    def _shape_for(self, channels: int) -> ConvShape:
        return ConvShape.from_sizes(
            channels,
            self.filters,
            self.kernel_size,
            self.bond,
            groups=self.groups,
            structure=self.structure,
            sites=self.sites,
            input_dims=self.input_dims,
            output_dims=self.output_dims,
        )


@keras.saving.register_keras_serializable(package="mponet")
class MPOConv1D(_MPOConv):
    """`keras.layers.Conv1D` with a kernel that is a chain of cores; arguments as for `MPOConv2D`.

    With one spatial axis ``separable`` is the matrix ``(k Cin) x Cout``, the same as ``kernel``.

    Example:
        >>> layer = MPOConv1D(16, 5, bond=4, padding="causal")
        >>> layer(tf.ones((2, 10, 8))).shape
        TensorShape([2, 10, 16])
    """

    _rank = 1


@keras.saving.register_keras_serializable(package="mponet")
class MPOConv2D(_MPOConv):
    """`keras.layers.Conv2D` with a kernel that is a chain of cores.

    As with `keras.layers.Conv2D` the number of channels is that of the first call, and the weights
    are made then.

    Attributes:
        filters: channels of the outputs.
        shape: sizes, structure, factors and bonds (`mponet.layers.convolution.ConvShape`).
        core1, core2, ...: one weight per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` gives all of
            them.
        bias: ``(filters,)`` or None.
        kernel: the dense kernel, built when it is asked for.

    Args:
        filters: as for `keras.layers.Conv2D`.
        kernel_size: as for `keras.layers.Conv2D`.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        strides: as for `keras.layers.Conv2D`.
        padding: as for `keras.layers.Conv2D`.
        data_format: as for `keras.layers.Conv2D`.
        dilation_rate: as for `keras.layers.Conv2D`.
        groups: as for `keras.layers.Conv2D`.
        activation: as for `keras.layers.Conv2D`.
        use_bias: whether to have a bias.
        structure: how the kernel is a matrix (`mponet.layers.convolution`): ``separable``,
            ``kernel``, ``channel`` or ``spatial``.
        sites: number of factors where they are chosen; None takes the smallest chain of the
            structure.
        input_dims: factors of the rows of the matrix; None chooses.
        output_dims: factors of the columns; None chooses.
        initializer: variance of the entries of the kernel, met exactly: ``glorot``, ``he``,
            ``lecun`` or a number.
        seed: seed of the starting values; None draws one, so `keras.utils.set_random_seed` governs.
        memory: bytes that states between steps may take; None for what ``MPONET_MEMORY`` says, else
            for a limit by the size of the layer.
        **kwargs: those of `keras.layers.Conv2D` (``kernel_initializer``, ``kernel_regularizer``,
            ... see `mponet_tensorflow.nn.options.WeightOptions`) and those of every
            `keras.layers.Layer`.

    Raises:
        ShapeError: sizes, factors and bonds do not fit together.

    Example:
        >>> layer = MPOConv2D(32, 3, bond=8, padding="same")
        >>> layer(tf.ones((1, 8, 8, 16))).shape
        TensorShape([1, 8, 8, 32])
    """

    _rank = 2


@tf.autograph.experimental.do_not_convert
def _convolved(state: Array, kernel: Array, step: ConvStep, window: Window) -> Array:
    """One step: the channels that are carried along are folded into the batch, and come back."""
    rank, carried, channels = state.shape.rank - 2, step.prefix * step.suffix, step.groups * step.inner
    if carried > 1:
        order = (0, rank + 1, rank + 3, *range(1, rank + 1), rank + 2)
        apart = _split(state, (step.prefix, channels, step.suffix))
        state = tf.reshape(tf.transpose(apart, order), (-1, *_sizes(state), channels))
    padding = "same" if window.padding == "same" else "valid"
    if padding == "valid" and any(map(any, window.padding)):
        state = tf.pad(state, ((0, 0), *window.padding, (0, 0)))
    result = keras.ops.conv(state, kernel, window.stride, padding, "channels_last", window.dilation)
    if carried > 1:
        sizes = _sizes(result)
        apart = tf.reshape(result, (-1, step.prefix, step.suffix, *sizes, step.rows))
        order = (0, *range(3, rank + 3), 1, rank + 3, 2)
        result = tf.reshape(tf.transpose(apart, order), (-1, *sizes, step.out_channels))
    return result


def _split(state: Array, parts: tuple[int, ...]) -> Array:
    """The last axis split."""
    return tf.reshape(state, (-1, *_sizes(state), *parts))


def _sizes(state: Array) -> list[Any]:
    """Sizes of the maps, in numbers where they are known."""
    found = tf.shape(state)
    return [found[axis] if size is None else size for axis, size in enumerate(state.shape)][1:-1]
