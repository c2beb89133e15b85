"""How Keras makes, reads and writes the parameters of the layers in `mponet.layers`."""

import random
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.contraction.planner import PlanningContext
from mponet.errors import InputError, ShapeError
from mponet.layers.checks import check_width
from mponet.layers.operator import DenseWeights, OperatorLayer
from mponet.operators.shape import MPOShape
from mponet.operators.topology import NetworkShape
from mponet_tensorflow.ops.arrays import Array, from_numpy, keras, tf, to_numpy
from mponet_tensorflow.ops.planning import planner


class ParameterAccess(OperatorLayer):
    """The part of a layer that knows Keras.

    It comes first among the bases, then the kind of operator, then Keras: ``class
    MPODense(ParameterAccess, ChainLayer, keras.layers.Layer)``.
    """

    name: str
    units: int
    use_bias: bool
    seed: int | None
    activation: Any

    def _make_parameters(self) -> None:
        """Add the weights with starting values; a seed is drawn as Keras draws those of its initialisers."""
        seed = random.randint(1, 10**9) if self.seed is None else self.seed
        values = self.initial_values(np.random.default_rng(seed))
        for name, value in zip(self.parameter_names, values, strict=True):
            setattr(self, name, self.add_weight(name=name, shape=value.shape, initializer=_given(value)))  # type: ignore[attr-defined]
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros") if self.use_bias else None  # type: ignore[attr-defined]

    @property
    def tensors(self) -> tuple[keras.Variable, ...]:
        """The weights that make the operator, in order.

        Raises:
            ShapeError: the layer is not built.
        """
        if not self.built:  # type: ignore[attr-defined]
            raise ShapeError(
                f"{self.name} has no weights yet; expected a built layer; call it, or build((None, inputs))"
            )
        return super().tensors

    @staticmethod
    def _to_numpy(array: Any) -> NDArray[Any]:
        return to_numpy(array) if isinstance(array, keras.Variable | tf.Tensor | tf.Variable) else np.asarray(array)

    def _write(self, parameter: keras.Variable, values: NDArray[Any]) -> None:
        parameter.assign(from_numpy(values, tf.as_dtype(parameter.dtype)))

    def _planning(self) -> tuple[str, PlanningContext]:
        return self.compute_dtype, planner()  # type: ignore[attr-defined]

    @classmethod
    def _dense_weights(cls, dense: keras.layers.Dense) -> DenseWeights:
        if not isinstance(dense, keras.layers.Dense):
            raise InputError(f"dense is a {type(dense).__name__}; expected a keras.layers.Dense")
        if not dense.built:
            raise ShapeError(
                f"{dense.name} has no weights yet; expected a built layer; call it, or build((None, inputs))"
            )
        bias = None if dense.bias is None else to_numpy(dense.bias)
        return DenseWeights(to_numpy(dense.kernel), bias, {"activation": dense.activation, "dtype": dense.dtype_policy})

    def _make_dense(self, matrix: NDArray[Any], bias: NDArray[Any] | None) -> keras.layers.Dense:
        dense = keras.layers.Dense(self.units, self.activation, use_bias=bias is not None, dtype=self.dtype_policy)  # type: ignore[attr-defined]
        dense.build((None, self.in_features))
        self._write(dense.kernel, matrix)
        if bias is not None:
            self._write(dense.bias, bias)
        return dense

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """``(..., inputs)`` to ``(..., units)``."""
        return (*input_shape[:-1], self.units)

    def _own_config(self) -> dict[str, Any]:
        """The arguments that both kinds of layer have, for `get_config`."""
        return {
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "initializer": self.initializer,  # type: ignore[attr-defined]
            "seed": self.seed,
        }


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


def _given(values: NDArray[Any]) -> Callable[..., Array]:
    """A Keras initialiser that gives these numbers."""
    return lambda shape, dtype=None: from_numpy(values, tf.as_dtype(dtype))
