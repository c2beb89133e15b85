"""Answers against one another.

The error of a tensor is the largest absolute difference over the largest absolute value, of either
of the two; where the bound asks for it, the Euclidean norm of the difference over that of the
tensor.

A tensor that lies wholly below the bound's floor, a share of the largest of its quantity, is
measured against that
instead: what is zero but for rounding has no relative error.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.backend import Numbers
from mponet.crosscheck.bounds import Bound, Norm
from mponet.errors import BackendError

#: Tensors of a backend by quantity, then by name.
Answers = Mapping[str, Mapping[str, Numbers]]
#: A backend's name, and its tensors of one quantity.
Side = tuple[str, Mapping[str, Numbers]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two backends, one quantity.

    Attributes:
        quantity: ``forward``, ``dropout``, ``loss``, ``statistics``, ``gradients``, or the name of
            a recipe.
        first: a backend.
        second: another.
        error: the largest error of any tensor.
        worst: the tensor's name.
        bound: the largest error allowed.
        norm: what differences and tensors were measured by.
    """

    quantity: str
    first: str
    second: str
    error: float
    worst: str
    bound: float
    norm: Norm = "largest"

    @property
    def ok(self) -> bool:
        """Whether the error is within the bound."""
        return self.error <= self.bound

    @property
    def measured(self) -> str:
        """A word on the norm, where it is not the usual one."""
        return " (Euclidean)" if self.norm == "euclidean" else ""

    def __str__(self) -> str:
        pair = f"{self.first}, {self.second}"
        sign = "within" if self.ok else "BEYOND"
        return f"{self.quantity:<10} {pair:<20} {self.error:.1e} {sign} {self.bound:.1e}  {self.worst}{self.measured}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a cross-check found.

    Attributes:
        model: name of the network.
        variant: ``dense`` or ``mpo``.
        bond: the bond asked for; None for the published one.
        dtype: what was computed in (the reference always computes in float64).
        seed: of parameters and batch.
        batch: number of examples.
        backends: versions and device of each.
        comparisons: every pair and quantity.
    """

    model: str
    variant: str
    bond: int | None
    dtype: str
    seed: int
    batch: int
    backends: Mapping[str, Mapping[str, Any]]
    comparisons: tuple[Comparison, ...]

    @property
    def ok(self) -> bool:
        """Whether every bound is kept."""
        return all(comparison.ok for comparison in self.comparisons)

    @property
    def title(self) -> str:
        """What was compared."""
        bond = "" if self.bond is None else f", bond {self.bond}"
        return f"{self.model} ({self.variant}{bond}), {self.dtype}, {self.batch} images, seed {self.seed}"

    @property
    def verdict(self) -> str:
        """The outcome in a sentence."""
        broken, total = sum(not found.ok for found in self.comparisons), len(self.comparisons)
        return f"{broken} of {total} beyond their bounds." if broken else f"All {total} within bounds."

    def __str__(self) -> str:
        return "\n".join([self.title, *map(str, self.comparisons), self.verdict])

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON, each comparison with its ``ok``."""
        rows = [{**asdict(comparison), "ok": comparison.ok} for comparison in self.comparisons]
        return {**asdict(self), "comparisons": rows, "ok": self.ok}


def compare(answers: Mapping[str, Answers], bounds: Mapping[str, Bound]) -> tuple[Comparison, ...]:
    """Every pair of backends, on every quantity that both have.

    Args:
        answers: by backend.
        bounds: by quantity; their order is that of the result.

    Raises:
        BackendError: an answer is not finite, or a pair has different tensors.
    """
    found = []
    for quantity, bound in bounds.items():
        having = [name for name in answers if quantity in answers[name]]
        for first, second in combinations(having, 2):
            sides = (first, answers[first][quantity]), (second, answers[second][quantity])
            error, worst = _worst(sides, quantity, bound)
            found.append(Comparison(quantity, first, second, error, worst, bound.error, bound.norm))
    return tuple(found)


def _worst(sides: tuple[Side, Side], quantity: str, bound: Bound) -> tuple[float, str]:
    """The largest error, and whose it is."""
    (first, ours), (second, theirs) = sides
    shapes = [{name: value.shape for name, value in side.items()} for side in (ours, theirs)]
    if shapes[0] != shapes[1]:
        odd = sorted(name for name in shapes[0] | shapes[1] if shapes[0].get(name) != shapes[1].get(name))
        raise BackendError(
            f"{quantity} of backends {first!r} and {second!r} differ in names or shapes of {odd}; expected "
            "the canonical layout from both"
        )
    for backend, side in sides:
        for name, value in side.items():
            if not np.all(np.isfinite(value)):
                raise BackendError(f"{name} of backend {backend!r} is not finite; expected numbers; try another --seed")
    sizes = {name: max(_size(ours[name], bound.norm), _size(theirs[name], bound.norm)) for name in ours}
    largest = max(sizes.values())
    scales = {name: max(size, bound.floor(name) * largest) for name, size in sizes.items()}
    errors = {name: _error(ours[name], theirs[name], bound.norm, scales[name]) for name in ours}
    worst = max(errors, key=errors.__getitem__)
    return errors[worst], worst


def _size(value: NDArray[np.floating[Any]], norm: Norm) -> float:
    """Largest value, or root mean square, so that tensors of all lengths compare."""
    return float(np.sqrt(np.mean(value**2)) if norm == "euclidean" else np.abs(value).max(initial=0.0))


def _error(ours: Numbers, theirs: Numbers, norm: Norm, scale: float) -> float:
    difference = _size(ours.astype(np.float64) - theirs.astype(np.float64), norm)
    return difference / scale if difference else 0.0
