"""What a layer is called with, as far as a fit of its weight needs it."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mponet.errors import InputError, ShapeError
from mponet.operators.arrays import Array, as_float64
from mponet.operators.metric import Metric
from mponet.operators.shrinkage import shrunk


@dataclass(frozen=True, slots=True, eq=False)
class InputStatistics:
    """Metric and mean of the inputs of a layer.

    Attributes:
        metric: of their differences from the mean where the mean is known, and of themselves
            otherwise.
        mean: ``(in,)``, by which a bias takes up the mean error; None if it is not known.
    """

    metric: Metric
    mean: Array | None = None

    @classmethod
    def of(
        cls, inputs: NDArray[Any] | None, covariance: NDArray[Any] | None, features: int, *, has_bias: bool
    ) -> Self | None:
        """The statistics of inputs or of a covariance; None if neither is given.

        The covariance of inputs is shrunk as far as their rows are few; a given one is not.

        Args:
            inputs: ``(..., in)``, what the layer multiplies with.
            covariance: ``sum x^T x`` over rows ``x`` of inputs, ``(in, in)``, or its diagonal.
            features: number of inputs.
            has_bias: whether the layer has a bias.

        Raises:
            InputError: both are given.
            ShapeError: there are no rows, or they have another width.
        """
        if inputs is not None and covariance is not None:
            raise InputError("inputs and covariance are both given; expected one of them; inputs say more")
        name, given = ("inputs", inputs) if covariance is None else ("covariance", covariance)
        if given is None:
            return None
        values = as_float64(given, name)
        if not values.size or values.shape[-1] != features:
            raise ShapeError(
                f"{name} has the shape {values.shape}; expected (..., {features}), the layer's number of inputs"
            )
        if covariance is not None:
            return cls(Metric(values))
        rows = values.reshape(-1, features)
        mean = np.asarray(rows.mean(axis=0), np.float64) if has_bias else None
        exact = Metric.from_inputs(rows, centred=has_bias)
        return cls(Metric(shrunk(exact.covariance, len(rows) - has_bias)), mean)

    def corrected(self, bias: NDArray[Any] | None, rest: Array) -> NDArray[Any] | None:
        """A bias that takes up the mean error of the outputs.

        Args:
            bias: ``(out,)`` or None.
            rest: the matrix minus the operator's, ``(in, out)``.
        """
        return bias if bias is None or self.mean is None else np.asarray(bias, np.float64) + self.mean @ rest
