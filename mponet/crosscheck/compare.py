"""Comparison of the answers of backends.

The error of a tensor is the largest absolute difference over the largest absolute value of either
tensor; if the bound asks for it, the Euclidean norm of the difference over that of the tensor.

A tensor below the floor of the bound, a share of the largest tensor of its quantity, is measured
against that share instead, since a tensor that is zero except for rounding has no relative error.
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
#: Name of a backend, and its tensors of one quantity.
Side = tuple[str, Mapping[str, Numbers]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two backends compared on one quantity.

    Attributes:
        quantity: ``forward``, ``dropout``, ``loss``, ``statistics``, ``gradients``, or the name of
            a recipe.
        first: name of one backend.
        second: name of the other.
        error: largest error of any tensor.
        worst: name of the tensor with that error.
        bound: largest allowed error.
        norm: norm of differences and tensors.

    >>> print(Comparison("loss", "torch", "jax", 1e-14, "loss", 1e-12))
    loss       torch, jax           1.0e-14 within 1.0e-12  loss
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
        """The norm in parentheses, if it is not the default."""
        return " (Euclidean)" if self.norm == "euclidean" else ""

    def __str__(self) -> str:
        pair = f"{self.first}, {self.second}"
        sign = "within" if self.ok else "BEYOND"
        return f"{self.quantity:<10} {pair:<20} {self.error:.1e} {sign} {self.bound:.1e}  {self.worst}{self.measured}"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a cross-check.

    Attributes:
        model: name of the network.
        variant: ``dense`` or ``mpo``.
        bond: chosen bond dimension; None for the published one.
        dtype: floating-point type of the backends (the reference always computes in float64).
        seed: seed of parameters and batch.
        batch: number of examples.
        backends: versions and device of each backend.
        comparisons: comparisons of every pair and quantity.
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
        """Whether all errors are within their bounds."""
        return all(comparison.ok for comparison in self.comparisons)

    @property
    def title(self) -> str:
        """Network, dtype, batch and seed in one line."""
        bond = "" if self.bond is None else f", bond {self.bond}"
        return f"{self.model} ({self.variant}{bond}), {self.dtype}, {self.batch} images, seed {self.seed}"

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        broken, total = sum(not comparison.ok for comparison in self.comparisons), len(self.comparisons)
        return f"{broken} of {total} beyond their bounds." if broken else f"All {total} within bounds."

    def __str__(self) -> str:
        return "\n".join([self.title, *map(str, self.comparisons), self.verdict])

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON, each comparison with its ``ok``."""
        rows = [{**asdict(comparison), "ok": comparison.ok} for comparison in self.comparisons]
        return {**asdict(self), "comparisons": rows, "ok": self.ok}


def compare(answers: Mapping[str, Answers], bounds: Mapping[str, Bound]) -> tuple[Comparison, ...]:
    """Compare every pair of backends on every quantity that both have.

    Args:
        answers: tensors by backend.
        bounds: bounds by quantity; their order is that of the result.

    Raises:
        BackendError: an answer is not finite, or a pair has different tensors.
    """
    comparisons = []
    for quantity, bound in bounds.items():
        having = [name for name in answers if quantity in answers[name]]
        for first, second in combinations(having, 2):
            sides = (first, answers[first][quantity]), (second, answers[second][quantity])
            error, worst = _worst(sides, quantity, bound)
            comparisons.append(Comparison(quantity, first, second, error, worst, bound.error, bound.norm))
    return tuple(comparisons)


def _worst(sides: tuple[Side, Side], quantity: str, bound: Bound) -> tuple[float, str]:
    """The largest error, and the name of its tensor."""
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
    """Largest absolute value, or root mean square.

    The root mean square does not depend on the number of entries.
    """
    return float(np.sqrt(np.mean(value**2)) if norm == "euclidean" else np.abs(value).max(initial=0.0))


def _error(ours: Numbers, theirs: Numbers, norm: Norm, scale: float) -> float:
    difference = _size(ours.astype(np.float64) - theirs.astype(np.float64), norm)
    return difference / scale if difference else 0.0
