"""`FrozenWeights`: what a frozen layer keeps, and the products with it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional

from mponet.contraction import execute
from mponet.contraction.plan import rebuilt
from mponet.layers.conv_layer import ConvLayer
from mponet.layers.conv_plan import ConvPlan, kernels
from mponet.layers.embedding_layer import EmbeddingLayer
from mponet.layers.frozen import KeptPlans, kept_conv_plan, kept_plans
from mponet.layers.lookup import laid_out
from mponet.operators.shape import MPOShape
from mponet_torch.ops.arrays import OPS, Array, ops_for


class FrozenWeights(nn.Module):
    """Merged weights of a layer, for inference.

    They are buffers that no state dict holds: they follow the layer to another device or dtype, and
    are made again from its parameters.

    Attributes:
        plans: what is kept; None if nothing but the rows of an embedding.
        trained: which parameters of the layer were trained before.
        in_line: whether `linear` computes the product.

    Args:
        plans: what is kept; None if nothing but the rows of an embedding.
        weights: of each form that the plans name.
        rows: the cores of an embedding as a lookup reads them.
        trained: which parameters of the layer were trained before.
        in_line: whether the weights are those of linear layers one after another, ``(out, in)``.
        tensors: of the layer; weights that lie in their memory are not counted as kept.
    """

    def __init__(
        self,
        plans: KeptPlans | ConvPlan | None,
        weights: Sequence[Sequence[Array]],
        rows: Sequence[Array] = (),
        trained: Sequence[str] = (),
        in_line: bool = False,
        tensors: Sequence[Array] = (),
    ) -> None:
        super().__init__()
        self.plans, self.trained, self.in_line = plans, tuple(trained), in_line
        self._forms = tuple(tuple(f"weight{form}_{k}" for k in range(len(of))) for form, of in enumerate(weights))
        self._rows = tuple(f"rows{k}" for k in range(len(rows)))
        arrays = dict(zip(self._rows, rows, strict=True))
        for names, of in zip(self._forms, weights, strict=True):
            arrays |= dict(zip(names, of, strict=True))
        own = _memory(tensors)
        self._borrowed = {name for name, array in arrays.items() if _lie_in(array, own)}
        for name, array in arrays.items():
            self.register_buffer(name, array, persistent=False)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept beside the layer's tensors."""
        return sum(array.nbytes for name, array in self.named_buffers() if name not in self._borrowed)

    def product(self, inputs: Array, bias: Array | None, padding: tuple[int, int] = (0, 0)) -> Array:
        """``inputs @ W + bias``, ``(batch, in_features)`` to ``(batch, out_features)``.

        Args:
            inputs: ``(batch, in_features)``.
            bias: ``(out_features,)``; None for none.
            padding: how many zeros the operator takes in addition, and outputs that are dropped.
        """
        if self.in_line:
            return self.linear(inputs, bias)
        assert isinstance(self.plans, KeptPlans)
        open_batch = torch.jit.is_tracing() or torch.compiler.is_exporting()  # type: ignore[attr-defined, no-untyped-call]
        form, plan = self.plans.choose(None if open_batch else inputs.shape[0])
        weights = self.weights(form, inputs.dtype)
        if plan is None:
            return functional.linear(inputs, weights[0], bias)
        inputs, bias = padded(inputs, bias, padding)
        tangents = forward_ad._current_level >= 0
        ops = OPS if open_batch or tangents else ops_for(inputs, bias, *weights)
        outputs = execute.sweep(plan, weights, inputs, ops, bias)
        return outputs[:, : -padding[1]].contiguous() if padding[1] else outputs

    def linear(self, inputs: Array, bias: Array | None) -> Array:
        """``inputs @ W + bias`` by linear layers one after another, for any leading dimensions."""
        *names, last = self._forms[0]
        for name in names:
            inputs = functional.linear(inputs, self._buffers[name])  # type: ignore[arg-type]
        return functional.linear(inputs, self._buffers[last], bias)  # type: ignore[arg-type]

    def weights(self, form: int, dtype: torch.dtype) -> list[Array]:
        """The weights of a form, cast under autocast."""
        arrays = [self._buffers[name] for name in self._forms[form]]
        return [array if array.dtype == dtype else array.to(dtype) for array in arrays]  # type: ignore[union-attr, misc]

    def rows(self) -> list[Array]:
        """The cores of an embedding as a lookup reads them."""
        return [self._buffers[name] for name in self._rows]  # type: ignore[misc]

    @property
    def table(self) -> Array | None:
        """The table of an embedding, where it is kept: it is the matrix of the output head."""
        whole = isinstance(self.plans, KeptPlans) and None in self.plans.forms
        return self._buffers[f"weight{self.plans.forms.index(None)}_0"] if whole else None  # type: ignore[union-attr]


