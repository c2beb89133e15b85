"""Measures of operators: the entropy of a spectrum, and how many weights are saved."""

from collections.abc import Iterable

import numpy as np

from mponet.errors import InputError
from mponet.operators.arrays import Array, norm
from mponet.operators.shape import MPOShape


def entropy(singular_values: Array) -> float:
    """``-sum_a p_a ln p_a`` with ``p_a = s_a^2 / sum s^2``, of one bond; 0 where all are zero.

    Example:
        >>> import numpy as np
        >>> from mponet.operators.measure import entropy
        >>> round(entropy(np.ones(8)), 4)  # ln 8
        2.0794
    """
    total = norm(singular_values)
    if total == 0.0:
        return 0.0
    p = (singular_values / total) ** 2
    p = p[p > 0.0]
    return float(-(p * np.log(p)).sum()) + 0.0


def compression_ratio(layers: Iterable[MPOShape], dense_weights: Iterable[int] | None = None) -> float:
    """``rho`` of Eq. 9.

    MPO weights over the weights they replace, replaced layers only, biases never counted.

    Args:
        layers: shapes of the MPO layers.
        dense_weights: weights of the layers they replaced, where these are not ``in_features *
            out_features`` (a convolution counts its kernel, paper B); None takes the full matrices.

    Raises:
        InputError: there is no layer, the two lists differ in length, or a replaced layer has no
            weights.

    Example:
        >>> from mponet import MPOShape
        >>> from mponet.operators.measure import compression_ratio
        >>> compression_ratio([MPOShape.from_factors((4, 4), (4, 4), 2)])
        0.25
    """
    shapes = tuple(layers)
    replaced = tuple(shape.dense_parameters for shape in shapes) if dense_weights is None else tuple(dense_weights)
    if not shapes or len(shapes) != len(replaced):
        raise InputError(
            f"got {len(shapes)} MPO layers for {len(replaced)} replaced ones; expected as many, at least one"
        )
    if min(replaced) < 1:
        raise InputError(f"dense_weights are {replaced}; expected at least 1 weight in every replaced layer")
    return sum(shape.parameters for shape in shapes) / sum(replaced)


def parameter_ratio(parameters: int, dense_parameters: int) -> float:
    """Parameters of the whole network over those of its dense twin.

    Biases and everything else are included.
    """
    return parameters / dense_parameters
