"""`MPOLinear`: a linear layer whose weight is a matrix product operator."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx import reprlib
from flax.nnx.nn.dtypes import promote_dtype
from numpy.typing import ArrayLike, NDArray

from mponet.contraction.planner import PlanSet, plans_for
from mponet.display import NotebookRepr
from mponet.layers.linear import check_bias, check_operator, check_width, default_plan, weights_kept
from mponet.operators.decompose import from_matrix
from mponet.operators.initialize import exact_variance
from mponet.operators.mpo import MPO, to_matrix
from mponet.operators.shape import MPOShape
from mponet_jax.ops.arrays import PRECISION, Array, accumulator, from_numpy, supported, to_numpy
from mponet_jax.ops.chain import apply_mpo
from mponet_jax.ops.planning import PLANNER


class MPOLinear(NotebookRepr, nnx.Module):
    """``y = x @ W + b`` with ``W`` a matrix product operator; takes and gives any leading dimensions.

    Attributes:
        shape: factors and bonds (`mponet.MPOShape`).
        core1, core2, ...: one parameter per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` is all of
        them.
        bias: ``(out_features,)`` or None.

    Args:
        in_features: number of inputs, or its factors.
        out_features: number of outputs, or its factors.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        use_bias: whether to have a bias.
        sites: number of factors where only sizes are given; None chooses.
        initializer: variance of the entries of ``W``: ``glorot``, ``he``, ``lecun`` or a number;
            met exactly in expectation.
        dtype: as for `flax.nnx.Linear`.
        param_dtype: dtype of the parameters; None for float32, or ``dtype`` where that is wider.
        rngs: its ``params`` stream gives the seed of the starting values.

    Raises:
        ShapeError: sizes, factors and bonds do not fit together.
        BackendError: a dtype is float64, which JAX has switched off.
    """

    def __init__(
        self,
        in_features: int | Sequence[int],
        out_features: int | Sequence[int],
        bond: int | Sequence[int],
        *,
        use_bias: bool = True,
        sites: int | None = None,
        initializer: str | float = "glorot",
        dtype: Any = None,
        param_dtype: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.shape = MPOShape.from_sizes(in_features, out_features, bond, sites)
        self.use_bias = use_bias
        self.dtype = dtype
        self.param_dtype = supported(accumulator(dtype or jnp.float32) if param_dtype is None else param_dtype)
        cores = start(partial(_cores, self.shape, initializer), self.shape.core_shapes, rngs, self.param_dtype)
        for k, core in enumerate(cores, start=1):
            setattr(self, f"core{k}", nnx.Param(core))
        self.bias = nnx.Param(jnp.zeros(self.out_features, self.param_dtype)) if use_bias else nnx.data(None)

    @property
    def cores(self) -> tuple[nnx.Param[Array], ...]:
        """The cores, in the order of the sites."""
        return tuple(getattr(self, f"core{k + 1}") for k in range(self.shape.sites))

    @property
    def in_features(self) -> int:
        """Number of inputs."""
        return self.shape.in_features

    @property
    def out_features(self) -> int:
        """Number of outputs."""
        return self.shape.out_features

    @classmethod
    def from_mpo(cls, mpo: MPO, bias: ArrayLike | None = None, *, dtype: Any = None, param_dtype: Any = None) -> Self:
        """The layer of an operator and a bias ``(out_features,)``.

        Raises:
            ShapeError: the bias has another shape.
        """
        shape = mpo.shape
        layer = cls(
            shape.input_dims,
            shape.output_dims,
            shape.bond_dims[1:-1],
            use_bias=bias is not None,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=nnx.Rngs(0),
        )
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
        dtype: Any = None,
        param_dtype: Any = None,
    ) -> Self:
        """The layer nearest to ``x @ matrix + bias``; see `mponet.from_matrix`."""
        kept = from_matrix(matrix, input_dims, output_dims, max_bond=max_bond, relative_error=relative_error)
        return cls.from_mpo(kept.mpo, bias, dtype=dtype, param_dtype=param_dtype)

    @classmethod
    def from_dense(
        cls,
        dense: nnx.Linear,
        *,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
        sites: int | None = None,
        max_bond: int | Sequence[int] | None = None,
        relative_error: float = 0.0,
    ) -> Self:
        """The layer nearest to a trained `flax.nnx.Linear`, on its device and in its dtypes."""
        factors = MPOShape.from_sizes(input_dims or dense.in_features, output_dims or dense.out_features, 1, sites)
        kernel = dense.kernel[...]
        with jax.default_device(_device(kernel)):
            return cls.from_matrix(
                to_numpy(kernel),
                factors.input_dims,
                factors.output_dims,
                max_bond=max_bond,
                relative_error=relative_error,
                bias=None if dense.bias is None else to_numpy(dense.bias[...]),
                dtype=dense.dtype,
                param_dtype=kernel.dtype,
            )

    def to_mpo(self) -> MPO:
        """The operator, float64 numpy."""
        return MPO(self.shape, tuple(to_numpy(core[...]).astype(np.float64) for core in self.cores))

    def to_dense(self) -> nnx.Linear:
        """The `flax.nnx.Linear` with the same weight, on the same device and in the same dtypes."""
        first = self.cores[0][...]
        with jax.default_device(_device(first)):
            dense = nnx.Linear(
                self.in_features,
                self.out_features,
                use_bias=self.bias is not None,
                dtype=self.dtype,
                param_dtype=first.dtype,
                precision=PRECISION,
                kernel_init=nnx.initializers.zeros_init(),
                rngs=nnx.Rngs(0),
            )
            put(dense.kernel, to_matrix(self.to_mpo()))
            if self.bias is not None and dense.bias is not None:
                put(dense.bias, self.bias[...])
        return dense

    def assign(self, mpo: MPO, bias: ArrayLike | None = None) -> None:
        """Overwrite the cores, and the bias if one is given.

        Raises:
            ShapeError: the operator or the bias has another shape, or there is no bias to
                overwrite.
        """
        check_operator(self.shape, mpo)
        values = None if bias is None else check_bias(bias, self.out_features, wanted=self.bias is not None)
        for core, value in zip(self.cores, mpo.cores, strict=True):
            put(core, value)
        if self.bias is not None and values is not None:
            put(self.bias, values)

    def plans(self, batch: int | None) -> PlanSet:
        """The plans in use for a batch of so many rows; None where `jax.export` leaves it open."""
        return _plans(self.shape, batch, jnp.dtype(self.dtype or self.cores[0].dtype))

    def __call__(self, inputs: Array) -> Array:
        """``inputs @ W + b``, ``(..., in_features)`` to ``(..., out_features)``.

        Raises:
            ShapeError: the last dimension is not ``in_features``.
        """
        check_width(self.shape, inputs.shape)
        leading = inputs.shape[:-1]
        bias = None if self.bias is None else self.bias[...]
        arrays: tuple[Any, ...] = (inputs, bias, *(core[...] for core in self.cores))
        inputs, bias, *cores = promote_dtype(arrays, dtype=self.dtype)
        rows = inputs.reshape(prod(leading), self.in_features)
        plans = _plans(self.shape, rows.shape[0] if isinstance(rows.shape[0], int) else None, rows.dtype)
        return apply_mpo(plans, rows, cores, bias).reshape(*leading, self.out_features)

    def __nnx_repr__(self) -> Iterator[reprlib.Object | reprlib.Attr]:
        """Shape, counts, and the plan at the usual batch, beside what nnx shows."""
        shown = super().__nnx_repr__()  # type: ignore[no-untyped-call]
        yield next(shown)
        attributes = [attribute for attribute in shown if attribute.key != "shape"]
        if attributes:  # none the second time that nnx meets a shared layer
            shape = self.shape
            yield reprlib.Attr("shape", str(shape), use_raw_value=True)
            yield reprlib.Attr("weights", weights_kept(shape), use_raw_value=True)
            yield reprlib.Attr("plan", default_plan(shape))
            yield from attributes


def _plans(shape: MPOShape, batch: int | None, dtype: np.dtype[Any]) -> PlanSet:
    """Not a method: nnx.tabulate compiles the methods that a forward pass calls, and a plan is no array."""
    return plans_for(shape, batch, dtype.name, PLANNER)


def put(parameter: nnx.Variable[Array], value: ArrayLike, device: Any = None) -> None:
    """Overwrite a parameter, keeping its dtype, and where it was put on purpose unless ``device`` says otherwise."""
    like = parameter.get_raw_value()
    if device is None and like.committed:
        device = like.sharding
    parameter.set_raw_value(from_numpy(value, like.dtype, device))


def start(
    draw: Callable[[np.random.Generator], Sequence[NDArray[Any]]],
    sizes: Sequence[tuple[int, ...]],
    rngs: nnx.Rngs,
    dtype: Any,
) -> tuple[Array, ...]:
    """Starting values of these sizes, drawn by numpy from the words of a JAX key."""

    def drawn(words: Any) -> tuple[NDArray[Any], ...]:
        rng = np.random.default_rng(np.asarray(words).ravel().tolist())
        return tuple(values.astype(dtype) for values in draw(rng))

    words = jax.random.key_data(rngs.params())
    if not isinstance(words, jax.core.Tracer):
        return tuple(jnp.asarray(values) for values in drawn(words))
    # layers are also made under nnx.eval_shape, nnx.jit and nnx.vmap, where the key has no numbers
    # yet
    like = tuple(jax.ShapeDtypeStruct(size, dtype) for size in sizes)  # type: ignore[no-untyped-call]
    traced: tuple[Array, ...] = jax.pure_callback(drawn, like, words, vmap_method="sequential")
    return traced


def _cores(shape: MPOShape, initializer: str | float, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
    return exact_variance(shape, rng, initializer).cores


def _device(array: Array) -> jax.Device:
    return min(array.devices(), key=lambda device: device.id)
