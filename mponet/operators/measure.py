"""What an MPO holds and what it saves: spectra, truncation error, entanglement entropy, compression ratio."""

from collections.abc import Iterable, Sequence

import numpy as np

from mponet.errors import InputError
from mponet.operators.mpo import MPO, Array, norm, push_right, right_canonical
from mponet.operators.shape import MPOShape, inner_bonds


def spectra(mpo: MPO) -> tuple[Array, ...]:
    """Singular values of ``W`` unfolded at each inner bond, descending; ``D_k`` of them at bond ``k``.

    From the canonical form: one QR and one singular value decomposition of a core per bond, never
    the full matrix.
    """
    center, *others = right_canonical(mpo).cores
    values: list[Array] = []
    for core in others:
        unfolding = center.reshape(-1, center.shape[3])
        values.append(np.asarray(np.linalg.svd(unfolding, compute_uv=False), np.float64))
        _, center = push_right(center, core)
    return tuple(values)


def truncation_error(mpo: MPO, max_bond: int | Sequence[int]) -> tuple[float, ...]:
    """Per inner bond, the norm of the singular values beyond ``max_bond``: ``eps_k`` of MPOP Eq. 3.

    Each is the error of cutting that bond alone; cutting all of them costs between the largest and
    ``sqrt(sum eps_k^2)``.
    """
    bonds = inner_bonds(max_bond, mpo.shape.sites)
    return tuple(norm(s[d:]) for s, d in zip(spectra(mpo), bonds, strict=True))


def entanglement_entropy(mpo: MPO) -> tuple[float, ...]:
    """Per inner bond ``S_k = -sum_a p_a ln p_a`` with ``p_a = s_a^2 / sum s^2``; at most ``ln D_k``.

    The authors' entropy.py computes the same from the full matrix.  A zero operator has entropy 0.
    """
    return tuple(entropy(s) for s in spectra(mpo))


def entropy(singular_values: Array) -> float:
    """``-sum_a p_a ln p_a`` with ``p_a = s_a^2 / sum s^2``, of one bond; 0 where all are zero."""
    total = norm(singular_values)
    if total == 0.0:
        return 0.0
    p = (singular_values / total) ** 2
    p = p[p > 0.0]
    return float(-(p * np.log(p)).sum()) + 0.0


def compression_ratio(layers: Iterable[MPOShape], dense_weights: Iterable[int] | None = None) -> float:
    """``rho`` of Eq. 9: MPO weights over the weights they replace, replaced layers only, biases never counted.

    Args:
        layers: shapes of the MPO layers.
        dense_weights: weights of the layers they replaced, where these are not ``in_features *
            out_features`` (a convolution counts its kernel, paper B); None takes the full matrices.

    Raises:
        InputError: there is no layer, the two lists differ in length, or a replaced layer has no
            weights.
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
    """Parameters of the whole network over those of its dense twin, biases and everything else included."""
    return parameters / dense_parameters
