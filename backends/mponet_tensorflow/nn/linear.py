"""`MPODense`: a dense layer whose kernel is a matrix product operator."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from mponet.errors import ShapeError
from mponet.layers.linear import LinearLayer
from mponet.layers.sizes import Size, choose_sizes, layer_sizes
from mponet.operators.padding import Objective, PaddedShape
from mponet.operators.shape import MPOShape
from mponet_tensorflow.nn.calls import linear
from mponet_tensorflow.nn.options import WeightOptions
from mponet_tensorflow.nn.parameters import ParameterAccess
from mponet_tensorflow.ops.arrays import Array, keras


@keras.saving.register_keras_serializable(package="mponet")
class MPODense(ParameterAccess, LinearLayer, keras.layers.Layer):
    """``y = activation(x @ W + b)`` with ``W`` a matrix product operator.

    Takes and gives any leading dimensions.

    As with `keras.layers.Dense` the number of inputs is that of the first call, and the weights are
    made then.

    Attributes:
        units: number of outputs.
        shape: factors and bonds of the operator (`mponet.MPOShape`).
        padding: how many zeros are appended to the inputs and dropped from the outputs.
        core1, core2, ...: one weight per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` gives all of
            them.
        bias: ``(units,)`` or None.

    Args:
        units: number of outputs, or factors of that number and the padding.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        activation: as for `keras.layers.Dense`.
        use_bias: whether to have a bias.
        sites: number of factors where only sizes are given; None chooses.
        input_dims: factors of the number of inputs and the padding; None chooses.
        padding: how many zeros are appended to the inputs and dropped from the outputs; None
            chooses for sizes that factor badly, and pads no factors that are given.
        objective: what factors of sizes make small: ``balance``, ``parameters`` or
            ``multiplications`` (see `mponet.choose_factors`).
        initializer: variance of the entries of ``W``, met exactly: ``glorot``, ``he``, ``lecun`` or
            a number.
        seed: seed of the starting values; None draws one, so `keras.utils.set_random_seed` governs.
        memory: bytes that a pass may take beside inputs, outputs and their gradients; None for what
            ``MPONET_MEMORY`` says, else for a limit by the size of the layer.
        **kwargs: those of `keras.layers.Dense` (``kernel_initializer``, ``kernel_regularizer``,
            ``kernel_constraint``, ... see `mponet_tensorflow.nn.options.WeightOptions`) and those
            of every `keras.layers.Layer` (``name``, ``dtype``, ...).

    Raises:
        ShapeError: sizes, factors, bonds and padding do not fit together.

    Warns:
        SizeWarning: the operator has more weights than the dense layer.

    Example:
        >>> import numpy as np
        >>> layer = MPODense(113, bond=8)
        >>> layer(np.ones((2, 127), "float32")).shape
        TensorShape([2, 113])
        >>> layer.shape, layer.padding
        (MPOShape(input_dims=(13, 10), output_dims=(13, 9), bond_dims=(1, 8, 1)), (3, 4))
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
        padding: Sequence[int] | None = None,
        objective: Objective = "balance",
        initializer: str | float = "glorot",
        seed: int | None = None,
        memory: int | None = None,
        **kwargs: Any,
    ) -> None:
        options = WeightOptions.taken_from(kwargs)
        super().__init__(**kwargs)
        self._take(activation, use_bias, initializer, seed, memory, options)
        self.output_dims = tuple(units) if isinstance(units, Sequence) else None
        self.bond = tuple(bond) if isinstance(bond, Sequence) else bond
        self.sites = sites
        self.input_dims = None if input_dims is None else tuple(input_dims)
        self._padding, self.objective = None if padding is None else tuple(padding), objective
        # sizes that are wrong whatever the inputs are refused here, not at the first call
        known = choose_sizes(input_dims or 1, units, 1, sites, padding, objective)
        self.units = known.out_features
        self._sizes = None if input_dims is None else self._sizes_for(known.in_features)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the weights for inputs ``(..., features)``."""
        features = input_shape[-1] if len(input_shape) else None
        if features is None:
            raise ShapeError(f"{self.name} is built for inputs {tuple(input_shape)}; expected a known last dimension")
        self._sizes = self._sizes_for(features)
        self._make_parameters()

    @property
    def sizes(self) -> PaddedShape:  # type: ignore[override]
        """The sizes of the layer, and the shape of its operator.

        Raises:
            ShapeError: they are not known before the layer is built.
        """
        if self._sizes is None:
            raise ShapeError(f"{self.name} has no shape yet; expected a built layer; call it, or build((None, inputs))")
        return self._sizes

    @classmethod
    def _new(cls, shape: MPOShape, bias: bool, **options: Any) -> Self:
        options = {"seed": 0, **options}
        layer = cls(shape.output_dims, shape.bond_dims[1:-1], input_dims=shape.input_dims, use_bias=bias, **options)
        layer.build((None, layer.in_features))
        return layer

    def call(self, inputs: Array, training: bool | None = None) -> Array:
        """``activation(inputs @ W + b)``, ``(..., inputs)`` to ``(..., units)``.

        Raises:
            ShapeError: the last dimension is not the number of inputs.
            InputError: the inputs are complex, sparse or ragged.
        """
        return linear(self, inputs, training)

    def _take_shape(self, shape: MPOShape) -> None:
        self._padding = self.padding
        self._sizes = replace(self.sizes, shape=shape)
        self.input_dims, self.output_dims, self.bond = shape.input_dims, shape.output_dims, shape.bond_dims[1:-1]

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        units = self.units if self.output_dims is None else self.output_dims
        sizes = {"units": units, "bond": self.bond, "sites": self.sites, "input_dims": self.input_dims}
        sizes |= {"padding": self._padding, "objective": self.objective}
        return {**super().get_config(), **sizes, **self._own_config()}

    def __repr__(self) -> str:
        if not self.built:
            return f"<MPODense name={self.name}, units={self.units}, bond={self.bond}, built=False>"
        return f"<MPODense name={self.name}, {self._description('use_bias')}>"

    def _sizes_for(self, features: int) -> PaddedShape:
        inputs = features if self.input_dims is None else self.input_dims
        outputs = self.units if self.output_dims is None else self.output_dims
        sizes = layer_sizes(inputs, outputs, self.bond, self.sites, self._padding, self.objective)
        if sizes.in_features != features:
            raise ShapeError(
                f"{self.name} is built for {features} inputs; expected {sizes.in_features} for {sizes.shape}"
            )
        return sizes
