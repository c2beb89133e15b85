"""How JAX makes, reads and writes the parameters of the layers in `mponet.layers`."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx import reprlib
from flax.nnx.nn.dtypes import promote_dtype
from numpy.typing import ArrayLike, NDArray

from mponet.contraction import execute
from mponet.contraction.planner import PlanningContext
from mponet.errors import InputError
from mponet.layers.checks import check_real
from mponet.layers.operator import DenseWeights, OperatorLayer
from mponet_jax.nn.calls import check_inputs
from mponet_jax.ops.arrays import OPS, PRECISION, Array, accumulator, from_numpy, supported, to_numpy
from mponet_jax.ops.planning import planner


class ParameterAccess(OperatorLayer):
    """The part of a layer that knows JAX and flax.nnx.

    It comes first among the bases, then the kind of operator, then nnx: ``class
    MPOLinear(ParameterAccess, ChainLayer, nnx.Module)``.
    """

    dtype: Any
    param_dtype: Any
    use_bias: bool

    def _make_parameters(self, use_bias: bool, dtype: Any, param_dtype: Any, rngs: nnx.Rngs) -> None:
        """Make the parameters with starting values; they depend on ``rngs.params()`` only."""
        for given in (dtype, param_dtype):
            check_real(jnp.dtype(given or jnp.float32).name, "the layer")
        self.use_bias, self.dtype, self.frozen = use_bias, dtype, nnx.data(None)
        self.param_dtype = supported(accumulator(dtype or jnp.float32) if param_dtype is None else param_dtype)
        for name, value in zip(self.parameter_names, self._start(rngs), strict=True):
            setattr(self, name, nnx.Variable(value) if name in self.fixed_names else nnx.Param(value))
        self.bias = nnx.Param(jnp.zeros(self.out_features, self.param_dtype)) if use_bias else nnx.data(None)

    def _start(self, rngs: nnx.Rngs) -> tuple[Array, ...]:
        """Starting values, drawn by numpy from the words of a JAX key."""

        def drawn(words: Any) -> tuple[NDArray[Any], ...]:
            rng = np.random.default_rng(np.asarray(words).ravel().tolist())
            return tuple(values.astype(self.param_dtype) for values in self.initial_values(rng))

        words = jax.random.key_data(rngs.params())
        if not isinstance(words, jax.core.Tracer):
            return tuple(jnp.asarray(values) for values in drawn(words))
        # layers are also made under nnx.eval_shape, nnx.jit and nnx.vmap, where the key has no
        # numbers yet
        like = tuple(jax.ShapeDtypeStruct(size, self.param_dtype) for size in self.parameter_shapes)
        traced: tuple[Array, ...] = jax.pure_callback(drawn, like, words, vmap_method="sequential")
        return traced

    @property
    def kernel(self) -> Array:
        """The dense matrix ``(in_features, out_features)`` of `flax.nnx.Linear`.

        Read-only, differentiable.
        """
        matrix: Array = execute.dense_matrix(self.dense_plan, [tensor[...] for tensor in self.tensors], OPS)
        return self._trimmed(matrix)  # type: ignore[no-any-return]

    @staticmethod
    def _to_numpy(array: Any) -> NDArray[Any]:
        array = array[...] if isinstance(array, nnx.Variable) else array
        return to_numpy(array) if isinstance(array, jax.Array) else np.asarray(array)

    def _write(self, parameter: nnx.Variable[Array], values: ArrayLike) -> None:
        put(parameter, values)

    def _planning(self) -> tuple[str, PlanningContext]:
        return str(jnp.dtype(self.dtype or self.param_dtype).name), planner()

    def _promoted(self, inputs: Array) -> tuple[Array, Array | None, list[Array]]:
        """Inputs, bias and tensors in the dtype that the layer computes in.

        Raises:
            InputError: the inputs are not an array, or complex.
        """
        check_inputs(inputs)
        bias = None if self.bias is None else self.bias[...]
        arrays: tuple[Any, ...] = (inputs, bias, *(tensor[...] for tensor in self.tensors))
        inputs, bias, *tensors = promote_dtype(arrays, dtype=self.dtype)
        return inputs, bias, tensors

    @classmethod
    def _dense_weights(cls, dense: nnx.Linear) -> DenseWeights:
        if not isinstance(dense, nnx.Linear):
            raise InputError(f"dense is a {type(dense).__name__}; expected a flax.nnx.Linear")
        kernel = dense.kernel[...]
        check_real(kernel.dtype.name, "dense")
        matrix = to_numpy(kernel)
        if isinstance(dense, nnx.LoRALinear):  # the adapter is part of what the layer computes
            down, up = (to_numpy(part[...]).astype(np.float64) for part in (dense.lora.lora_a, dense.lora.lora_b))
            matrix = matrix + down @ up
        bias = None if dense.bias is None else to_numpy(dense.bias[...])
        options = {"dtype": dense.dtype, "param_dtype": kernel.dtype}
        return DenseWeights(matrix, bias, options, jax.default_device(_device(kernel)))

    def _make_dense(self, matrix: NDArray[Any], bias: NDArray[Any] | None) -> nnx.Linear:
        first = self.tensors[0][...]
        with jax.default_device(_device(first)):
            dense = nnx.Linear(
                self.in_features,
                self.out_features,
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

    def __nnx_repr__(self) -> Iterator[reprlib.Object | reprlib.Attr]:
        """Shape, counts and the plan in use, next to what nnx shows."""
        shown = super().__nnx_repr__()  # type: ignore[misc]
        yield next(shown)
        hidden = ("shape", "sizes", "initializer", "fixed", "frozen", "_memory")
        attributes = [attribute for attribute in shown if getattr(attribute, "key", None) not in hidden]
        if attributes:  # none the second time that nnx meets a shared layer
            yield reprlib.Attr("shape", f"{self.shape}{self._details()}", use_raw_value=True)
            yield reprlib.Attr("weights", self._weights_kept(), use_raw_value=True)
            if self.memory is not None:
                yield reprlib.Attr("memory", self.memory)
            yield reprlib.Attr("plan", self._plan_in_use())
            if self.frozen is not None:
                yield reprlib.Attr("frozen", str(self.frozen.plans or self.lookup_plan))  # type: ignore[attr-defined]
            yield from attributes


def put(parameter: nnx.Variable[Array], value: ArrayLike, device: Any = None) -> None:
    """Overwrite a parameter and keep its dtype.

    It goes to ``device`` if one is given; otherwise it stays where it was put on purpose.
    """
    like = parameter.get_raw_value()
    if device is None and like.committed:
        device = like.sharding
    parameter.set_raw_value(from_numpy(value, like.dtype, device))


def _device(array: Array) -> jax.Device:
    return min(array.devices(), key=lambda device: device.id)
