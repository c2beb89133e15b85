"""`FrozenWeights`: what a frozen layer keeps, and the products with it."""

from collections.abc import Sequence
from typing import Any

from mponet.contraction import execute
from mponet.contraction.plan import rebuilt
from mponet.layers.conv_layer import ConvLayer
from mponet.layers.conv_plan import ConvPlan, kernels
from mponet.layers.embedding_layer import EmbeddingLayer
from mponet.layers.frozen import KeptPlans, kept_conv_plan, kept_plans
from mponet.layers.lookup import laid_out
from mponet.operators.shape import MPOShape
from mponet_tensorflow.ops.arrays import OPS, Array, tf


class FrozenWeights:
    """Merged weights of a layer, for inference.

    They are constants: a graph that is traced or exported holds them as such, and files of weights
    do not have them.

    Attributes:
        plans: what is kept; None if nothing but the rows of an embedding.
        trained: whether the layer was trained before.

    Args:
        plans: what is kept; None if nothing but the rows of an embedding.
        weights: of each form that the plans name.
        rows: the cores of an embedding as a lookup reads them.
        trained: whether the layer was trained before.
        is_table: whether the matrix is that of an embedding, ``(out_features, in_features)``.
    """

    def __init__(
        self,
        plans: KeptPlans | ConvPlan | None,
        weights: Sequence[Sequence[Array]],
        rows: Sequence[Array] = (),
        trained: bool = True,
        is_table: bool = False,
    ) -> None:
        self.plans, self.trained, self._is_table = plans, trained, is_table
        self._forms = tuple(map(tuple, weights))
        self._rows = tuple(rows)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        arrays = (*self._rows, *(one for of in self._forms for one in of))
        return sum(array.dtype.size * array.shape.num_elements() for array in arrays)

    @tf.autograph.experimental.do_not_convert  # plans are run by Python itself, as in `apply`
    def product(self, inputs: Array, bias: Array | None, padding: tuple[int, int] = (0, 0)) -> Array:
        """``inputs @ W + bias``, ``(batch, in_features)`` to ``(batch, out_features)``.

        Args:
            inputs: ``(batch, in_features)``.
            bias: ``(out_features,)``; None for none.
            padding: how many zeros the operator takes in addition, and outputs that are dropped.
        """
        assert isinstance(self.plans, KeptPlans)
        form, plan = self.plans.choose(inputs.shape[0])
        weights = self.weights(form, inputs.dtype)
        bias = None if bias is None else tf.convert_to_tensor(bias)
        if plan is None and self._is_table:
            return tf.matmul(inputs, weights[0], transpose_b=True)
        if plan is None:
            return OPS.linear(inputs, weights[0], bias)
        inputs, bias = padded(inputs, bias, padding)
        outputs = execute.sweep(plan, weights, inputs, OPS, bias)
        return outputs[:, : -padding[1]] if padding[1] else outputs

    def weights(self, form: int, dtype: tf.DType) -> list[Array]:
        """The weights of a form in the dtype of the computation."""
        return [tf.cast(array, dtype) for array in self._forms[form]]

    def rows(self) -> list[Array]:
        """The cores of an embedding as a lookup reads them."""
        return list(self._rows)

    @property
    def table(self) -> Array | None:
        """The table of an embedding, where it is kept: it is the matrix of the output head."""
        whole = self._is_table and isinstance(self.plans, KeptPlans) and None in self.plans.forms
        return self._forms[self.plans.forms.index(None)][0] if whole else None  # type: ignore[union-attr]


def padded(inputs: Array, bias: Array | None, padding: tuple[int, int]) -> tuple[Array, Array | None]:
    """Inputs and bias with zeros appended, as many as a padded operator takes."""
    if not any(padding):
        return inputs, bias
    more, dropped = padding
    return tf.pad(inputs, ((0, 0), (0, more))), None if bias is None else tf.pad(bias, ((0, dropped),))


def freeze_layer(layer: Any, *, head: bool = False) -> None:
    """Keep merged weights of a layer, and train it no more.

    Args:
        layer: a built layer.
        head: whether an embedding is an output head, too.
    """
    if layer.frozen is None:
        frozen = _frozen(layer, head)
        layer.trainable = False
        layer.frozen = frozen


def unfreeze_layer(layer: Any) -> None:
    """Drop what a layer keeps; it is trained if it was before."""
    frozen, layer.frozen = layer.frozen, None
    if frozen is not None:
        layer.trainable = frozen.trained


def _frozen(layer: Any, head: bool) -> FrozenWeights:
    dtype, context = layer._planning()
    tensors = [tf.cast(tf.convert_to_tensor(tensor), dtype) for tensor in layer.tensors]
    if isinstance(layer, ConvLayer):
        conv = kept_conv_plan(layer.shape, layer.window, dtype, context)
        return FrozenWeights(conv, [kernels(conv, tensors, OPS)], (), layer.trainable)
    rows = laid_out(layer.lookup_plan, tensors, OPS) if isinstance(layer, EmbeddingLayer) else []
    if rows and not head:
        return FrozenWeights(None, [], rows, layer.trainable)
    shape = layer._planned_shape
    whole = rebuilt(shape) if isinstance(shape, MPOShape) else layer.dense_plan
    plans = kept_plans(shape, whole, dtype, context)
    matrix = layer._trimmed(execute.dense_matrix(layer.dense_plan, tensors, OPS)) if None in plans.forms else None
    if rows:
        tensors = [tf.transpose(core, (0, 2, 1, 3)) for core in tensors]
        if matrix is not None:  # the table is there, and its rows need no products
            rows, matrix = [], matrix[: layer.input_dim]
    weights = [[matrix] if plan is None else execute.weights_of(plan, tensors, OPS) for plan in plans.forms]
    return FrozenWeights(plans, weights, rows, layer.trainable, isinstance(layer, EmbeddingLayer))
