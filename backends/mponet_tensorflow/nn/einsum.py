"""`MPOEinsumDense`: an einsum whose kernel is a matrix product operator."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mponet.contraction import execute
from mponet.errors import InputError, ShapeError
from mponet.layers.chain import ChainLayer
from mponet.layers.einsum import ELLIPSIS, MatrixEinsum
from mponet.layers.operator import DenseWeights
from mponet.layers.sizes import layer_sizes
from mponet.operators.shape import MPOShape
from mponet_tensorflow.nn.calls import real
from mponet_tensorflow.nn.options import WeightOptions
from mponet_tensorflow.nn.parameters import ParameterAccess
from mponet_tensorflow.ops.arrays import OPS, Array, keras, tf, to_numpy
from mponet_tensorflow.ops.contraction import apply


@keras.saving.register_keras_serializable(package="mponet")
class MPOEinsumDense(ParameterAccess, ChainLayer, keras.layers.Layer):
    """`keras.layers.EinsumDense` with a kernel that is a matrix product operator.

    The equation must be a product with one matrix (`mponet.layers.einsum.MatrixEinsum`), as those
    of attention are.

    Attributes:
        shape: factors and bonds of the matrix (`mponet.MPOShape`).
        equation: the equation.
        kernel_shape: shape of the dense kernel.
        core1, core2, ...: one weight per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` gives all of
            them.
        bias: ``(out_features,)``, added to the features in the order of the outputs, or None.

    Args:
        equation: as for `keras.layers.EinsumDense`.
        kernel_shape: sizes of the subscripts of the kernel.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        activation: as for `keras.layers.EinsumDense`.
        use_bias: whether to have a bias, one number for each feature.
        input_dims: factors of the rows of the matrix; None chooses.
        output_dims: factors of the columns; None chooses.
        sites: number of factors where they are chosen; None chooses.
        initializer: variance of the entries of the kernel, met exactly: ``glorot``, ``he``,
            ``lecun`` or a number.
        seed: seed of the starting values; None draws one, so `keras.utils.set_random_seed` governs.
        memory: bytes that a pass may take beside inputs, outputs and their gradients; None for what
            ``MPONET_MEMORY`` says, else for a limit by the size of the layer.
        **kwargs: those of `keras.layers.EinsumDense` (``kernel_initializer``,
            ``kernel_regularizer``, ... see `mponet_tensorflow.nn.options.WeightOptions`) and those
            of every `keras.layers.Layer`.

    Raises:
        ShapeError: the equation is not a product with one matrix, or sizes, factors and bonds do
            not fit together.

    Warns:
        SizeWarning: the operator has more weights than the dense layer.

    Example:
        >>> layer = MPOEinsumDense("btd,dhm->bthm", (16, 4, 4), bond=4)
        >>> layer(tf.ones((2, 5, 16))).shape
        TensorShape([2, 5, 4, 4])
    """

    def __init__(
        self,
        equation: str,
        kernel_shape: Sequence[int],
        bond: int | Sequence[int],
        *,
        activation: Any = None,
        use_bias: bool = False,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
        sites: int | None = None,
        initializer: str | float = "glorot",
        seed: int | None = None,
        memory: int | None = None,
        **kwargs: Any,
    ) -> None:
        options = WeightOptions.taken_from(kwargs)
        super().__init__(**kwargs)
        self._take(activation, use_bias, initializer, seed, memory, options)
        self.equation, self.kernel_shape = equation, tuple(kernel_shape)
        inputs, outputs = self.einsum.matrix_shape(self.kernel_shape)
        self.shape = layer_sizes(input_dims or inputs, output_dims or outputs, bond, sites, (0, 0)).shape
        if (self.shape.in_features, self.shape.out_features) != (inputs, outputs):
            raise ShapeError(f"factors are those of {self.shape}; expected a matrix of {inputs} x {outputs}")
        self.units = outputs

    def build(self, input_shape: Sequence[int | None] | None = None) -> None:
        """Make the weights, which do not depend on the inputs."""
        self._make_parameters()

    @property
    def einsum(self) -> MatrixEinsum:
        """The equation, read."""
        return MatrixEinsum.parse(self.equation)

    @property
    def kernel(self) -> Array:
        """The dense kernel, built when it is asked for.

        It is differentiable in the cores; writing to it does not change them.
        """
        cores = [tf.convert_to_tensor(core) for core in self.cores]
        matrix = execute.dense_matrix(self.dense_plan, cores, OPS)
        rows, columns = self.einsum.dims(self.kernel_shape)
        return tf.transpose(tf.reshape(matrix, rows + columns), np.argsort(self.einsum.kernel_axes))

    @classmethod
    def _new(cls, shape: MPOShape, bias: bool, **options: Any) -> Self:
        dims: dict[str, Any] = {"input_dims": shape.input_dims, "output_dims": shape.output_dims}
        layer = cls(bond=shape.bond_dims[1:-1], use_bias=bias, **{"seed": 0, **dims, **options})
        layer.build()
        return layer

    @classmethod
    def _dense_weights(cls, dense: Any) -> DenseWeights:
        if not isinstance(dense, keras.layers.EinsumDense):
            raise InputError(f"dense is a {type(dense).__name__}; expected a keras.layers.EinsumDense")
        if not dense.built:
            raise ShapeError(f"{dense.name} has no weights yet; expected a built layer; call it first")
        if dense.quantization_mode is not None:
            raise InputError(f"{dense.name} is quantised to {dense.quantization_mode}; expected float weights")
        equation = MatrixEinsum.parse(dense.equation)
        kernel = to_numpy(tf.convert_to_tensor(dense.kernel))  # merges LoRA
        matrix = kernel.transpose(equation.kernel_axes).reshape(equation.matrix_shape(kernel.shape))
        options = {
            "equation": dense.equation,
            "kernel_shape": kernel.shape,
            "name": dense.name,
            "activation": dense.activation,
            "dtype": dense.dtype_policy,
        }
        return DenseWeights(matrix, bias_of(dense), options | WeightOptions.of_layer(dense))

    def _make_dense(self, matrix: NDArray[Any], bias: NDArray[Any] | None) -> Any:
        einsum = self.einsum
        rows, columns = einsum.dims(self.kernel_shape)
        sizes = dict(zip((*einsum.contracted, *einsum.features), (*rows, *columns), strict=True))
        outputs = einsum.outputs if einsum.outputs[0] == ELLIPSIS else einsum.outputs[1:]  # without the batch
        dense = keras.layers.EinsumDense(
            self.equation,
            [sizes.get(token) for token in outputs if token != ELLIPSIS],
            self.activation,
            None if bias is None else "".join(einsum.features),
            dtype=self.dtype_policy,
            name=self.name,
            activity_regularizer=self.activity_regularizer,
            **WeightOptions.of_layer(self.options),
        )
        dense.build([sizes.get(token) for token in einsum.inputs])
        if ELLIPSIS in einsum.inputs:
            dense.input_spec = None  # the number of leading axes is not known here
        dense.trainable = self.trainable
        self._write(dense._kernel, matrix.reshape(rows + columns).transpose(np.argsort(einsum.kernel_axes)))
        if bias is not None:
            self._write(dense.bias, bias.reshape(dense.bias.shape))
        return dense

    def call(self, inputs: Array, training: bool | None = None) -> Array:
        """``activation(einsum(equation, inputs, kernel) + bias)``.

        Raises:
            ShapeError: the inputs have other axes.
            InputError: they are complex, or sparse or ragged.
        """
        einsum = self.einsum
        inputs = real(inputs, self.compute_dtype)
        rows, leading = as_rows(inputs, einsum.input_axes(inputs.shape.rank), einsum.dims(self.kernel_shape)[0])
        if self.frozen is not None:
            outputs = self.frozen.product(rows, self.bias)
        else:
            outputs = apply(self.plans(rows.shape[0]), rows, self.cores, self.bias, training=training)
        outputs = tf.reshape(outputs, (*leading, *einsum.dims(self.kernel_shape)[1]))
        return self.activation(tf.transpose(outputs, einsum.output_axes(outputs.shape.rank)))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """The sizes that the equation gives."""
        einsum = self.einsum
        rows, features = einsum.dims(self.kernel_shape)
        axes = einsum.input_axes(len(input_shape))
        sizes = (*(input_shape[axis] for axis in axes[: len(axes) - len(rows)]), *features)
        return tuple(sizes[axis] for axis in einsum.output_axes(len(sizes)))

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        sizes = {
            "equation": self.equation,
            "kernel_shape": self.kernel_shape,
            "bond": self.shape.bond_dims[1:-1],
            "input_dims": self.shape.input_dims,
            "output_dims": self.shape.output_dims,
        }
        return {**super().get_config(), **sizes, **self._own_config()}

    def __repr__(self) -> str:
        if not self.built:
            return f"<MPOEinsumDense name={self.name}, {self.equation}, {self.shape}, built=False>"
        return f"<MPOEinsumDense name={self.name}, {self.equation}, {self._description('use_bias')}>"


def as_rows(array: Array, axes: Sequence[int], dims: Sequence[int]) -> tuple[Array, tuple[Any, ...]]:
    """Rows ``(n, prod(dims))`` of an array whose axes are put in the order ``axes``.

    Returns:
        The rows, and the sizes of the other axes, as tensors where they are not known.

    Raises:
        ShapeError: its last axes, in that order, have other sizes than ``dims``.
    """
    moved = tf.transpose(array, axes)
    count = len(axes) - len(dims)
    if not moved.shape[count:].is_compatible_with(dims):
        raise ShapeError(
            f"inputs have the shape {array.shape}; expected {tuple(dims)} along axes {tuple(axes[count:])}"
        )
    moved = tf.ensure_shape(moved, [*moved.shape[:count], *dims])
    sizes = tf.shape(moved)
    leading = tuple(sizes[axis] if size is None else size for axis, size in enumerate(moved.shape[:count]))
    known = moved.shape[:count].num_elements()
    return tf.reshape(moved, (-1 if known is None else known, int(np.prod(dims)))), leading


def bias_of(dense: Any) -> NDArray[Any] | None:
    """The bias of a `keras.layers.EinsumDense`, a number for each feature; None if it has none.

    Raises:
        InputError: it differs along an axis that the kernel does not give.
    """
    if dense.bias is None:
        return None
    equation = MatrixEinsum.parse(dense.equation)
    if unknown := sorted(set(dense.bias_axes) - set(equation.features)):
        raise InputError(f"{dense.name} has a bias along {unknown[0]}; expected axes of the kernel in {dense.equation}")
    sizes = equation.dims(dense.kernel.shape)[1]
    has = [size if token in dense.bias_axes else 1 for token, size in zip(equation.features, sizes, strict=True)]
    return np.broadcast_to(to_numpy(dense.bias).reshape(has), sizes).reshape(-1)