def padded(inputs: Array, bias: Array | None, padding: tuple[int, int]) -> tuple[Array, Array | None]:
    """Inputs and bias with zeros appended, as many as a padded operator takes."""
    if not any(padding):
        return inputs, bias
    more, dropped = padding
    return functional.pad(inputs, (0, more)), None if bias is None else functional.pad(bias, (0, dropped))


def freeze_layer(layer: Any, *, head: bool = False) -> None:
    """Keep merged weights of a layer, and train its parameters no more.

    Args:
        layer: a layer in eval mode.
        head: whether an embedding is an output head, too.
    """
    if layer.frozen is not None:
        return
    trained = [
        name for name, parameter in layer._parameters.items() if parameter is not None and parameter.requires_grad
    ]
    with torch.no_grad():
        layer.frozen = _frozen(layer, head, trained)
    for name in trained:
        layer._parameters[name].requires_grad_(False)


def unfreeze_layer(layer: Any) -> None:
    """Drop what a layer keeps; what was trained before is trained again."""
    frozen, layer.frozen = layer.frozen, None
    for name in () if frozen is None else frozen.trained:
        layer._parameters[name].requires_grad_(True)


def _frozen(layer: Any, head: bool, trained: Sequence[str]) -> FrozenWeights:
    tensors, (dtype, context) = list(layer.tensors), layer._planning()
    if isinstance(layer, ConvLayer):
        conv = kept_conv_plan(layer.shape, layer.window, dtype, context)
        return FrozenWeights(conv, [[_as_torch(kernel) for kernel in kernels(conv, tensors, OPS)]], (), trained)
    rows = (
        [part.clone() for part in laid_out(layer.lookup_plan, tensors, OPS)]
        if isinstance(layer, EmbeddingLayer)
        else []
    )
    if rows and not head:
        return FrozenWeights(None, [], rows, trained)
    shape = layer._planned_shape
    whole = rebuilt(shape) if isinstance(shape, MPOShape) else layer.dense_plan
    plans = kept_plans(shape, whole, dtype, context)
    if rows:
        tensors = [core.transpose(1, 2) for core in tensors]
        if None in plans.forms:  # the table is there, and its rows need no products
            rows = []
    weights = [
        [layer._dense_weight().contiguous()] if plan is None else execute.weights_of(plan, tensors, OPS)
        for plan in plans.forms
    ]
    own, runs_tensors = _memory(tensors), all(plan and plan.program.merges_nothing for plan in plans.forms)
    # views of the tensors are kept for all weights or for none, or a write would be seen in part
    if not runs_tensors or not all(_lie_in(one, own) for of in weights for one in of):
        weights = [[one.clone(memory_format=torch.contiguous_format) for one in of] for of in weights]
    padded_operator = head or any(getattr(layer, "padding", ()))
    in_line = _is_in_line(plans, padded_operator)
    if in_line and plans.forms != (None,):
        # views of what lies as (in, out), as cores do; for one row that is faster than (out, in)
        weights = [[weight.T for weight in weights[0]]]
    return FrozenWeights(plans, weights, rows, trained, in_line, tensors)


def _memory(tensors: Sequence[Array]) -> set[int]:
    """Where tensors lie."""
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def _lie_in(array: Array, memory: set[int]) -> bool:
    return array.untyped_storage().data_ptr() in memory


def _is_in_line(plans: KeptPlans, padded: bool) -> bool:
    """Whether a layer only multiplies by one matrix after another, as low rank does."""
    if plans.forms == (None,):
        return True
    plan = plans.forms[0]
    if padded or len(plans.forms) > 1 or plan is None or plan.program.orders:
        return False
    return all(step.prefix == step.suffix == 1 and step.transposition is None for step in plan.steps)


def _as_torch(kernel: Array) -> Array:
    """A kernel HWIO whose numbers lie as torch's convolutions want them, OIHW."""
    rank = kernel.ndim - 2
    weight = kernel.permute(rank + 1, rank, *range(rank)).clone(memory_format=torch.contiguous_format)
    return weight.permute(*range(2, rank + 2), 1, 0)
