"""`LinearLayer`: a layer that is a matrix product operator, padded by zeros where that helps."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mponet.contraction.program import DEFAULT_BATCH
from mponet.layers.chain import ChainLayer
from mponet.layers.operator import Array
from mponet.layers.sizes import choose_sizes
from mponet.operators.initialize import VARIANCES, target_variance
from mponet.operators.mpo import MPO
from mponet.operators.padding import PaddedShape
from mponet.operators.shape import MPOShape


class LinearLayer(ChainLayer):
    """The part of a layer that knows its weight is a chain of cores, or a part of one.

    The operator may be larger than the layer: zeros are appended to the inputs, and the last
    outputs are dropped.  ``shape`` and `to_mpo` are those of the operator, everything else has the
    sizes of the layer.

    Attributes:
        sizes: of the layer, and the shape of its operator (`mponet.operators.padding.PaddedShape`).
    """

    sizes: PaddedShape

    @property
    def shape(self) -> MPOShape:  # type: ignore[override]
        """Factors and bonds of the operator, padding included."""
        return self.sizes.shape

    def _set_chain_shape(self, shape: MPOShape) -> None:
        self.sizes = replace(self.sizes, shape=shape)

    @property
    def padding(self) -> tuple[int, int]:
        """How many zeros are appended to the inputs and dropped from the outputs."""
        return self.sizes.padding

    @property
    def in_features(self) -> int:
        """Number of inputs."""
        return self.sizes.in_features

    @property
    def out_features(self) -> int:
        """Number of outputs."""
        return self.sizes.out_features

    @classmethod
    def from_mpo(cls, mpo: MPO, bias: Any = None, **options: Any) -> Self:
        """The layer of an operator and a bias.

        Args:
            mpo: the operator.
            bias: ``(out_features,)``; None for a layer without.
            **options: further arguments of the layer, such as its dtype; ``padding=(p, q)`` says
                that the last p inputs and the last q outputs of the operator are padding.

        Raises:
            ShapeError: the bias has another shape, or the padding does not fit.
        """
        return super().from_mpo(mpo, bias, **options)

    @classmethod
    def from_matrix(
        cls,
        matrix: Any,
        input_dims: Sequence[int],
        output_dims: Sequence[int],
        *,
        padding: Sequence[int] = (0, 0),
        max_bond: int | Sequence[int] | None = None,
        relative_error: float = 0.0,
        bias: Any = None,
        inputs: Any = None,
        covariance: Any = None,
        **options: Any,
    ) -> Self:
        """The layer nearest to ``x @ matrix + bias``; see `mponet.from_matrix`.

        With ``inputs`` or ``covariance`` the outputs on these inputs are what is near.

        Args:
            matrix: ``(in_features, out_features)``.
            input_dims: factors of the number of inputs and their padding.
            output_dims: factors of the number of outputs and their padding.
            padding: how many zeros are appended to the rows and the columns of the matrix.
            max_bond: largest bond, one for all or one for each inner bond; None for no limit.
            relative_error: largest Frobenius error, relative to the norm of the matrix.
            bias: ``(out_features,)``; None for a layer without.
            inputs: ``(..., in_features)``, examples of what the layer is called with; a bias then
                takes up the mean error.
            covariance: ``sum x^T x`` over inputs, ``(in_features, in_features)``, or its diagonal;
                instead of them.
            **options: further arguments of the layer, such as its dtype.

        Raises:
            ShapeError: factors do not multiply to the sizes, or the bias has another shape.
        """
        more, dropped = padding
        numbers = np.asarray(cls._to_numpy(matrix), np.float64)
        seen = cls._statistics(
            _widened(inputs, cls._to_numpy, more, 1),
            _widened(covariance, cls._to_numpy, more, 2),
            len(numbers) + more,
            has_bias=bias is not None,
        )
        limits: dict[str, Any] = {"max_bond": max_bond, "relative_error": relative_error}
        mpo, offset = cls._nearest(
            np.pad(numbers, ((0, more), (0, dropped))) if numbers.ndim == 2 else numbers,
            _widened(bias, cls._to_numpy, dropped, 1),
            input_dims,
            output_dims,
            seen,
            limits,
        )
        offset = offset if offset is None or not dropped else offset[:-dropped]
        return cls.from_mpo(mpo, offset, padding=tuple(padding), **options)

    @classmethod
    def _fitting(
        cls, inputs: int | Sequence[int], outputs: int | Sequence[int], bond: Any, sites: int | None, options: Any
    ) -> tuple[MPOShape, dict[str, Any]]:
        asked = {name: options[name] for name in ("padding", "objective") if name in options}
        sizes = choose_sizes(inputs, outputs, bond, sites, **asked)
        rest = {name: value for name, value in options.items() if name not in asked}
        return sizes.shape, {**rest, "padding": sizes.padding}

    def to_matrix(self) -> Array:
        """``W``, ``(in_features, out_features)``, float64 numpy."""
        matrix: Array = self._trimmed(super().to_matrix())
        return matrix

    def explain(self, batch: int | None = DEFAULT_BATCH) -> str:
        """The products of a training step on ``batch`` rows, and what else was considered.

        Padding, if there is any, is part of all products; the first line says how much.
        """
        if not any(self.padding):
            return super().explain(batch)
        waste = self.shape.dense_parameters / (self.in_features * self.out_features) - 1
        return (
            f"padding: {self.padding[0]} of {self.shape.in_features} inputs and {self.padding[1]} of "
            f"{self.shape.out_features} outputs are zeros, {waste:.1%} more than the matrix\n{super().explain(batch)}"
        )

    @property
    def _variance(self) -> str | float:
        if not isinstance(self.initializer, str) or self.initializer not in VARIANCES:
            return self.initializer
        return target_variance(self.initializer, self.in_features, self.out_features)

    def _trimmed(self, matrix: Any) -> Any:
        if not any(self.padding):
            return matrix
        return matrix[: self.in_features, : self.out_features]

    def _details(self) -> str:
        return f", padding={self.padding}" if any(self.padding) else ""

    def _weights_kept(self) -> str:
        return f"{self.shape.parameters} of {self.in_features * self.out_features}"


def _widened(array: Any, to_numpy: Callable[[Any], NDArray[Any]], zeros: int, axes: int) -> NDArray[Any] | None:
    """An array with zeros appended along its last axes; None stays None."""
    if array is None:
        return None
    numbers = to_numpy(array)
    last = min(axes, numbers.ndim)
    return np.pad(numbers, [(0, 0)] * (numbers.ndim - last) + [(0, zeros)] * last)
