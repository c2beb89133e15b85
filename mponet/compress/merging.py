"""`MergeReport`: how far merged layers are from the operators that they were made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mponet.errors import CompressionError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What the ``merge`` of an adapter did.

    Attributes:
        deviations: relative difference ``||W' - W|| / ||W||`` of every weight ``W'`` as stored from
            the operator's matrix ``W`` in float64, by the name of the module.

    Examples:
        >>> print(MergeReport({"head": 3e-8, "body": 1e-8}))
        2 layers merged; stored weights differ by at most 3e-08 (head)
    """

    deviations: Mapping[str, float] = field(default_factory=dict)

    @property
    def deviation(self) -> float:
        """The largest of them; 0 if no layer was merged."""
        return max(self.deviations.values(), default=0.0)

    def __str__(self) -> str:
        if not self.deviations:
            return "0 layers merged"
        worst = max(self.deviations, key=lambda name: self.deviations[name])
        return f"{len(self.deviations)} layers merged; stored weights differ by at most {self.deviation:.2g} ({worst})"


def deviation(name: str, matrix: Array, stored: NDArray[np.floating]) -> float:
    """``||W' - W|| / ||W||`` of a stored weight; 0 where both are zero.

    Args:
        name: of the module, for the error.
        matrix: ``W``, float64.
        stored: ``W'``, of as many entries in the same order.

    Raises:
        CompressionError: the matrix is not finite, or not in the range of the stored dtype.
    """
    difference = stored.astype(np.float64).reshape(matrix.shape) - matrix
    if not np.isfinite(difference).all():
        problem = "does not fit the dtype of its weight" if np.isfinite(matrix).all() else "is not finite"
        raise CompressionError(
            f"the matrix of {name} {problem}; expected finite numbers; merge in float32, or reload it"
        )
    total = float(np.linalg.norm(matrix))
    return float(np.linalg.norm(difference)) / total if total else float(difference.any())
