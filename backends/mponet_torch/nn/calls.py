"""What a layer is called with: everything that `torch.nn.Linear` takes, or one clear error."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch.fx import Proxy

from mponet.errors import InputError
from mponet.layers.checks import check_real, check_width
from mponet_torch.nn.frozen import padded
from mponet_torch.ops.arrays import Array
from mponet_torch.ops.contraction import apply


def linear(layer: Any, inputs: Array) -> Array:
    """``inputs @ W + b`` of a layer, ``(..., in_features)`` to ``(..., out_features)``.

    Raises:
        ShapeError: the last dimension is not ``in_features``.
        InputError: the inputs are not a tensor, or complex, sparse or masked.
    """
    if isinstance(inputs, Proxy):
        return leaf(layer, inputs)
    check_inputs(inputs)
    if inputs.is_nested:
        return nested(layer, inputs, 1)
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    frozen = layer.frozen_weights
    if not tracing:  # sizes are tensors then, and a comparison would be recorded as a constant
        check_width(layer.in_features, layer.shape, inputs.shape)
    if frozen is not None and frozen.in_line:  # torch casts and reshapes by itself
        check_layer(layer.tensors)
        outputs: Array = frozen.linear(inputs, layer.bias)
        return outputs
    rows, bias, tensors = autocast(flattened(inputs), layer.bias, layer.tensors)
    if frozen is not None:
        return unflattened(frozen.product(rows, bias, layer.padding), inputs)
    plans = layer.plans(known_size(rows.shape[0]), rows.dtype)
    rows, bias = padded(rows, bias, layer.padding)
    outputs = apply(plans, rows, tensors, bias, layer.cache)
    return unflattened(outputs[:, : layer.out_features].contiguous() if layer.padding[1] else outputs, inputs)


def check_inputs(inputs: Any) -> None:
    """Refuse what is not a plain or nested tensor of real numbers.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(inputs, torch.Tensor):
        found = f"{type(inputs).__module__.partition('.')[0]}.{type(inputs).__name__}"
        raise InputError(f"inputs are a {found}; expected a torch.Tensor; convert them: torch.as_tensor(inputs)")
    if inputs.is_complex():
        check_real(str(inputs.dtype).removeprefix("torch."), "inputs")
    if inputs.layout not in (torch.strided, torch.jagged):
        raise InputError(f"inputs have the layout {inputs.layout}; expected a dense tensor; use inputs.to_dense()")
    if type(inputs).__name__ == "MaskedTensor":
        raise InputError("inputs are a MaskedTensor; expected a plain tensor; use inputs.to_tensor(0.0)")


def known_size(size: Any) -> Any:
    """A size of the batch for planning: None where it may vary, because a tracer is at work."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return None if traced or isinstance(size, torch.SymInt) else size


def check_layer(tensors: Sequence[Array]) -> None:
    """Refuse a layer that was made complex after it was built.

    Raises:
        InputError: it was.
    """
    if tensors[0].is_complex():
        check_real(str(tensors[0].dtype).removeprefix("torch."), "the layer")


def flattened(inputs: Array) -> Array:
    """``(rows, features)``.

    The inputs themselves where they are that, or autograd would record a view.
    """
    return inputs if inputs.ndim == 2 else inputs.reshape(prod(inputs.shape[:-1]), inputs.shape[-1])


def unflattened(outputs: Array, inputs: Array) -> Array:
    """Rows of outputs with the leading dimensions of the inputs, after `flattened`."""
    return outputs if inputs.ndim == 2 else shaped(outputs, (*inputs.shape[:-1], outputs.shape[-1]))


def shaped(outputs: Array, size: Sequence[int]) -> Array:
    """Outputs in another shape, as a result of their own.

    A view would be one to autograd: what writes to the outputs in place, and FSDP2, which hooks
    them, treat views apart.  torch reshapes the outputs of its own products like this.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return outputs.reshape(*size)  # sizes are tensors then
    result: Array = torch.ops.aten._unsafe_view(outputs, size)
    return result


def autocast(inputs: Array, bias: Array | None, tensors: Sequence[Array]) -> tuple[Array, Array | None, list[Array]]:
    """Under autocast, everything in its dtype but float64, which torch leaves alone as well.

    Casts outside of our operation have torch's own gradients.
    """
    check_layer(tensors)
    kind = inputs.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return inputs, bias, list(tensors)
    dtype = torch.get_autocast_dtype(kind)
    return _cast(inputs, dtype), None if bias is None else _cast(bias, dtype), [_cast(one, dtype) for one in tensors]


def _cast(array: Array, dtype: torch.dtype) -> Array:
    return array.to(dtype) if array.is_floating_point() and array.dtype != torch.float64 else array


def leaf(layer: Any, inputs: Proxy) -> Any:
    """The layer as one node of a graph that `torch.fx` records, as the layers of torch are."""
    tracer: Any = inputs.tracer
    if tracer.root is layer:
        raise InputError(
            "torch.fx traces a single layer of mponet; expected a module that holds it, which records it as one node; "
            "wrap it: torch.nn.Sequential(layer)"
        )
    return tracer.create_proxy("call_module", tracer.path_of_module(layer), (inputs,), {})


def nested(layer: Any, inputs: Array, features: int) -> Array:
    """A nested tensor of outputs.

    Jagged ones keep their offsets, so that they still add to others of the batch.

    Args:
        layer: the layer.
        inputs: a nested tensor.
        features: number of last axes that the layer acts on.
    """
    ragged = getattr(inputs, "_ragged_idx", 0)
    if inputs.layout == torch.jagged and inputs.lengths() is None and ragged < inputs.ndim - features:  # type: ignore[attr-defined]
        values = layer(inputs.values())
        return torch.nested.nested_tensor_from_jagged(values, inputs.offsets(), jagged_dim=ragged)  # type: ignore[attr-defined]
    parts = [layer(part) for part in inputs.unbind()]
    return torch.nested.as_nested_tensor(parts, layout=inputs.layout)
