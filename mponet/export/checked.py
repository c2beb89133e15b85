"""Write an exported network, run what was written, compare, and only then give it its name."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mponet.errors import CheckpointError, ExportError, InputError
from mponet.export.formats import format_for
from mponet.files import sync_folder, temporary_path, writing

Arrays = Sequence[NDArray[Any]]
#: Largest deviation that is accepted, relative to the largest output.
TOLERANCE = 1e-4


class Exporter(Protocol):
    """Writes and runs one format in one framework."""

    def write(self, model: Any, inputs: Arrays, dynamic: tuple[int, ...], path: Path) -> None:
        """Write ``model``; ``inputs`` are an example, their axes ``dynamic`` have any length."""

    def run(self, path: Path, inputs: Arrays) -> Arrays:
        """Load what was written, and run it."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        path: the file or folder.
        to: name of the format.
        deviation: largest difference between its outputs and those of the network, relative to the
            largest output; over the example and over one that is longer by one along each dynamic
            axis.
        nbytes: bytes on disk.
    """

    path: Path
    to: str
    deviation: float
    nbytes: int

    def __str__(self) -> str:
        size = f"{self.nbytes / 1e6:.1f} MB" if self.nbytes >= 100_000 else f"{self.nbytes / 1e3:.1f} kB"
        return f"{self.path}: {self.to}, {size}, deviation {self.deviation:.1e} after reloading"


def write_checked(
    exporter: Exporter,
    call: Callable[[Arrays], Arrays],
    model: Any,
    path: Path,
    inputs: Arrays,
    *,
    to: str,
    framework: str,
    dynamic: tuple[int, ...] = (0,),
    tolerance: float = TOLERANCE,
) -> Exported:
    """Export a network; ``path`` exists afterwards if the file gives what the network gives.

    Args:
        exporter: of the format.
        call: the outputs of the network.
        model: the network as ``exporter`` takes it.
        path: file or folder to be made; its folder exists.
        inputs: an example, one array for each argument.
        to: name of the format.
        framework: name of the adapter.
        dynamic: axes of the inputs that have any length in the exported network.
        tolerance: largest deviation that is accepted.

    Raises:
        InputError: the name of the file, or the inputs, do not fit.
        CheckpointError: ``path`` exists or cannot be written.
        ExportError: the framework cannot export the network, or the file gives something else.
    """
    kind = format_for(to, framework)
    if path.suffix != kind.suffix:
        expected = f"a name that ends in {kind.suffix}" if kind.suffix else "the name of a folder, without a suffix"
        raise InputError(f"the output is {path}; expected {expected} for {to}; rename it")
    if path.exists():
        raise CheckpointError(f"{path} exists; expected a new name; remove it, or choose another")
    examples = (inputs, [_longer(array, dynamic) for array in inputs])
    expected_outputs = [call(example) for example in examples]
    with writing(path):
        folder = temporary_path(path.parent)
        folder.mkdir()
    try:
        part = folder / path.name
        try:
            exporter.write(model, inputs, dynamic, part)
            outputs = [exporter.run(part, example) for example in examples]
        except Exception as error:  # exporters of frameworks fail in every way there is
            reason = str(error).strip().split("\n")[0][:300]
            raise ExportError(
                f"{framework} cannot export this network to {to} ({type(error).__name__}: {reason}); expected one that "
                "it can trace; try another format, or merge the operators"
            ) from error
        deviation = max(map(_deviation, outputs, expected_outputs))
        if not deviation <= tolerance:
            raise ExportError(
                f"the {to} file gives outputs that deviate by {deviation:.1e}; expected at most {tolerance:.1e}; "
                "nothing was written"
            )
        with writing(path):
            part.rename(path)
            sync_folder(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Exported(path, to, deviation, _bytes(path))


def _longer(array: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """The array with its first entries repeated at the end of some axes."""
    for axis in axes:
        array = np.concatenate([array, np.take(array, [0], axis)], axis)
    return array


def _deviation(found: Arrays, expected: Arrays) -> float:
    """Largest difference, relative to the largest value that is expected."""
    if [value.shape for value in found] != [value.shape for value in expected]:
        shapes = [[value.shape for value in values] for values in (found, expected)]
        raise ExportError(f"the exported network gives outputs of the shapes {shapes[0]}; expected {shapes[1]}")
    scale = max((float(np.abs(value).max(initial=0.0)) for value in expected), default=0.0) or 1.0
    differences = (np.abs(a.astype(np.float64) - b) for a, b in zip(found, expected, strict=True))
    worst = [float(difference.max(initial=0.0)) for difference in differences]
    return float(np.max(worst, initial=0.0)) / scale


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
