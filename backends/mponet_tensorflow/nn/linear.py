"""`MPODense`: a dense layer whose kernel is a matrix product operator."""

from collections.abc import Sequence
from math import prod
from typing import Any, Self

from mponet.errors import ShapeError
from mponet.layers.chain import ChainLayer
from mponet.layers.sizes import chain_shape
from mponet.operators.shape import MPOShape
from mponet_tensorflow.nn.options import WeightOptions
from mponet_tensorflow.nn.parameters import ParameterAccess, as_leading, as_rows, real
from mponet_tensorflow.ops.arrays import Array, keras
from mponet_tensorflow.ops.contraction import apply

Size = int | Sequence[int]


@keras.saving.register_keras_serializable(package="mponet")
class MPODense(ParameterAccess, ChainLayer, keras.layers.Layer):
    """``y = activation(x @ W + b)`` with ``W`` a matrix product operator.

    Takes and gives any leading dimensions.

    As with `keras.layers.Dense` the number of inputs is that of the first call, and the weights are
    made then.

    Attributes:
        units: number of outputs.
        shape: factors and bonds (`mponet.MPOShape`).
        core1, core2, ...: one weight per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` gives all of
            them.
        bias: ``(units,)`` or None.

    Args:
        units: number of outputs, or its factors.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        activation: as for `keras.layers.Dense`.
        use_bias: whether to have a bias.
        sites: number of factors where only sizes are given; None chooses.
        input_dims: factors of the number of inputs; None chooses.
        initializer: variance of the entries of ``W``, met exactly: ``glorot``, ``he``, ``lecun`` or
            a number.
        seed: seed of the starting values; None draws one, so `keras.utils.set_random_seed` governs.
        **kwargs: those of `keras.layers.Dense` (``kernel_initializer``, ``kernel_regularizer``,
            ``kernel_constraint``, ... see `mponet_tensorflow.nn.options.WeightOptions`) and those
            of every `keras.layers.Layer` (``name``, ``dtype``, ...).

    Raises:
        ShapeError: sizes, factors and bonds do not fit together.
    """

    def __init__(
        self,
        units: Size,
        bond: Size,
        *,
        activation: Any = None,
        use_bias: bool = True,
        sites: int | None = None,
        input_dims: Sequence[int] | None = None,
        initializer: str | float = "glorot",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        options = WeightOptions.taken_from(kwargs)
        super().__init__(**kwargs)
        self._take(activation, use_bias, initializer, seed, options)
        # sizes that are wrong whatever the inputs are refused here, not at the first call
        self.units = MPOShape.from_sizes(1 if input_dims is None else input_dims, units, 1, sites).out_features
        self.output_dims = tuple(units) if isinstance(units, Sequence) else None
        self.bond = tuple(bond) if isinstance(bond, Sequence) else bond
        self.sites = sites
        self.input_dims = None if input_dims is None else tuple(input_dims)
        self._shape = None if input_dims is None else self._shape_for(prod(input_dims))

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the weights for inputs ``(..., features)``."""
        features = input_shape[-1] if len(input_shape) else None
        if features is None:
            raise ShapeError(f"{self.name} is built for inputs {tuple(input_shape)}; expected a known last dimension")
        self._shape = self._shape_for(features)
        self._make_parameters()

    @property
    def shape(self) -> MPOShape:
        """Factors and bonds.

        Raises:
            ShapeError: they are not known before the layer is built.
        """
        if self._shape is None:
            raise ShapeError(f"{self.name} has no shape yet; expected a built layer; call it, or build((None, inputs))")
        return self._shape

    @classmethod
    def _new(cls, shape: MPOShape, bias: bool, **options: Any) -> Self:
        options = {"seed": 0, **options}
        layer = cls(shape.output_dims, shape.bond_dims[1:-1], input_dims=shape.input_dims, use_bias=bias, **options)
        layer.build((None, shape.in_features))
        return layer

    def call(self, inputs: Array, training: bool | None = None) -> Array:
        """``activation(inputs @ W + b)``, ``(..., inputs)`` to ``(..., units)``.

        Raises:
            ShapeError: the last dimension is not the number of inputs.
        """
        inputs = real(inputs, self.compute_dtype)
        rows = as_rows(inputs, self.shape)
        outputs = apply(self.plans(rows.shape[0]), rows, self.cores, self.bias, training=training)
        return self.activation(as_leading(outputs, inputs))

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        units = self.units if self.output_dims is None else self.output_dims
        sizes = {"units": units, "bond": self.bond, "sites": self.sites, "input_dims": self.input_dims}
        return {**super().get_config(), **sizes, **self._own_config()}

    def __repr__(self) -> str:
        if not self.built:
            return f"<MPODense name={self.name}, units={self.units}, bond={self.bond}, built=False>"
        return f"<MPODense name={self.name}, {self._description('use_bias')}>"

    def _shape_for(self, features: int) -> MPOShape:
        inputs = features if self.input_dims is None else self.input_dims
        outputs = self.units if self.output_dims is None else self.output_dims
        shape = chain_shape(inputs, outputs, self.bond, self.sites)
        if shape.in_features != features:
            raise ShapeError(f"{self.name} is built for {features} inputs; expected {shape.in_features} for {shape}")
        return shape
