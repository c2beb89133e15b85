"""The header of a safetensors file, checked before any tensor is read.

The format is eight bytes with the length of a JSON header, the header, then the tensors' bytes. The
header gives each tensor's dtype, shape and byte range.  Everything that a hostile or truncated file
can get wrong is refused here, so that reading allocates no more than the file holds.

Source: the format description of the safetensors package.
"""

import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from mponet.errors import CheckpointError

#: numpy's dtype for each code of the format; those that numpy lacks as whole numbers of their
#: width.
DTYPES: Mapping[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "BOOL": np.bool_,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "F8_E4M3": np.uint8,
    "F8_E5M2": np.uint8,
}
#: Bytes per number of each dtype.
ITEMSIZE: Mapping[str, int] = {code: np.dtype(dtype).itemsize for code, dtype in DTYPES.items()}
_CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items() if code[0] != "B" or code == "BOOL"}
#: Dtypes that hold weights.
FLOATS = ("F64", "F32", "F16", "BF16")
#: Longest header in bytes, the limit of the safetensors package.
MAX_HEADER = 100_000_000
#: Most axes of a tensor, numpy's limit.
MAX_AXES = 64


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies.

    Attributes:
        name: of the tensor.
        dtype: code of the format, as ``F32``.
        shape: sizes of its axes.
        file: the file that holds it.
        begin: first byte in the file.
        end: byte after the last.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says of itself.

    Attributes:
        entries: of each tensor, by name, in the order of their bytes.
        metadata: strings by name.
        start: first byte after the header.
    """

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    start: int


def code_of(dtype: Any, what: str) -> str:
    """The code of a numpy dtype.

    Args:
        dtype: the dtype, of either byte order.
        what: the tensor, for the error.

    Raises:
        CheckpointError: the format has no such numbers.
    """
    code = _CODES.get(np.dtype(dtype).newbyteorder("="))
    if code is None:
        raise CheckpointError(f"{what} has dtype {dtype}; expected one of {', '.join(DTYPES)}; convert it first")
    return code


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file; no tensor is read.

    Args:
        path: a regular file.

    Raises:
        CheckpointError: the file cannot be read, or its header is not that of a whole file.
    """
    try:
        if not path.is_file():  # a pipe would block when it is opened
            raise _unusable(path, "is not a regular file")
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _unusable(path, "is not a regular file")
            length = int.from_bytes(stream.read(8), "little")
            if status.st_size < 8 or not 2 <= length <= min(MAX_HEADER, status.st_size - 8):
                raise _unusable(path, f"claims a header of {length} bytes in a file of {status.st_size}")
            payload = stream.read(length)
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error})") from error
    return _parsed(path, payload, 8 + length, status.st_size)


def _parsed(path: Path, payload: bytes, start: int, size: int) -> Header:
    try:
        fields = json.loads(payload, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _unusable(path, f"has a header that is not JSON ({type(error).__name__}: {error})") from error
    if not isinstance(fields, dict):
        raise _unusable(path, f"has a header of type {type(fields).__name__}")
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _unusable(path, "has metadata that are not strings")
    entries = [_entry(path, name, value, start) for name, value in fields.items()]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    _check_layout(path, entries, start, size)
    return Header({entry.name: entry for entry in entries}, metadata, start)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"the name {name[:80]!r} occurs twice")
        fields[name] = value
    return fields


def _entry(path: Path, name: str, value: Any, start: int) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _unusable(path, f"describes the tensor {name[:80]!r} in an unknown way")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if dtype not in ITEMSIZE if isinstance(dtype, str) else True:
        raise _unusable(path, f"gives the tensor {name[:80]!r} the dtype {str(dtype)[:40]!r}")
    if not _sizes(shape) or len(shape) > MAX_AXES:
        raise _unusable(path, f"gives the tensor {name[:80]!r} the shape {str(shape)[:80]}")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != prod(shape) * ITEMSIZE[dtype]:
        raise _unusable(path, f"gives the tensor {name[:80]!r} bytes that do not fit its shape {str(shape)[:80]}")
    return Entry(name, dtype, tuple(shape), path, start + offsets[0], start + offsets[1])


def _sizes(values: Any) -> bool:
    """Whether these are whole numbers of at least 0, none larger than any file."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _check_layout(path: Path, entries: list[Entry], start: int, size: int) -> None:
    """Tensors lie next to one another and fill the file: nothing overlaps, nothing is hidden."""
    position = start
    for entry in entries:
        if entry.begin != position:
            raise _unusable(path, f"leaves a gap or an overlap before the tensor {entry.name[:80]!r}")
        position = entry.end
    if position != size:
        raise _unusable(path, f"has {size} bytes where its header describes {position}")


def _unusable(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} {what}; expected a whole safetensors file; copy it again, or take another")
