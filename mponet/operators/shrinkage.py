"""Covariances from few rows, shrunk towards their diagonal.

The covariance of ``n`` rows of more than ``n`` features has zero eigenvalues.  A fit in it may
give up whole directions of the inputs at no cost, and loses them on every other input.  Part of
the covariance is therefore replaced by its diagonal, a share that follows from the data.  Where
there are `ENOUGH_ROWS` per feature the covariance is taken as it is.
"""

import numpy as np

from mponet.operators.arrays import Array

#: Rows per feature from which a covariance needs no shrinkage.
ENOUGH_ROWS = 4


def shrinkage(covariance: Array, rows: int) -> float:
    """The share of a covariance that its diagonal replaces, from 0 to 1.

    This is the oracle approximating shrinkage of the correlations (Chen, Wiesel, Eldar and Hero,
    IEEE Trans. Signal Process. 58, 5016, 2010), whose target is the diagonal, since features
    differ in scale (Schaefer and Strimmer, Stat. Appl. Genet. Mol. Biol. 4, 32, 2005).

    Args:
        covariance: ``sum x^T x`` over the rows, ``(in, in)``, or any multiple of it.
        rows: number of rows; one less where their mean was taken off.

    Examples:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).standard_normal((1000, 20))
        >>> shrinkage(x[:10].T @ x[:10], 10) > 0.5
        True
        >>> y = x @ np.triu(np.ones((20, 20)))  # features that depend on each other
        >>> shrinkage(y.T @ y, 1000) < 0.01
        True
    """
    diagonal = np.diagonal(covariance)
    varies = diagonal > 0.0
    features = int(np.count_nonzero(varies))
    if features < 2:
        return 0.0
    scale = np.where(varies, diagonal, 1.0) ** -0.5
    squares = float(np.square(covariance * scale * scale[:, None]).sum())
    unlike = (max(rows, 1) + 1 - 2 / features) * (squares - features)
    found = (1 - 2 / features) * squares + features**2
    return min(found / unlike, 1.0) if unlike > 0.0 else 1.0


def shrunk(covariance: Array, rows: int) -> Array:
    """The covariance, its entries off the diagonal reduced by the `shrinkage` if rows are few.

    Args:
        covariance: ``sum x^T x`` over the rows, ``(in, in)``.
        rows: as in `shrinkage`.

    Examples:
        >>> import numpy as np
        >>> shrunk(np.array([[4.0, 4.0], [4.0, 4.0]]), 1)  # one row
        array([[4., 0.],
               [0., 4.]])
    """
    if rows >= ENOUGH_ROWS * len(covariance):
        return covariance
    reduced = covariance * (1.0 - shrinkage(covariance, rows))
    reduced[np.diag_indices(len(reduced))] = np.diagonal(covariance)
    return reduced
