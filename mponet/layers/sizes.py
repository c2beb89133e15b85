"""The sizes of a layer from those that a user gives, padded by zeros where that helps."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from mponet.errors import ShapeError
from mponet.operators.factors import dimensions, padded_factors
from mponet.operators.padding import MAX_PADDING, Objective, PaddedShape, factors_well, padded_shape, warn_if_larger
from mponet.operators.shape import MPOShape

#: A size, or its factors.
Size = int | Sequence[int]


def layer_sizes(
    inputs: Size,
    outputs: Size,
    bond: Size,
    sites: int | None = None,
    padding: Sequence[int] | None = None,
    objective: Objective = "balance",
) -> PaddedShape:
    """The sizes of a layer and the shape of its operator, from sizes or factors.

    Sizes that factor well get balanced factors of their own.  Others, as primes, are padded by
    zeros (see `mponet.choose_factors`), unless ``padding`` says how.

    Args:
        inputs: number of inputs, or factors of that number and the padding.
        outputs: number of outputs, or factors of that number and the padding.
        bond: bond dimension, one for all or one for each inner bond.
        sites: number of factors where only sizes are given; None chooses.
        padding: how many zeros are appended to the inputs and dropped from the outputs; None
            chooses for a side that is given as a size, and is 0 for one that is given as factors.
        objective: what factors of sizes make small: ``balance``, ``parameters`` or
            ``multiplications``.

    Raises:
        ShapeError: sizes, factors, bonds and padding do not fit together.
        InputError: there is no such objective.

    Warns:
        SizeWarning: the operator has more entries than the dense matrix.

    Example:
        >>> from mponet.layers.sizes import layer_sizes
        >>> print(layer_sizes(784, 256, 4).shape, layer_sizes(127, 113, 4).shape)
        M^{16,16}_{28,28}(4) M^{13,9}_{13,10}(4)
        >>> layer_sizes(127, 113, 4).padding, layer_sizes((127, 1), (1, 113), 4).padding
        ((3, 4), (0, 0))
    """
    sizes = choose_sizes(inputs, outputs, bond, sites, padding, objective)
    warn_if_larger(sizes.shape, sizes.in_features * sizes.out_features)
    return sizes


def choose_sizes(
    inputs: Size,
    outputs: Size,
    bond: Size,
    sites: int | None = None,
    padding: Sequence[int] | None = None,
    objective: Objective = "balance",
) -> PaddedShape:
    """`layer_sizes`, without a warning.

    Raises:
        ShapeError: sizes, factors, bonds and padding do not fit together.
        InputError: there is no such objective.
    """
    if padding is not None:
        return _padded_by(inputs, outputs, bond, sites, padding, objective)
    if isinstance(inputs, Sequence) or isinstance(outputs, Sequence):
        if sites is None:
            sites = next(len(size) for size in (inputs, outputs) if isinstance(size, Sequence))
        shape = MPOShape.from_factors(_factors(inputs, sites), _factors(outputs, sites), bond)
        own = (prod(size) if isinstance(size, Sequence) else size for size in (inputs, outputs))
        return PaddedShape(next(own), next(own), shape)
    balanced = MPOShape.from_sizes(inputs, outputs, bond, sites)
    if objective == "balance" and _factor_well(balanced):
        return PaddedShape(inputs, outputs, balanced)
    if isinstance(bond, Sequence):
        sites = balanced.sites
    chosen = padded_shape(inputs, outputs, _largest(bond), sites=sites, objective=objective)
    return PaddedShape(inputs, outputs, chosen.shape.with_bond(bond))


def _padded_by(
    inputs: Size, outputs: Size, bond: Size, sites: int | None, padding: Sequence[int], objective: Objective
) -> PaddedShape:
    """Sizes with a padding that is given."""
    if not isinstance(padding, Sequence) or len(padding) != 2 or not all(_counts(zeros) for zeros in padding):
        raise ShapeError(f"padding is {padding!r}; expected two numbers, for the inputs and for the outputs")
    rows, columns = (_enlarged(size, zeros) for size, zeros in zip((inputs, outputs), padding, strict=True))
    shape = MPOShape.from_sizes(rows, columns, bond, sites)
    sized = not (isinstance(rows, Sequence) or isinstance(columns, Sequence))
    if sized and not (objective == "balance" and _factor_well(shape)):
        # without more padding, factors of a prime are best placed at opposite ends
        wanted: Objective = "parameters" if objective == "balance" else objective
        chosen = padded_shape(rows, columns, _largest(bond), sites=shape.sites, objective=wanted, max_padding=0.0)
        shape = chosen.shape.with_bond(bond)
    own = shape.in_features - padding[0], shape.out_features - padding[1]
    if min(own) < 1:
        raise ShapeError(f"padding is {tuple(padding)} of {shape}; expected less than its inputs and outputs")
    return PaddedShape(*own, shape)


def _counts(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and bool(number >= 0)


def _enlarged(size: Size, zeros: int) -> Any:
    return size if isinstance(size, Sequence) else dimensions((size,), "size")[0] + zeros


def _factors(size: Size, sites: int) -> Sequence[int]:
    """Factors that are given, or balanced ones of a size and some padding."""
    return size if isinstance(size, Sequence) else padded_factors(size, sites, MAX_PADDING)


def _factor_well(shape: MPOShape) -> bool:
    return all(factors_well(size, shape.sites) for size in (shape.in_features, shape.out_features))


def _largest(bond: Size) -> int:
    return max(bond, default=1) if isinstance(bond, Sequence) else bond
