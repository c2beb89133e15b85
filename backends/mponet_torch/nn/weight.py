"""`DenseWeight`.

The matrix of a layer for code that reads ``layer.weight``, built when it is first used.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mponet.errors import InputError
from mponet_torch.ops.arrays import Array

#: What is known without building the matrix.
FACTS = frozenset(
    (
        *(getattr(torch.Tensor, name).__get__ for name in ("shape", "dtype", "device", "requires_grad", "layout")),
        *(getattr(torch.Tensor, name).__get__ for name in ("ndim", "is_cuda", "is_meta", "is_sparse", "is_nested")),
        *(torch.Tensor.size, torch.Tensor.dim, torch.Tensor.numel, torch.Tensor.is_floating_point),
        *(torch.Tensor.is_complex, torch.Tensor.__len__, torch.Tensor.get_device, torch.is_floating_point),
    )
)


class DenseWeight(torch.Tensor):
    """The dense matrix ``(out_features, in_features)`` of a layer, as `torch.nn.Linear` has it.

    Shape, dtype and device are known at once.  Anything else builds the matrix, with gradients that
    reach the layer's parameters.  It is read-only, because a write would not reach them.
    """

    _build: Callable[[], Array]
    #: So that `transformers` does not try to initialise it: the layer has initialised its cores.
    _is_hf_initialized = True

    @staticmethod
    def __new__(cls: type, like: Array, size: Sequence[int], requires_grad: bool, build: Callable[[], Array]) -> Any:
        """A weight with the dtype and device of ``like``; ``build`` makes it when it is used."""
        options: dict[str, Any] = {"dtype": like.dtype, "device": like.device, "requires_grad": requires_grad}
        weight: Any = torch.Tensor._make_wrapper_subclass(cls, size, **options)
        weight._build = build
        return weight

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer facts, refuse writes, and give everything else the matrix."""
        kwargs = kwargs or {}
        if func in FACTS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        first = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(first, cls):
            if func == _DATA:  # the same without gradients, so that ``weight.data.mul_`` is refused as well
                return cls(first, tuple(first.shape), False, lambda: first._build().detach())
            _refuse_writes(func)
        if isinstance(kwargs.get("out"), cls):
            _refuse_writes(torch.Tensor.copy_)
        return func(*_built(args), **_built(kwargs))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """What reaches torch itself gets the matrix."""
        return func(*_built(args), **_built(kwargs or {}))


def _built(value: Any) -> Any:
    if isinstance(value, DenseWeight):
        return value._build()
    if isinstance(value, dict):
        return {key: _built(inner) for key, inner in value.items()}
    return type(value)(map(_built, value)) if type(value) in (tuple, list) else value


def _refuse_writes(func: Any) -> None:
    """Refuse methods that write to their first argument.

    Their names end with an underscore, or set something.
    """
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    if in_place or name in ("__set__", "__setitem__", "__delete__") or (name.startswith("__i") and name not in _READS):
        raise InputError(
            f"{name} writes to the weight of an mponet layer; expected reads only, because its parameters are the "
            "tensors of the operator; use layer.assign, or to_dense for a torch.nn.Linear"
        )


_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]
_READS = ("__invert__", "__index__", "__int__")
