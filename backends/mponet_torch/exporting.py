"""`export`: a module as a file that runs without mponet, or outside Python."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mponet.errors import ExportError
from mponet.export import TOLERANCE, Exported, Exporter, write_checked
from mponet.export.formats import format_for
from mponet_torch.compression import merging
from mponet_torch.ops.arrays import from_numpy, to_numpy

Arrays = Sequence[NDArray[Any]]
#: Largest size of an ONNX file, a limit of its format.
_MAX_ONNX_BYTES = (1 << 31) - 1


def export(
    model: nn.Module,
    path: str | Path,
    inputs: Any,
    *,
    to: str,
    merge: bool = False,
    dynamic: Sequence[int] = (0,),
    tolerance: float = TOLERANCE,
) -> Exported:
    """Write a module to a file, run the file, and compare.

    Args:
        model: a module with operators or without, in any mode; the file computes what ``eval``
            does.
        path: the file to be made.
        inputs: an example: an array, or a tuple of the module's positional arguments.
        to: ``torch-export``, ``aotinductor``, ``onnx`` or ``onnx-torchscript``
            (`mponet.export.FORMATS`).
        merge: whether operators are multiplied out first.  The file is larger then, and faster
            where dense layers are.
        dynamic: axes of every input that have any length in the file.
        tolerance: largest deviation that is accepted, relative to the largest output.

    Returns:
        What was written, and how far its outputs deviate.

    Raises:
        InputError: there is no such format, or the name of the file does not fit it.
        BackendError: a package is missing.
        CheckpointError: the file exists or cannot be written.
        ExportError: the module cannot be exported, or the file gives other outputs.

    Example:
        >>> import tempfile, torch
        >>> from mponet_torch import MPOLinear
        >>> layer = MPOLinear(64, 64, 4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = export(layer, f"{folder}/m.pt2", torch.ones(2, 64), to="torch-export")
        >>> written.deviation < 1e-5
        True
    """
    format_for(to, "torch")
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    arrays = [to_numpy(value) if isinstance(value, torch.Tensor) else np.asarray(value) for value in given]
    own = deepcopy(model).eval()
    wrapped = _Outputs(merging.merge(own, in_place=True)[0] if merge else own)
    options: dict[str, Any] = {"to": to, "framework": "torch", "dynamic": tuple(dynamic), "tolerance": tolerance}
    with _quiet(), torch.no_grad():
        return write_checked(EXPORTERS[to], wrapped.call, wrapped, Path(path), arrays, **options)


class _Outputs(nn.Module):
    """A module whose outputs are a tuple of tensors, whatever it returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        # models of transformers return a mapping; the cache in it is not an output
        self._options = {"use_cache": False} if hasattr(getattr(model, "config", None), "use_cache") else {}

    def forward(self, *inputs: Any) -> tuple[torch.Tensor, ...]:
        outputs = self.model(*inputs, **self._options)
        if isinstance(outputs, torch.Tensor):
            return (outputs,)
        values = outputs.values() if isinstance(outputs, Mapping) else outputs
        return tuple(value for value in values if isinstance(value, torch.Tensor))

    def tensors(self, inputs: Arrays) -> tuple[torch.Tensor, ...]:
        """Arrays on the module's device."""
        like = next(iter(self.parameters()), torch.empty(0))
        return tuple(from_numpy(value, torch.from_numpy(value).dtype, like.device) for value in inputs)

    def call(self, inputs: Arrays) -> Arrays:
        """Outputs as arrays."""
        return _arrays(self(*self.tensors(inputs)))


def _arrays(outputs: Any) -> Arrays:
    return [to_numpy(value) for value in (outputs if isinstance(outputs, tuple | list) else (outputs,))]


class _Program:
    """``torch.export``, traced strictly."""

    def write(self, model: _Outputs, inputs: Arrays, dynamic: tuple[int, ...], path: Path) -> None:
        torch.export.save(_program(model, inputs, dynamic), path)

    def run(self, path: Path, inputs: Arrays) -> Arrays:
        program = torch.export.load(path).module()
        return _arrays(program(*map(torch.from_numpy, inputs)))


class _Compiled:
    """AOTInductor: C++ compiled when it is written."""

    def write(self, model: _Outputs, inputs: Arrays, dynamic: tuple[int, ...], path: Path) -> None:
        torch._inductor.aoti_compile_and_package(_program(model, inputs, dynamic), package_path=str(path))

    def run(self, path: Path, inputs: Arrays) -> Arrays:
        return _arrays(torch._inductor.aoti_load_package(str(path))(*map(torch.from_numpy, inputs)))


class _Onnx:
    """ONNX by the exporter on top of ``torch.export``, or by the one that traces."""

    def __init__(self, dynamo: bool) -> None:
        self._dynamo = dynamo

    def write(self, model: _Outputs, inputs: Arrays, dynamic: tuple[int, ...], path: Path) -> None:
        size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
        if size > _MAX_ONNX_BYTES:
            raise ExportError(
                f"the weights have {size} bytes; expected at most {_MAX_ONNX_BYTES}, the limit of ONNX files"
            )
        names = [f"input{number}" for number in range(1, len(inputs) + 1)]
        options: dict[str, Any] = {"input_names": names, "dynamo": self._dynamo, "external_data": False}
        if self._dynamo:
            options |= {"dynamic_shapes": _dynamic_shapes(inputs, dynamic), "verbose": False}
        else:
            options |= {"dynamic_axes": {name: {axis: f"axis{axis}" for axis in dynamic} for name in names}}
        torch.onnx.export(model, model.tensors(inputs), path, **options)

    def run(self, path: Path, inputs: Arrays) -> Arrays:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        return list(session.run(None, dict(zip(names, inputs, strict=True))))


def _program(model: _Outputs, inputs: Arrays, dynamic: tuple[int, ...]) -> torch.export.ExportedProgram:
    return torch.export.export(
        model, model.tensors(inputs), dynamic_shapes=_dynamic_shapes(inputs, dynamic), strict=True
    )


def _dynamic_shapes(inputs: Arrays, dynamic: tuple[int, ...]) -> Any:
    """One length for each dynamic axis, shared by all inputs.

    The exported module takes any number of positional arguments, so they are one entry.
    """
    lengths = {axis: torch.export.Dim(f"axis{axis}") for axis in dynamic}
    return (tuple(dict(lengths) for _ in inputs),)


@contextmanager
def _quiet() -> Any:
    """Inside, exporters do not warn of their own insides."""
    import logging

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def image_inputs(native: nn.Module, images: NDArray[Any]) -> NDArray[Any]:
    """Images NHWC as a lowered model takes them, NCHW."""
    return np.ascontiguousarray(np.asarray(images, np.float32).transpose(0, 3, 1, 2))


def native_state(native: nn.Module) -> dict[str, NDArray[Any]]:
    """The state dict of a lowered model as arrays."""
    return {name: to_numpy(value) for name, value in native.state_dict().items()}


def load_native_state(native: nn.Module, state: Mapping[str, NDArray[Any]]) -> None:
    """Overwrite a lowered model with what `native_state` gave.

    Raises:
        RuntimeError: names or shapes do not fit.
    """
    native.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})


#: What writes and runs each format.
EXPORTERS: Mapping[str, Exporter] = {
    "torch-export": _Program(),
    "aotinductor": _Compiled(),
    "onnx": _Onnx(dynamo=True),
    "onnx-torchscript": _Onnx(dynamo=False),
}
