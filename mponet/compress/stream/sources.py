"""Checkpoints of several formats behind one door: names and shapes first, tensors one at a time.

A `Source` reads nothing but headers when it is opened.  ``read`` gives one tensor as numpy, so that
a program needs the memory of the largest tensor, not of the checkpoint.  No format is unpickled
here: state dicts of PyTorch are read by the adapter, with ``weights_only``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.backend import load
from mponet.compress.stream.header import DTYPES, FLOATS, ITEMSIZE, Entry, read_header
from mponet.compress.stream.npz import read_member, read_members
from mponet.errors import CheckpointError
from mponet.files import read_json as read_document

INDEX = "model.safetensors.index.json"
#: Longest index or configuration file that is read, in bytes.
MAX_JSON = 64_000_000
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint that is open for reading, one tensor at a time.

    Attributes:
        path: file or folder.
        entries: dtype and shape of each tensor, by name.
        metadata: strings by name.
        carried: other files of the folder, such as configuration and tokenizer.
        reader: gives the tensor of an entry as it is stored; bfloat16 as ``uint16``.
    """

    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str] = field(default_factory=dict)
    carried: tuple[Path, ...] = ()
    reader: Callable[[Entry], Array] = field(default=lambda entry: read_bytes(entry), repr=False)

    def raw(self, name: str) -> Array:
        """The tensor as it is stored; bfloat16 and float8 as whole numbers of their width."""
        return self.reader(self.entries[name])

    def read(self, name: str) -> Array:
        """The tensor as float64.

        Raises:
            CheckpointError: it is not a floating-point tensor, or holds values that are not finite.
        """
        entry = self.entries[name]
        if entry.dtype not in FLOATS:
            raise CheckpointError(f"{name} of {self.path} has dtype {entry.dtype}; expected one of {', '.join(FLOATS)}")
        values = self.raw(name)
        if entry.dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        numbers = values.astype(np.float64)
        if not np.isfinite(numbers).all():
            raise CheckpointError(
                f"{name} of {self.path} has {int(numbers.size - np.isfinite(numbers).sum())} values that are not "
                "finite; expected none; take another checkpoint"
            )
        return numbers


def open_source(path: Path) -> Source:
    """Open a checkpoint: a file or a folder.

    Args:
        path: a safetensors, ``.npz``, PyTorch (``.pt``, ``.pth``, ``.bin``) or ``.gguf`` file, or a
            folder with safetensors files, single or sharded with an index.

    Raises:
        CheckpointError: there is no such file, or it is not usable.
        BackendError: a PyTorch file needs PyTorch, which is not installed.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder; expected a checkpoint; check the path")
    openers: Mapping[str, Callable[[Path], Source]] = {
        ".safetensors": _safetensors,
        ".npz": _npz,
        ".gguf": _gguf,
        **dict.fromkeys((".pt", ".pth", ".bin"), _torch),
    }
    if path.suffix not in openers:
        raise CheckpointError(
            f"{path} ends in {path.suffix!r}; expected one of {', '.join(openers)}, or a folder; rename or convert it"
        )
    return openers[path.suffix](path)


def read_bytes(entry: Entry) -> Array:
    """The tensor of an entry of a safetensors file, as it is stored.

    Raises:
        CheckpointError: the file changed since its header was read.
    """
    with entry.file.open("rb") as stream:
        stream.seek(entry.begin)
        values = np.fromfile(stream, DTYPES[entry.dtype], entry.size)
    if values.size != entry.size:
        raise CheckpointError(
            f"{entry.file} ends inside the tensor {entry.name!r}; expected a whole file; copy it again"
        )
    return values.reshape(entry.shape)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of limited size.

    Raises:
        CheckpointError: the file cannot be read or holds something else.
    """
    return read_document(path, dict, limit=MAX_JSON, remedy="copy it again")


def _npz(path: Path) -> Source:
    return Source(path, read_members(path), reader=read_member)


def _safetensors(path: Path) -> Source:
    header = read_header(path)
    return Source(path, header.entries, header.metadata)


def _folder(path: Path) -> Source:
    index = path / INDEX
    shards = _shards(index) if index.is_file() else sorted(path.glob("*.safetensors"))
    if not shards:
        raise CheckpointError(f"{path} holds no safetensors file and no {INDEX}; expected one; take another folder")
    entries: dict[str, Entry] = {}
    metadata: dict[str, str] = {}
    for shard in shards:
        header = read_header(shard)
        if twice := sorted(entries.keys() & header.entries.keys()):
            raise CheckpointError(f"{path} holds the tensor {twice[0]!r} in two files; expected one; remove a file")
        entries |= header.entries
        metadata |= header.metadata
    carried = [file for file in sorted(path.iterdir()) if file.is_file() and file.suffix != ".safetensors"]
    return Source(path, entries, metadata, tuple(file for file in carried if file != index))


def _shards(index: Path) -> list[Path]:
    """The files that an index names: plain names in its own folder."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{index} has no usable weight_map; expected file names by tensor name")
    names = sorted(set(places.values()))
    if odd := [name for name in names if Path(name).name != name or name in ("", ".", "..")]:
        raise CheckpointError(f"{index} names the file {odd[0]!r}; expected a plain name in the same folder")
    shards = [index.parent / name for name in names]
    held = {name: shard.name for shard in shards for name in read_header(shard).entries}
    if held != places:
        odd = sorted(name for name in held.keys() | places.keys() if held.get(name) != places.get(name))
        raise CheckpointError(f"{index} and its files differ in {odd[:3]}; expected the same tensors; copy them again")
    return shards


def _torch(path: Path) -> Source:
    """Through the PyTorch adapter: mapped into memory, ``weights_only``."""
    tensors: Mapping[str, Any] = load("torch").read_state_dict(path)  # type: ignore[attr-defined]
    entries = {name: _entry(path, name, code, shape) for name, (code, shape, _) in tensors.items()}
    return Source(path, entries, reader=lambda entry: np.asarray(tensors[entry.name][2]()))


def _gguf(path: Path) -> Source:
    """Through the ``gguf`` package, quantised tensors dequantised to float32 when they are read."""
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise CheckpointError(f"{path} needs the package gguf, which is not installed; pip install gguf") from error
    try:
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    except Exception as error:  # the reader trusts the file: any failure means that it is damaged
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}: {error}); copy it again") from error
    entries = {
        name: _entry(path, name, "F32", tuple(int(size) for size in reversed(tensor.shape)))
        for name, tensor in tensors.items()
    }

    def reader(entry: Entry) -> Array:
        tensor = tensors[entry.name]
        return np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32).reshape(entry.shape)

    return Source(path, entries, reader=reader)


def _entry(path: Path, name: str, code: str, shape: tuple[int, ...]) -> Entry:
    return Entry(name, code, shape, path, 0, prod(shape) * ITEMSIZE[code])
