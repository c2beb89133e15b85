"""How Keras makes, reads and writes the parameters of the layers in `mponet.layers`."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.contraction import execute
from mponet.contraction.planner import PlanningContext
from mponet.errors import InputError, ShapeError
from mponet.layers.checks import check_real
from mponet.layers.operator import DenseWeights, OperatorLayer
from mponet_tensorflow.nn.frozen import unfreeze_layer
from mponet_tensorflow.nn.options import KernelPenalty, WeightOptions, variance_of
from mponet_tensorflow.ops.arrays import OPS, Array, from_numpy, keras, tf, to_numpy
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
    options: WeightOptions

    def _take(
        self,
        activation: Any,
        use_bias: bool,
        initializer: Any,
        seed: int | None,
        memory: int | None,
        options: WeightOptions,
    ) -> None:
        """Keep the arguments that both kinds of layer have.

        Raises:
            InputError: the layer computes in complex numbers, or ``kernel_initializer`` has no
                variance.
            PlanError: ``memory`` is not a whole number of bytes.
        """
        check_real(self.compute_dtype, "the layer")  # type: ignore[attr-defined]
        self.activation = keras.activations.get(activation)
        self.use_bias, self.initializer, self.seed, self.options = use_bias, initializer, seed, options
        self.memory = memory
        if options.kernel_initializer is not None:
            variance_of(options.kernel_initializer, 1, 1)  # refused here, not at the first call
        self.supports_masking, self.frozen = True, None

    def _make_parameters(self) -> None:
        """Add the weights with starting values.

        A seed is drawn as Keras draws those of its initialisers.
        """
        seed = random.randint(1, 10**9) if self.seed is None else self.seed
        options = self.options
        if options.kernel_initializer is not None:
            self.initializer = variance_of(options.kernel_initializer, *self._fans)
        values = self.initial_values(np.random.default_rng(seed))
        penalty = None if options.kernel_regularizer is None else KernelPenalty(self, options.kernel_regularizer)
        for name, value in zip(self.parameter_names, values, strict=True):
            if name in self.fixed_names:  # setting `trainable` of the layer does not reach it
                setattr(self, name, self._add(name, value.shape, _given(value), None, None, trainable=False))
                continue
            setattr(self, name, self._add(name, value.shape, _given(value), penalty, options.kernel_constraint))
            penalty = None  # one variable carries it for all
        self.bias = None
        if self.use_bias:
            start, penalty, held = options.bias_initializer, options.bias_regularizer, options.bias_constraint
            self.bias = self._add("bias", (self.units,), start, penalty, held)

    @property
    def trainable(self) -> bool:
        """Whether the weights are trained, as of every `keras.layers.Layer`.

        Raises:
            InputError: it is set to True on a frozen layer.
        """
        return super().trainable  # type: ignore[misc, no-any-return]

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if value and self.frozen is not None:
            raise InputError(
                f"{self.name} is frozen; expected a layer that is not; mponet_tensorflow.unfreeze the model"
            )
        keras.layers.Layer.trainable.fset(self, value)

    def load_own_variables(self, store: Any) -> None:
        """Read weights of a file, as every `keras.layers.Layer` does; they end the freezing."""
        unfreeze_layer(self)
        super().load_own_variables(store)  # type: ignore[misc]

    @property
    def _fans(self) -> tuple[int, int]:
        """Inputs and outputs that a unit of the kernel has, for initialisers that scale by them."""
        return self.in_features, self.units

    def _add(
        self, name: str, shape: tuple[int, ...], start: Any, penalty: Any, held: Any, trainable: bool = True
    ) -> keras.Variable:
        return self.add_weight(  # type: ignore[attr-defined]
            name=name, shape=shape, initializer=start, regularizer=penalty, constraint=held, trainable=trainable
        )

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

    @property
    def kernel(self) -> Array:
        """The dense matrix ``(inputs, units)`` that `keras.layers.Dense` would have.

        Read-only, differentiable.

        Raises:
            ShapeError: the layer is not built.
        """
        tensors = [tf.convert_to_tensor(tensor) for tensor in self.tensors]
        return self._trimmed(execute.dense_matrix(self.dense_plan, tensors, OPS))

    @staticmethod
    def _to_numpy(array: Any) -> NDArray[Any]:
        return to_numpy(array) if isinstance(array, keras.Variable | tf.Tensor | tf.Variable) else np.asarray(array)

    def _write(self, parameter: keras.Variable, values: NDArray[Any]) -> None:
        parameter.assign(from_numpy(values, tf.as_dtype(parameter.dtype)))

    def _resize(self, shape: Any, values: Sequence[NDArray[Any]]) -> None:
        """Become the layer of another shape with other numbers, as truncation does."""
        self._take_shape(shape)
        unfreeze_layer(self)
        tracker = self._tracker  # type: ignore[attr-defined]
        tracker.unlock()
        for name, value, old in zip(self.parameter_names, values, self.tensors, strict=True):
            tracker.untrack(old)
            core = self._add(name, value.shape, _given(value), old.regularizer, old.constraint)
            core.trainable, core._path = old.trainable, old.path
            setattr(self, name, core)
        if self.bias is not None:  # stays last
            tracker.untrack(self.bias)
            tracker.add_to_store("trainable_variables", self.bias)
        tracker.lock()

    def _take_shape(self, shape: Any) -> None:
        """Another shape of as many inputs and outputs; `get_config` then gives it."""
        self.shape = shape

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
        matrix, policy = _kernel_of(dense)
        options = {"name": dense.name, "activation": dense.activation, "dtype": policy}
        return DenseWeights(matrix, bias, options | WeightOptions.of_layer(dense))

    def _adopt(self, dense: keras.layers.Dense) -> None:
        self.trainable = dense.trainable
        self.activity_regularizer = dense.activity_regularizer

    def _make_dense(self, matrix: NDArray[Any], bias: NDArray[Any] | None) -> keras.layers.Dense:
        options = WeightOptions.of_layer(self.options)
        dense = keras.layers.Dense(
            self.units,
            self.activation,
            use_bias=bias is not None,
            dtype=self.dtype_policy,  # type: ignore[attr-defined]
            name=self.name,
            activity_regularizer=self.activity_regularizer,
            **options,
        )
        dense.build((None, self.in_features))
        dense.trainable = self.trainable
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
            "memory": self.memory,
            **self.options.config(),
        }


def _kernel_of(dense: keras.layers.Dense) -> tuple[NDArray[Any], Any]:
    """The kernel of a dense layer as it acts, LoRA merged and int8 scaled.

    And the policy of its numbers.

    Raises:
        InputError: it is quantised in a way that is not read here.
    """
    mode = dense.quantization_mode
    if mode is None:
        return to_numpy(tf.convert_to_tensor(dense.kernel)), dense.dtype_policy  # merges LoRA
    if mode != "int8" or dense.lora_enabled:
        raise InputError(
            f"{dense.name} is quantised to {mode}{' with LoRA' if dense.lora_enabled else ''}; expected float "
            "weights or int8 without LoRA; make the operator before quantising"
        )
    scale = to_numpy(dense.kernel_scale)
    source = dense.dtype_policy.name.partition("_from_")[2] or "float32"
    return to_numpy(dense.kernel) / scale, keras.dtype_policies.get(source)


def _given(values: NDArray[Any]) -> Callable[..., Array]:
    """A Keras initialiser that gives these numbers."""
    return lambda shape, dtype=None: from_numpy(values, tf.as_dtype(dtype))
