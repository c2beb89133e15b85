"""Kernels and tables as chains of cores, fitted to the patches and tokens that they meet."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mponet.errors import InputError
from mponet.layers.convolution import ConvShape
from mponet.layers.embedding import EmbeddingShape, padded
from mponet.operators.arrays import as_float64
from mponet.operators.fit import fit_matrix
from mponet.operators.metric import Metric
from mponet.operators.mpo import MPO


def fit_kernel(
    kernel: ArrayLike,
    shape: ConvShape,
    patches: Metric,
    *,
    max_bond: int | Sequence[int] | None = None,
    relative_error: float = 0.0,
) -> MPO:
    """`mponet.layers.convolution.from_kernel` on the patches that a convolution sees.

    Args:
        kernel: HWIO, real and finite.
        shape: the structure and the factors; its bonds are not used.
        patches: the metric of patches ``(*kernel_size, in_channels)`` as rows.
        max_bond: as in `mponet.from_matrix`.
        relative_error: as in `mponet.operators.fit.fit_matrix`.

    Raises:
        InputError: the convolution has groups, or ``separable`` is more than two convolutions; then
            its outputs are not a product of one matrix with the patches.
        ShapeError: the kernel has another shape, or the patches.
    """
    if shape.groups > 1:
        raise InputError(f"inputs of a convolution with {shape.groups} groups; expected one group; leave inputs out")
    weight, factors = as_float64(kernel, "kernel"), shape.mpo
    rows, columns = shape.matrix_axes
    moved = [axis for axis in columns if axis <= shape.rank]  # of the window, among the outputs
    dims = factors.input_dims, factors.output_dims
    if moved:
        smallest = factors.sites == 2 and factors.input_dims[1] == factors.output_dims[0] == 1
        if not smallest:
            raise InputError(f"inputs with {shape}; expected its two smallest convolutions, or another structure")
        taps = prod(shape.kernel_size[axis] for axis in moved)
        dims = (factors.in_features, taps), (1, shape.out_channels)
    order = (*rows, *moved)
    index = np.arange(prod(shape.kernel_shape[:-1])).reshape(shape.kernel_shape[:-1]).transpose(order).reshape(-1)
    matrix = shape.to_kernel(shape.to_matrix(weight)).reshape(-1, shape.out_channels)[index]
    limits: dict[str, Any] = {"max_bond": max_bond, "relative_error": relative_error}
    found = fit_matrix(matrix, *dims, patches.permuted(index.tolist()), **limits).mpo
    if not moved:
        return found
    first, second = found.cores
    return MPO.from_cores([first, second.reshape(second.shape[0], 1, -1, 1)])


def fit_table(
    table: ArrayLike,
    shape: EmbeddingShape,
    counts: Metric,
    *,
    max_bond: int | Sequence[int] | None = None,
    relative_error: float = 0.0,
) -> MPO:
    """`mponet.layers.embedding.from_table` with rows that count as often as they are read.

    Args:
        table: ``(num_embeddings, features)``.
        shape: the factors; its bonds are not used.
        counts: the diagonal metric of how often each row is read.
        max_bond: as in `mponet.from_matrix`.
        relative_error: as in `mponet.operators.fit.fit_matrix`.

    Raises:
        ShapeError: the table has another shape, or the counts.
    """
    rows, factors = padded(table, shape), shape.mpo
    extra = factors.in_features - shape.num_embeddings
    limits: dict[str, Any] = {"max_bond": max_bond, "relative_error": relative_error}
    metric = Metric(np.pad(counts.covariance, (0, extra)))
    return fit_matrix(rows, factors.input_dims, factors.output_dims, metric, **limits).mpo
