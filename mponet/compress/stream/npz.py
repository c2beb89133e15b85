"""Members of a numpy ``.npz`` file, one by one.

Every size is checked before memory is taken.
"""

import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mponet.compress.stream.header import MAX_AXES, Entry, code_of
from mponet.errors import CheckpointError

T = TypeVar("T")
#: Deflate cannot shrink further than this, so a member that claims more is a lie.
MAX_RATIO = 1032
_DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, SyntaxError)


def read_members(path: Path) -> Mapping[str, Entry]:
    """Name, dtype and shape of each member; no values are read.

    Raises:
        CheckpointError: the file is damaged, or a member is not an array of numbers.
    """
    return _guarded(path, lambda archive: {e.name: e for e in (_entry(path, archive, m) for m in archive.infolist())})


def read_member(entry: Entry) -> NDArray[Any]:
    """The values of a member.

    Raises:
        CheckpointError: the file is damaged, or changed since it was opened.
    """

    def values(archive: zipfile.ZipFile) -> NDArray[Any]:
        with archive.open(f"{entry.name}.npy") as stream:
            shape, fortran, dtype = _array_header(stream)
            payload = stream.read(entry.nbytes)
        if shape != entry.shape or len(payload) != entry.nbytes:
            raise ValueError(f"the member {entry.name!r} ends early")
        flat = np.frombuffer(payload, dtype)
        return (flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)).astype(dtype.newbyteorder("="))

    return _guarded(entry.file, values)


def _guarded(path: Path, use: Callable[[zipfile.ZipFile], T]) -> T:
    try:
        with zipfile.ZipFile(path) as archive:
            return use(archive)
    except _DAMAGED as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected an npz file; copy it again"
        ) from error


def _entry(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Entry:
    name = member.filename.removesuffix(".npy")
    if name == member.filename or member.file_size > MAX_RATIO * (member.compress_size + 1):
        raise ValueError(f"the member {member.filename!r} is not an array")
    with archive.open(member) as stream:
        shape, _, dtype = _array_header(stream)
        begin = stream.tell()
    entry = Entry(name, code_of(dtype, f"{name} of {path}"), shape, path, begin, member.file_size)
    if entry.nbytes != entry.size * dtype.itemsize:
        raise ValueError(f"the member {name!r} has {entry.nbytes} bytes for the shape {shape}")
    return entry


def _array_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, "np.dtype[Any]"]:
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(stream)
    if len(shape) > MAX_AXES or any(size < 0 for size in shape):
        raise ValueError(f"a member has the shape {shape}")
    return shape, fortran, dtype
