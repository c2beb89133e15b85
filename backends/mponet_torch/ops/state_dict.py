"""State dicts of PyTorch as a source of matrices: mapped into memory, read without running code."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from mponet.errors import CheckpointError

#: Codes of the safetensors format.
CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.bool: "BOOL",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
}
#: Code, shape, and a function that reads the values; bfloat16 as ``uint16``.
Entry = tuple[str, tuple[int, ...], Callable[[], NDArray[Any]]]


def read_state_dict(path: Path) -> Mapping[str, Entry]:
    """The tensors of a state dict by name; values are read when they are asked for.

    Args:
        path: what `torch.save` wrote: a state dict, or a mapping that holds one as ``state_dict``.

    Raises:
        CheckpointError: the file is damaged, holds code, or holds no state dict.
    """
    try:
        loaded = _load(path)
    except Exception as error:  # the unpickler of torch fails in many ways; all mean that the file is unusable
        reason = str(error).split("\n")[0][:200]
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {reason}); expected a state dict that torch.save wrote; "
            "save model.state_dict() again"
        ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    tensors = loaded if isinstance(loaded, Mapping) else {}
    if not tensors or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in tensors.items()):
        raise CheckpointError(f"{path} holds no state dict; expected tensors by name; save model.state_dict()")
    if odd := [name for name, tensor in tensors.items() if tensor.dtype not in CODES or tensor.is_sparse]:
        raise CheckpointError(f"{odd[0]} of {path} has dtype {tensors[odd[0]].dtype}; expected plain dense numbers")
    return {name: (CODES[tensor.dtype], tuple(tensor.shape), _reader(tensor)) for name, tensor in tensors.items()}


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)  # the format before torch 1.6


def _reader(tensor: torch.Tensor) -> Callable[[], NDArray[Any]]:
    plain = tensor.detach()
    return lambda: (plain.view(torch.uint16) if plain.dtype == torch.bfloat16 else plain).contiguous().numpy()
