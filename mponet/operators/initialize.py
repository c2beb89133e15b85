"""Starting values, drawn by numpy so that every backend begins with the same numbers.

A product of cores has ``Var(W) = prod_k Var(core_k) * prod_k D_k`` for independent zero-mean
entries.  Glorot's rule applied to each core misses the wanted variance by orders of magnitude as
sites are added; `exact_variance` meets it for every shape.
"""

from collections.abc import Callable, Mapping
from math import exp, inf, log, prod, sqrt
from numbers import Real
from typing import Any

import numpy as np

from mponet.errors import InputError
from mponet.operators.arrays import Array
from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape
from mponet.operators.topology import NetworkShape, copy_tensor

#: Target variance of the entries of ``W``, from (inputs, outputs).
VARIANCES: dict[str, Callable[[int, int], float]] = {
    "glorot": lambda inputs, outputs: 2.0 / (inputs + outputs),
    "he": lambda inputs, outputs: 2.0 / inputs,
    "lecun": lambda inputs, outputs: 1.0 / inputs,
}


def target_variance(rule: str, inputs: int, outputs: int) -> float:
    """Variance of a weight under a rule: ``glorot`` 2/(in+out), ``he`` 2/in, ``lecun`` 1/in.

    Raises:
        InputError: there is no such rule.
    """
    if rule not in VARIANCES:
        raise InputError(f"initialiser is {rule!r}; expected one of {', '.join(VARIANCES)}")
    return VARIANCES[rule](inputs, outputs)


def exact_variance(shape: MPOShape, rng: np.random.Generator, rule: str | float = "glorot") -> MPO:
    """Normal cores with ``Var(W)`` equal to the target for any factors and bonds.

    The variance that a bond of dimension ``D`` adds is taken off half by half from the two cores it
    joins: ``Var(core_k) = target^(1/n) / sqrt(D_{k-1} D_k)``.

    Args:
        shape: the shape.
        rng: source of the random numbers.
        rule: a name of `target_variance`, or the wanted variance itself.

    Raises:
        InputError: there is no such rule, or the variance is not positive and finite.
    """
    share = _share(shape.in_features, shape.out_features, shape.sites, rule)
    return MPO(
        shape,
        tuple(rng.normal(0.0, sqrt(share / sqrt(size[0] * size[3])), size) for size in shape.core_shapes),
    )


def exact_tensors(
    shape: NetworkShape,
    rng: np.random.Generator,
    rule: str | float = "glorot",
    constants: Mapping[str, Array] | None = None,
) -> tuple[Array, ...]:
    """`exact_variance` for any network.

    Normal tensors, one for each node, with ``Var(W)`` equal to the target.

    Every entry of ``W`` is a sum over all bonds of products of one entry of each node: ``Var(W) =
    prod Var(node) * prod D`` over all nodes and bonds.  What a bond adds is taken off half by half
    from the two nodes that it joins.  Copy nodes and constants keep their tensors; ``Var(W)`` is
    then the mean over the entries.

    Args:
        shape: the network.
        rng: source of the random numbers.
        rule: as in `exact_variance`.
        constants: tensors of nodes that are not drawn, by name; None for none.

    Raises:
        InputError: there is no such rule, the variance is not positive and finite, or constants
            make every entry zero.
    """
    sizes = dict(zip(shape.names, shape.sizes, strict=True))
    fixed = {name: copy_tensor(sizes[name]) for name in shape.copies} | dict(constants or {})
    drawn = max(len(shape.names) - len(fixed), 1)
    share = _share(shape.in_features, shape.out_features, drawn, rule)
    bonds = [prod(shape.dims[edge] for edge in edges if edge in shape.bonds) for edges in shape.edges]
    free = [bond for name, bond in zip(shape.names, bonds, strict=True) if name not in fixed]
    if fixed:
        # The square roots below take off more or less than the number of terms of the sum.
        share *= exp((sum(map(log, free)) / 2 - log(_terms(shape, fixed))) / drawn)
    return tuple(
        fixed[name] if name in fixed else rng.normal(0.0, sqrt(share / sqrt(bond)), size)
        for name, bond, size in zip(shape.names, bonds, shape.sizes, strict=True)
    )


def _terms(shape: NetworkShape, fixed: Mapping[str, Array]) -> float:
    """Average over the entries of ``W`` of the sum over all bonds of squared fixed tensors.

    It is the average number of terms where these are copy tensors.

    Raises:
        InputError: it is zero.
    """
    edges = dict(zip(shape.names, shape.edges, strict=True))
    letters = {edge: number for number, edge in enumerate(dict.fromkeys(e for name in fixed for e in edges[name]))}
    operands: list[Any] = []
    for name, tensor in fixed.items():
        operands += [tensor**2, [letters[edge] for edge in edges[name]]]
    others = prod(size for edge, size in shape.dims.items() if edge not in letters)
    total = float(np.einsum(*operands, [], optimize="greedy")) * others
    if not total > 0.0:
        raise InputError("fixed nodes make every entry of the matrix zero; expected numbers that do not")
    return total / (shape.in_features * shape.out_features)


def paper_cores(shape: MPOShape, rng: np.random.Generator) -> MPO:
    """The authors' initialiser.

    Truncated normal cores of ``sigma_k = sqrt(2.6 / (J_k D_k + D_{k-1} I_k))``.

    TensorFlow 1's ``xavier_initializer(uniform=False)`` on the ``(J_k D_k) x (D_{k-1} I_k)`` matrix
    of each core, cut at two sigma (the authors' tt.py; factor 1.3 in TensorFlow's
    variance_scaling).
    """
    return MPO(
        shape,
        tuple(
            truncated_normal((left, i, j, right), sqrt(2.6 / (j * right + left * i)), rng)
            for left, i, j, right in shape.core_shapes
        ),
    )


def xavier(size: tuple[int, ...], rng: np.random.Generator) -> Array:
    """A dense weight by the rule of `paper_cores`.

    TensorFlow 1's ``xavier_initializer(uniform=False)``.

    Args:
        size: ``(inputs, outputs)``, or ``(height, width, inputs, outputs)`` of a kernel, whose
            positions multiply both.
        rng: source of the random numbers.
    """
    *positions, inputs, outputs = size
    return truncated_normal(size, sqrt(2.6 / (prod(positions) * (inputs + outputs))), rng)


def truncated_normal(size: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Array:
    """Normal numbers of parameter ``sigma``, redrawn while beyond two of it.

    Their standard deviation is 0.880 sigma.
    """
    values = rng.normal(0.0, 1.0, size)
    while (beyond := np.abs(values) > 2.0).any():
        values[beyond] = rng.normal(0.0, 1.0, int(beyond.sum()))
    return values * sigma


def normal(size: tuple[int, ...], inputs: int, outputs: int, rng: np.random.Generator, rule: str = "glorot") -> Array:
    """A dense weight of the same target variance as `exact_variance` gives to an MPO."""
    return rng.normal(0.0, sqrt(target_variance(rule, inputs, outputs)), size)


def _share(inputs: int, outputs: int, tensors: int, rule: str | float) -> float:
    """The target variance to the power of one over the number of tensors.

    Raises:
        InputError: there is no such rule, or the variance is not positive and finite.
    """
    if not isinstance(rule, str | Real):
        raise InputError(
            f"initializer is a {type(rule).__name__}; expected a name, {', '.join(VARIANCES)}, or a variance"
        )
    target = target_variance(rule, inputs, outputs) if isinstance(rule, str) else float(rule)
    if not 0.0 < target < inf:
        raise InputError(f"variance is {target}; expected a positive, finite number")
    return exp(log(target) / tensors)
