"""`WorkFolder`: what a compression has done so far, kept so that a killed one goes on.

In the folder::

    sums-<key>-<batches>.safetensors   sums over the batches so far, about once a minute
    sums-<key>.safetensors             sums over all data
    options-<key>.safetensors          what one layer may become
    fitted-<key>.safetensors           one fitted layer

A key is a hash of everything that the content depends on, so a folder serves several budgets and
edited plans of one network, and a part of another network or other data is never taken.  Files are
written whole or not at all.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet._version import __version__
from mponet.compress.calibrate import Calibration
from mponet.compress.stream.header import read_header
from mponet.compress.stream.sources import read_bytes
from mponet.compress.stream.writing import Piece, write_safetensors
from mponet.compress.target import Target
from mponet.errors import CheckpointError
from mponet.files import remove_leftovers, writing

Array = NDArray[Any]
#: Changes whenever a part's content or format does.
FORMAT = "mponet-work-1"


@dataclass(frozen=True, slots=True)
class Part:
    """What a file of the folder holds.

    Attributes:
        values: arrays by name.
        details: the rest, as JSON.
    """

    values: Mapping[str, Array]
    details: Mapping[str, Any]


class WorkFolder:
    """A folder with the finished steps of compressions of one network.

    Args:
        path: the folder; it is made if it is not there.

    Raises:
        CheckpointError: it cannot be made.
    """

    def __init__(self, path: str | Path) -> None:
        self.path: Path = Path(path)
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.path)

    def part(self, kind: str, key: str, make: Callable[[], Part]) -> Part:
        """A part from its file, or made now and written.

        Raises:
            CheckpointError: the file is damaged, or cannot be written.
        """
        file = self.path / f"{kind}-{key}.safetensors"
        if file.is_file():
            return _read(file)
        part = make()
        _write(file, part)
        return part

    def sums(self, key: str) -> tuple[Calibration, int | None]:
        """The latest sums, and the number of batches that they hold; None if they hold all.

        Raises:
            CheckpointError: a file is damaged.
        """
        whole = self._sums_file(key)
        if whole.is_file():
            return Calibration.load(whole), None
        batches = [int(file.stem.rpartition("-")[2]) for file in self.path.glob(f"sums-{key}-*.safetensors")]
        if not batches:
            return Calibration(), 0
        return Calibration.load(self._sums_file(key, max(batches))), max(batches)

    def save_sums(self, key: str, sums: Calibration, batches: int | None) -> None:
        """Write the sums over some batches, or over all (None), and remove the file before.

        Raises:
            CheckpointError: the file cannot be written.
        """
        file = self._sums_file(key, batches)
        sums.save(file)
        for old in self.path.glob(f"sums-{key}-*.safetensors"):
            if old != file:
                old.unlink(missing_ok=True)

    def _sums_file(self, key: str, batches: int | None = None) -> Path:
        return self.path / (f"sums-{key}.safetensors" if batches is None else f"sums-{key}-{batches}.safetensors")


def key_of(*things: object) -> str:
    """A hash of some values, by their reprs; arrays by their bytes."""
    digest = sha256(f"{FORMAT} {__version__}".encode())
    for thing in things:
        _feed(digest, thing)
    return digest.hexdigest()[:24]


def weights_key(targets: Iterable[Target]) -> str:
    """A hash of the names and the weights of some modules."""
    digest = sha256()
    for target in targets:
        _feed(digest, (target.name, target.kind, target.in_features, target.out_features))
        _feed(digest, target.load())
        _feed(digest, None if target.load_bias is None else target.load_bias())
    return digest.hexdigest()


def batch_key(batch: Any) -> str:
    """A hash of a batch of any framework, as far as numpy reads its arrays."""
    digest = sha256()
    _feed(digest, batch)
    return digest.hexdigest()


def _write(file: Path, part: Part) -> None:
    codes = {"float64": "F64", "int64": "I64"}
    pieces = [Piece(name, codes[value.dtype.name], value.shape, value) for name, value in part.values.items()]
    details = json.dumps(part.details, allow_nan=False)
    write_safetensors(file, pieces, {"format": FORMAT, "details": details})


def _read(file: Path) -> Part:
    header = read_header(file)
    try:
        if header.metadata["format"] != FORMAT:
            raise KeyError(header.metadata["format"])
        details = json.loads(header.metadata["details"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{file} is not a part of a compression ({error}); expected one; remove it") from error
    return Part({name: read_bytes(entry) for name, entry in header.entries.items()}, details)


def _feed(digest: Any, thing: object) -> None:
    """Add a value to a hash, with its type and size so that no two values give the same bytes."""
    if isinstance(thing, Mapping):
        digest.update(f"map {len(thing)} ".encode())
        for name, value in thing.items():
            digest.update(f"{name!r} ".encode())
            _feed(digest, value)
    elif isinstance(thing, list | tuple):
        digest.update(f"list {len(thing)} ".encode())
        for value in thing:
            _feed(digest, value)
    elif (array := _as_array(thing)) is not None:
        digest.update(f"array {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    elif thing is None or isinstance(thing, str | bytes | bool | int | float):
        digest.update(f"{thing!r} ".encode())
    else:  # the repr of any object may hold its address
        digest.update(f"{type(thing).__qualname__} ".encode())


def _as_array(thing: object) -> Array | None:
    """A value as an array; None if it is none, or lies where numpy cannot read it."""
    if not hasattr(thing, "__array__"):
        return None
    try:
        return np.ascontiguousarray(thing)
    except (TypeError, RuntimeError, ValueError):
        return None
