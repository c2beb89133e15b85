"""Safetensors files written as a stream.

A header, then each tensor's bytes, read as they are written.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mponet.compress.stream.header import DTYPES, ITEMSIZE, Entry
from mponet.errors import CheckpointError
from mponet.files import write_chunks, writing

#: Bytes that are copied at a time.
CHUNK = 1 << 24


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor to be written.

    Attributes:
        name: its name in the new file.
        dtype: code of the format.
        shape: sizes of its axes.
        origin: where its bytes lie, or the values themselves.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    origin: Entry | NDArray[np.generic]

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return prod(self.shape) * ITEMSIZE[self.dtype]


def encoded(values: NDArray[np.float64], dtype: str) -> NDArray[np.generic]:
    """Values in a dtype of the format; bfloat16 is rounded to the nearest, ties to even.

    Raises:
        CheckpointError: a value is too large for the dtype.
    """
    if dtype == "BF16":
        words = values.astype(np.float32).view(np.uint32)
        rounded = ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16)
        result, finite = rounded, bool(((rounded & 0x7F80) != 0x7F80).all())
    else:
        with np.errstate(over="ignore"):
            result = values.astype(DTYPES[dtype])
        finite = bool(np.isfinite(result).all())
    if not finite:
        raise CheckpointError(f"a fitted value is too large for {dtype}; expected finite numbers; use a wider dtype")
    return result


def write_safetensors(path: Path, pieces: Iterable[Piece], metadata: Mapping[str, str]) -> None:
    """Write a file atomically; memory is that of one chunk.

    The bytes depend on the pieces and the metadata alone.

    Raises:
        CheckpointError: the file cannot be written, or an origin ends early.
    """
    ordered = sorted(pieces, key=lambda piece: (-ITEMSIZE[piece.dtype], piece.name))  # aligned, as the format advises
    fields: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    place = 0
    for piece in ordered:
        fields[piece.name] = {
            "dtype": piece.dtype,
            "shape": list(piece.shape),
            "data_offsets": [place, place + piece.nbytes],
        }
        place += piece.nbytes
    header = json.dumps(fields, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    start = len(header).to_bytes(8, "little") + header
    with writing(path):
        write_chunks(path, chain([start], chain.from_iterable(map(_bytes, ordered))))


def _bytes(piece: Piece) -> Iterator[bytes | memoryview]:
    if not isinstance(piece.origin, Entry):
        yield np.ascontiguousarray(piece.origin).tobytes()
        return
    left = piece.origin.nbytes
    with piece.origin.file.open("rb") as stream:
        stream.seek(piece.origin.begin)
        while left:
            chunk = stream.read(min(CHUNK, left))
            if not chunk:
                raise CheckpointError(
                    f"{piece.origin.file} ends inside {piece.origin.name!r}; expected a whole file; copy it again"
                )
            left -= len(chunk)
            yield chunk
