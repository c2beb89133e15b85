"""`FrozenWeights`: what a frozen layer keeps, and the products with it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from mponet.contraction import execute
from mponet.contraction.plan import rebuilt
from mponet.contraction.search import AnyPlan
from mponet.layers.conv_layer import ConvLayer
from mponet.layers.conv_plan import ConvPlan, kernels
from mponet.layers.embedding_layer import EmbeddingLayer
from mponet.layers.frozen import KeptPlans, kept_conv_plan, kept_plans
from mponet.layers.lookup import laid_out
from mponet.operators.shape import MPOShape
from mponet_jax.ops.arrays import OPS, PRECISION, Array
from mponet_jax.ops.contraction import over_batch


class Kept(nnx.Variable[Array]):
    """A merged weight; no parameter, so that no optimiser trains it."""


class FrozenWeights(nnx.Module):
    """Merged weights of a layer, for inference.

    Attributes:
        plans: what is kept; None if nothing but the rows of an embedding.
        trained: names of the parameters of the layer that were trained before.

    Args:
        plans: what is kept; None if nothing but the rows of an embedding.
        weights: of each form that the plans name.
        rows: the cores of an embedding as a lookup reads them.
        trained: names of the parameters of the layer that were trained before.
        is_table: whether the matrix is that of an embedding, ``(out_features, in_features)``.
    """

    def __init__(
        self,
        plans: KeptPlans | ConvPlan | None,
        weights: Sequence[Sequence[Array]],
        rows: Sequence[Array] = (),
        trained: Sequence[str] = (),
        is_table: bool = False,
    ) -> None:
        self.plans, self.trained, self._is_table = plans, tuple(trained), is_table
        # attributes and no lists: nnx walks through every node of a model in every call
        self._forms = tuple(tuple(f"weight{form}_{k}" for k in range(len(of))) for form, of in enumerate(weights))
        self._rows = tuple(f"rows{k}" for k in range(len(rows)))
        arrays = [*(array for of in weights for array in of), *rows]
        for name, array in zip(self._names, arrays, strict=True):
            setattr(self, name, Kept(array))

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(self._array(name).nbytes for name in self._names)

    def product(self, inputs: Array, bias: Array | None, padding: tuple[int, int] = (0, 0)) -> Array:
        """``inputs @ W + bias``, ``(batch, in_features)`` to ``(batch, out_features)``.

        Args:
            inputs: ``(batch, in_features)``.
            bias: ``(out_features,)``; None for none.
            padding: how many zeros the operator takes in addition, and outputs that are dropped.
        """
        assert isinstance(self.plans, KeptPlans)
        form, plan = self.plans.choose(inputs.shape[0] if isinstance(inputs.shape[0], int) else None)
        weights = tuple(self.weights(form, inputs.dtype))
        if plan is not None:
            inputs, bias = padded(inputs, bias, padding)
        run = _with_table if plan is None and self._is_table else partial(_product, plan)
        outputs = over_batch(run, inputs, weights, bias)
        return outputs[:, : -padding[1]] if plan is not None and padding[1] else outputs

    def weights(self, form: int, dtype: Any) -> list[Array]:
        """The weights of a form in the dtype of the computation."""
        return [self._array(name).astype(dtype) for name in self._forms[form]]

    def rows(self) -> list[Array]:
        """The cores of an embedding as a lookup reads them."""
        return [self._array(name) for name in self._rows]

    @property
    def table(self) -> Array | None:
        """The table of an embedding, where it is kept: it is the matrix of the output head."""
        whole = self._is_table and isinstance(self.plans, KeptPlans) and None in self.plans.forms
        return self._array(f"weight{self.plans.forms.index(None)}_0") if whole else None  # type: ignore[union-attr]

    @property
    def _names(self) -> tuple[str, ...]:
        """The names of all that is kept."""
        return *(name for of in self._forms for name in of), *self._rows

    def _array(self, name: str) -> Array:
        array: Array = getattr(self, name)[...]
        return array


def padded(inputs: Array, bias: Array | None, padding: tuple[int, int]) -> tuple[Array, Array | None]:
    """Inputs and bias with zeros appended, as many as a padded operator takes."""
    if not any(padding):
        return inputs, bias
    more, dropped = padding
    return jnp.pad(inputs, ((0, 0), (0, more))), None if bias is None else jnp.pad(bias, (0, dropped))


def freeze_layer(layer: Any, made: dict[int, Any], *, head: bool = False) -> None:
    """Keep merged weights of a layer; its parameters become variables that are not trained.

    Args:
        layer: a layer.
        made: the variables that parameters became so far, by the parameter's `id`, for layers that
            share some.
        head: whether an embedding is an output head, too.
    """
    if layer.frozen is not None:
        return
    names = [*layer.parameter_names, *(() if layer.bias is None else ("bias",))]
    trained = [name for name in names if isinstance(getattr(layer, name), nnx.Param)]
    layer.frozen = _frozen(layer, head, trained)
    for name in trained:
        parameter = getattr(layer, name)
        setattr(layer, name, made.setdefault(id(parameter), nnx.Variable(parameter[...])))


def unfreeze_layer(layer: Any, made: dict[int, Any]) -> None:
    """Drop what a layer keeps; what was a parameter before is one again.

    Args:
        layer: a layer.
        made: the parameters that variables became so far, by the variable's `id`.
    """
    frozen, layer.frozen = layer.frozen, nnx.data(None)
    for name in () if frozen is None else frozen.trained:
        variable = getattr(layer, name)
        setattr(layer, name, made.setdefault(id(variable), nnx.Param(variable[...])))


def _frozen(layer: Any, head: bool, trained: Sequence[str]) -> FrozenWeights:
    dtype, context = layer._planning()
    tensors: list[Array] = [tensor[...].astype(dtype) for tensor in layer.tensors]
    if isinstance(layer, ConvLayer):
        conv = kept_conv_plan(layer.shape, layer.window, dtype, context)
        return FrozenWeights(conv, [kernels(conv, tensors, OPS)], (), trained)
    rows = laid_out(layer.lookup_plan, tensors, OPS) if isinstance(layer, EmbeddingLayer) else []
    if rows and not head:
        return FrozenWeights(None, [], rows, trained)
    shape = layer._planned_shape
    whole = rebuilt(shape) if isinstance(shape, MPOShape) else layer.dense_plan
    plans = kept_plans(shape, whole, dtype, context)
    matrix = layer._trimmed(execute.dense_matrix(layer.dense_plan, tensors, OPS)) if None in plans.forms else None
    if rows:
        tensors = [core.transpose(0, 2, 1, 3) for core in tensors]
        if matrix is not None:  # the table is there, and its rows need no products
            rows, matrix = [], matrix[: layer.num_embeddings]
    weights: list[Any] = [[matrix] if plan is None else execute.weights_of(plan, tensors, OPS) for plan in plans.forms]
    return FrozenWeights(plans, weights, rows, trained, isinstance(layer, EmbeddingLayer))


def _with_table(inputs: Array, weights: tuple[Array, ...], bias: Array | None) -> Array:
    return jnp.matmul(inputs, weights[0].T, precision=PRECISION)


def _product(plan: AnyPlan | None, inputs: Array, weights: tuple[Array, ...], bias: Array | None) -> Array:
    return OPS.linear(inputs, weights[0], bias) if plan is None else execute.sweep(plan, weights, inputs, OPS, bias)
