"""`MPODense`: a dense layer whose kernel is a matrix product operator."""

import random
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mponet.contraction.planner import PlanSet, plans_for
from mponet.display import NotebookRepr
from mponet.errors import ShapeError
from mponet.layers.linear import check_bias, check_operator, check_width, weights_kept
from mponet.operators.decompose import from_matrix
from mponet.operators.initialize import exact_variance
from mponet.operators.mpo import MPO, to_matrix
from mponet.operators.shape import MPOShape
from mponet.operators.topology import NetworkShape
from mponet_tensorflow.ops.arrays import Array, from_numpy, keras, tf, to_numpy
from mponet_tensorflow.ops.chain import apply_mpo
from mponet_tensorflow.ops.planning import PLANNER

Size = int | Sequence[int]


@keras.saving.register_keras_serializable(package="mponet")
class MPODense(NotebookRepr, keras.layers.Layer):
    """``y = activation(x @ W + b)`` with ``W`` a matrix product operator; takes and gives any leading dimensions.

    As with `keras.layers.Dense` the number of inputs is that of the first call, and the weights are
    made then.

    Attributes:
        units: number of outputs.
        shape: factors and bonds (`mponet.MPOShape`).
        core1, core2, ...: one weight per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` is all of
        them.
        bias: ``(units,)`` or None.

    Args:
        units: number of outputs, or its factors.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        activation: as for `keras.layers.Dense`.
        use_bias: whether to have one.
        sites: number of factors where only sizes are given; None chooses.
        input_dims: factors of the number of inputs; None chooses.
        initializer: variance of the entries of ``W``: ``glorot``, ``he``, ``lecun`` or a number;
            met exactly.
        seed: of the starting values; None draws one, so `keras.utils.set_random_seed` governs.
        **kwargs: ``name``, ``dtype``, ... as for every `keras.layers.Layer`.

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
        super().__init__(**kwargs)
        # sizes that are wrong whatever the inputs are refused here, not at the first call
        self.units = MPOShape.from_sizes(1 if input_dims is None else input_dims, units, 1, sites).out_features
        self.output_dims = tuple(units) if isinstance(units, Sequence) else None
        self.bond = tuple(bond) if isinstance(bond, Sequence) else bond
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.sites = sites
        self.input_dims = None if input_dims is None else tuple(input_dims)
        self.initializer = initializer
        self.seed = seed
        self.supports_masking = True
        self._shape = None if input_dims is None else self._shape_for(prod(input_dims))

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the weights for inputs ``(..., features)``."""
        features = input_shape[-1] if len(input_shape) else None
        if features is None:
            raise ShapeError(f"{self.name} is built for inputs {tuple(input_shape)}; expected a known last dimension")
        self._shape = self._shape_for(features)
        # keras draws the seeds of its own initialisers like this
        seed = random.randint(1, 10**9) if self.seed is None else self.seed
        mpo = exact_variance(self._shape, np.random.default_rng(seed), self.initializer)
        for k, core in enumerate(mpo.cores, start=1):
            setattr(self, f"core{k}", self.add_weight(name=f"core{k}", shape=core.shape, initializer=given(core)))
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros") if self.use_bias else None

    @property
    def shape(self) -> MPOShape:
        """Factors and bonds.

        Raises:
            ShapeError: they are not known before the layer is built.
        """
        if self._shape is None:
            raise ShapeError(f"{self.name} has no shape yet; expected a built layer; call it, or build((None, inputs))")
        return self._shape

    @property
    def cores(self) -> tuple[keras.Variable, ...]:
        """The cores, in the order of the sites."""
        return tuple(getattr(self, f"core{k + 1}") for k in range(self.shape.sites))

    @classmethod
    def from_mpo(cls, mpo: MPO, bias: ArrayLike | None = None, **kwargs: Any) -> Self:
        """The layer of an operator and a bias ``(units,)``, built.

        Args:
            mpo: the operator.
            bias: None for a layer without.
            **kwargs: ``activation``, ``name``, ``dtype``, ... as for the layer.

        Raises:
            ShapeError: the bias has another shape.
        """
        shape = mpo.shape
        layer = cls(
            shape.output_dims,
            shape.bond_dims[1:-1],
            input_dims=shape.input_dims,
            use_bias=bias is not None,
            **{"seed": 0, **kwargs},
        )
        layer.build((None, shape.in_features))
        layer.assign(mpo, bias)
        return layer

    @classmethod
    def from_matrix(
        cls,
        matrix: ArrayLike,
        input_dims: Sequence[int],
        output_dims: Sequence[int],
        *,
        max_bond: int | Sequence[int] | None = None,
        relative_error: float = 0.0,
        bias: ArrayLike | None = None,
        **kwargs: Any,
    ) -> Self:
        """The layer nearest to ``x @ matrix + bias``; see `mponet.from_matrix`."""
        kept = from_matrix(matrix, input_dims, output_dims, max_bond=max_bond, relative_error=relative_error)
        return cls.from_mpo(kept.mpo, bias, **kwargs)

    @classmethod
    def from_dense(
        cls,
        dense: keras.layers.Dense,
        *,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
        sites: int | None = None,
        max_bond: int | Sequence[int] | None = None,
        relative_error: float = 0.0,
        **kwargs: Any,
    ) -> Self:
        """The layer nearest to a trained `keras.layers.Dense`, with its activation and its dtype policy.

        Raises:
            ShapeError: the dense layer is not built, or the factors are not those of its sizes.
        """
        if not dense.built:
            raise ShapeError(
                f"{dense.name} has no weights yet; expected a built layer; call it, or build((None, inputs))"
            )
        kernel = to_numpy(dense.kernel)
        factors = MPOShape.from_sizes(input_dims or kernel.shape[0], output_dims or kernel.shape[1], 1, sites)
        return cls.from_matrix(
            kernel,
            factors.input_dims,
            factors.output_dims,
            max_bond=max_bond,
            relative_error=relative_error,
            bias=None if dense.bias is None else to_numpy(dense.bias),
            **{"activation": dense.activation, "dtype": dense.dtype_policy, **kwargs},
        )

    def to_mpo(self) -> MPO:
        """The operator, float64 numpy."""
        return MPO(self.shape, tuple(to_numpy(core).astype(np.float64) for core in self.cores))

    def to_dense(self) -> keras.layers.Dense:
        """The `keras.layers.Dense` with the same weights, activation and dtype policy, built."""
        dense = keras.layers.Dense(self.units, self.activation, use_bias=self.use_bias, dtype=self.dtype_policy)
        dense.build((None, self.shape.in_features))
        put(dense.kernel, to_matrix(self.to_mpo()))
        if self.bias is not None:
            dense.bias.assign(self.bias)
        return dense

    def assign(self, mpo: MPO, bias: ArrayLike | None = None) -> None:
        """Overwrite the cores, and the bias if one is given.

        Raises:
            ShapeError: the operator or the bias has another shape, or there is no bias to
                overwrite.
        """
        check_operator(self.shape, mpo)
        values = None if bias is None else check_bias(bias, self.units, wanted=self.use_bias)
        for core, value in zip(self.cores, mpo.cores, strict=True):
            put(core, value)
        if values is not None:
            put(self.bias, values)

    def plans(self, batch: int | None) -> PlanSet:
        """The plans in use for a batch of so many rows; None while tracing, where the batch may vary."""
        return plans_for(self.shape, batch, self.compute_dtype, PLANNER)

    def call(self, inputs: Array) -> Array:
        """``activation(inputs @ W + b)``, ``(..., inputs)`` to ``(..., units)``.

        Raises:
            ShapeError: the last dimension is not the number of inputs.
        """
        # Keras itself casts floating-point numbers only
        rows = as_rows(tf.cast(inputs, self.compute_dtype), self.shape)
        outputs = apply_mpo(self.plans(rows.shape[0]), rows, self.cores, self.bias)
        return self.activation(as_leading(outputs, inputs))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """``(..., inputs)`` to ``(..., units)``."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        return {
            **super().get_config(),
            "units": self.units if self.output_dims is None else self.output_dims,
            "bond": self.bond,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "sites": self.sites,
            "input_dims": self.input_dims,
            "initializer": self.initializer,
            "seed": self.seed,
        }

    def __repr__(self) -> str:
        if not self.built:
            return f"<MPODense name={self.name}, units={self.units}, bond={self.bond}, built=False>"
        shape, plan = self.shape, self.plans(128).training
        return (
            f"<MPODense name={self.name}, {shape.in_features}, {shape.out_features}, {shape}, "
            f"use_bias={self.use_bias}, weights={weights_kept(shape)}, plan='{plan}'>"
        )

    def _shape_for(self, features: int) -> MPOShape:
        inputs = features if self.input_dims is None else self.input_dims
        outputs = self.units if self.output_dims is None else self.output_dims
        shape = MPOShape.from_sizes(inputs, outputs, self.bond, self.sites)
        if shape.in_features != features:
            raise ShapeError(f"{self.name} is built for {features} inputs; expected {shape.in_features} for {shape}")
        return shape


def given(numbers: NDArray[Any]) -> Callable[..., Array]:
    """A Keras initialiser that gives these numbers."""
    return lambda shape, dtype=None: from_numpy(numbers, tf.as_dtype(dtype))


def put(variable: keras.Variable, numbers: NDArray[Any]) -> None:
    """Overwrite a variable, keeping its dtype."""
    variable.assign(from_numpy(numbers, tf.as_dtype(variable.dtype)))


def as_rows(inputs: Array, shape: MPOShape | NetworkShape) -> Array:
    """``(..., in_features)`` as ``(batch, in_features)``.

    Raises:
        ShapeError: the last dimension is known and another.
    """
    known = inputs.shape
    if not known.rank or known[-1] is not None:
        check_width(shape, tuple(known))
    leading = known[:-1]
    if known[-1] is None:  # while tracing; checked when it runs, before a reshape can swallow a wrong width
        inputs = tf.ensure_shape(inputs, [*leading, shape.in_features])
    if known.rank == 2:
        return inputs
    return tf.reshape(inputs, (prod(leading) if leading.is_fully_defined() else -1, shape.in_features))


def as_leading(outputs: Array, inputs: Array) -> Array:
    """``(batch, units)`` with the leading dimensions of the inputs."""
    if inputs.shape.rank == 2:
        return outputs
    width, leading = outputs.shape[-1], inputs.shape[:-1]
    if leading.is_fully_defined():
        return tf.reshape(outputs, (*leading, width))
    shaped = tf.reshape(outputs, tf.concat([tf.shape(inputs)[:-1], [width]], 0))
    return tf.ensure_shape(shaped, [*leading, width])
