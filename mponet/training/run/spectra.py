"""Spectra of the operators of a network as JSON lines: one line at the start, one per evaluation.

A line names step and epoch and, for each operator, what `mponet.operators.measure` says of every
inner bond: entanglement entropy (at most ``ln D``) and singular values, descending (wrapped here)::

    {"step": 600, "epoch": 1.0, "operators": {
      "fc1": {"entropy": [1.2, ...], "singular_values": [[8.1, ...], ...]}}}

The parameters are those that are evaluated, so averages where the recipe averages.  A measurement
costs one QR and one small singular value decomposition per bond, about ``D^3`` each
(`benchmarks/spectra.py` compares it with the training).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mponet.backend import Numbers
from mponet.errors import CheckpointError
from mponet.files import parse_json, write_atomically, writing
from mponet.models.shapes import operators
from mponet.models.spec import Model
from mponet.operators.measure import entropy
from mponet.operators.mpo import MPO
from mponet.training.run.lines import complete_lines
from mponet.training.schema import Count, Entropy, Epoch, Magnitude, Name

NAME = "spectra.jsonl"
DIGITS = 6  # of what is written; single precision has no more that are sure


@dataclass(frozen=True, slots=True)
class Bonds:
    """The inner bonds of one operator, from left to right.

    Attributes:
        entropy: entanglement entropy ``S_k``, natural logarithm.
        singular_values: of the matrix unfolded at each bond, descending, as many as the bond is
            wide.
    """

    entropy: tuple[Entropy, ...]
    singular_values: tuple[tuple[Magnitude, ...], ...]

    def __post_init__(self) -> None:
        if len(self.entropy) != len(self.singular_values) or not all(self.singular_values):
            raise CheckpointError(
                f"an operator has {len(self.entropy)} entropies and {len(self.singular_values)} lists of singular "
                "values; expected as many, none of them empty; measure again"
            )


@dataclass(frozen=True, slots=True)
class Spectra:
    """All operators of a network at one moment of its training.

    Attributes:
        step: optimiser steps done.
        epoch: the same in epochs.
        operators: by name of the layer.
    """

    step: Count
    epoch: Epoch
    operators: dict[Name, Bonds]

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def has_operators(model: Model) -> bool:
    """Whether there is anything to measure."""
    return bool(operators(model))


def measure(model: Model, parameters: Mapping[str, Numbers], step: int, epoch: float) -> Spectra:
    """The spectra of all operators.

    Args:
        model: the network.
        parameters: by canonical name, finite.
        step: at which it has them.
        epoch: the same in epochs.
    """
    return Spectra(step, epoch, {operator.name: _bonds(operator.mpo(parameters)) for operator in operators(model)})


def read(path: Path) -> list[Spectra]:
    """The lines of a file.

    None if it is absent, as in a folder of an mponet that did not measure yet.

    Raises:
        CheckpointError: a line is not one of ours.
    """
    found: list[Spectra] = []
    for number, line in enumerate(complete_lines(path) or (), start=1):
        found.append(_spectra(line, number, path))
        if found[-1].step <= (found[-2].step if number > 1 else -1) or _layout(found[-1]) != _layout(found[0]):
            raise CheckpointError(_damaged(line, number, path, "does not follow the line before"))
    return found


def truncate_after(path: Path, step: int) -> None:
    """Drop the lines after ``step``, which the run that resumes there will write again.

    0 drops all.

    Raises:
        CheckpointError: a line is not one of ours, or the file cannot be written.
    """
    if step == 0:
        with writing(path):
            path.unlink(missing_ok=True)
    elif lines := complete_lines(path):
        kept = [line for line, spectra in zip(lines, read(path), strict=True) if spectra.step <= step]
        with writing(path):
            write_atomically(path, b"".join(line + b"\n" for line in kept))


def _bonds(mpo: MPO) -> Bonds:
    values = mpo.spectra()
    return Bonds(
        tuple(_rounded(entropy(of_bond)) for of_bond in values),
        tuple(tuple(_rounded(value) for value in of_bond) for of_bond in values),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _spectra(line: bytes, number: int, path: Path) -> Spectra:
    try:
        return parse_json(line, Spectra)
    except ValueError as error:
        raise CheckpointError(_damaged(line, number, path, error)) from error


def _damaged(line: bytes, number: int, path: Path, error: Exception | str) -> str:
    return (
        f"line {number} of {path} is {line[:80]!r} ({error}); expected the spectra of a network's operators; delete "
        "the file to continue without those of earlier steps"
    )


def _layout(spectra: Spectra) -> dict[str, int]:
    """Number of bonds by operator."""
    return {name: len(bonds.entropy) for name, bonds in spectra.operators.items()}
