"""Shapes for sizes that do not factor well: the matrix is padded with zeros to sizes that do.

A layer of ``padded.shape`` appends ``padded.padding[0]`` zeros to its inputs and drops the last
``padded.padding[1]`` outputs; `PaddedShape.pad` does the same to a matrix.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import permutations
from math import prod
from typing import Literal, get_args
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mponet.errors import InputError, ShapeError, SizeWarning
from mponet.operators.arrays import Array, as_float64
from mponet.operators.factors import covers, dimensions, factorize, padded_factors, padding_limit
from mponet.operators.shape import MPOShape

#: What `choose_factors` makes small.
Objective = Literal["balance", "parameters", "multiplications"]
#: Largest padding as a share of a size.
MAX_PADDING = 0.125
#: Largest factor, as a multiple of the balanced one, that is tried at so many sites or fewer.
FACTOR_RANGES = ((3, 1e9), (4, 3.0), (6, 2.0), (8, 1.6))
#: Factors of more sites are balanced.
MAX_SITES = 8
#: Pairs of factors of the two sides that are all compared.
MAX_PAIRS = 300_000


@dataclass(frozen=True, slots=True)
class PaddedShape:
    """Sizes of a matrix, and the shape of an operator that holds it.

    Attributes:
        in_features: rows of the matrix.
        out_features: columns of the matrix.
        shape: of an operator with at least as many rows and columns.
        padding: how many zeros are appended to the inputs and dropped from the outputs.

    Raises:
        ShapeError: the operator has fewer rows or columns.

    Example:
        >>> import numpy as np
        >>> from mponet import MPO, choose_factors
        >>> padded = choose_factors(127, 113, bond=4)
        >>> padded.padding, padded.parameters
        ((3, 4), 1036)
        >>> padded.pad(np.ones((127, 113))).shape
        (130, 117)
    """

    in_features: int
    out_features: int
    shape: MPOShape
    padding: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        rows, columns = dimensions((self.in_features, self.out_features), "sizes")
        padding = self.shape.in_features - rows, self.shape.out_features - columns
        if min(padding) < 0:
            raise ShapeError(f"operator is {self.shape}; expected at least {rows} inputs and {columns} outputs")
        object.__setattr__(self, "padding", padding)

    @property
    def parameters(self) -> int:
        """Number of core entries, those for padding included."""
        return self.shape.parameters

    @property
    def multiplications(self) -> int:
        """Multiplications for one input vector.

        The cheaper sweep, or the product with the full matrix.
        """
        a, b = (np.array([dims]) for dims in (self.shape.input_dims, self.shape.output_dims))
        return int(_multiplications(a, b, max(self.shape.bond_dims))[0])

    def pad(self, matrix: ArrayLike) -> Array:
        """The matrix ``(in_features, out_features)`` padded by zeros to the shape.

        Zeros are appended to its rows and columns.

        Raises:
            ShapeError: the matrix has another shape.
        """
        weight = as_float64(matrix, "matrix")
        if weight.shape != (self.in_features, self.out_features):
            raise ShapeError(f"matrix has the shape {weight.shape}; expected ({self.in_features}, {self.out_features})")
        return np.pad(weight, [(0, more) for more in self.padding])


def choose_factors(
    in_features: int,
    out_features: int,
    bond: int,
    *,
    sites: int | None = None,
    objective: Objective = "balance",
    max_padding: float = MAX_PADDING,
) -> PaddedShape:
    """Factors for a matrix of any size, padded where its own sizes factor badly.

    Args:
        in_features: rows of the matrix.
        out_features: columns of the matrix.
        bond: bond dimension of the operator.
        sites: number of factors; None takes the fewest, at least 2, with factors up to 64.
        objective: ``balance`` splits each side by itself, the factors alike as far as possible,
            and pads only where the factors become much more alike; ``parameters`` takes the fewest
            core entries, ``multiplications`` the fewest multiplications for an input vector.
        max_padding: largest padding of a side as a share of its size; 0 allows none.

    Raises:
        ShapeError: a size, ``bond`` or ``sites`` is not a positive whole number.
        InputError: there is no such objective, or ``max_padding`` is negative.

    Warns:
        SizeWarning: the operator has more entries than the matrix.

    Example:
        >>> from mponet import choose_factors
        >>> padded = choose_factors(127, 1000, bond=4)
        >>> padded.shape, padded.padding
        (MPOShape(input_dims=(13, 10), output_dims=(40, 25), bond_dims=(1, 4, 1)), (3, 0))
        >>> choose_factors(512, 512, bond=4, objective="parameters").parameters
        4096
    """
    padded = padded_shape(in_features, out_features, bond, sites=sites, objective=objective, max_padding=max_padding)
    warn_if_larger(padded.shape, padded.in_features * padded.out_features)
    return padded


def padded_shape(
    in_features: int,
    out_features: int,
    bond: int,
    *,
    sites: int | None = None,
    objective: Objective = "balance",
    max_padding: float = MAX_PADDING,
) -> PaddedShape:
    """`choose_factors`, without its warning."""
    rows, columns = dimensions((in_features, out_features), "sizes")
    (bond,) = dimensions((bond,), "bond")
    if objective not in get_args(Objective):
        raise InputError(f"objective is {objective!r}; expected one of {', '.join(get_args(Objective))}")
    if not 0.0 <= max_padding < np.inf:
        raise InputError(f"max_padding is {max_padding}; expected a share of the size, at least 0")
    sites = _default_sites(rows, columns, max_padding) if sites is None else dimensions((sites,), "sites")[0]
    if objective == "balance" or sites > MAX_SITES:
        inputs, outputs = (padded_factors(size, sites, max_padding) for size in (rows, columns))
    else:
        inputs, outputs = _fewest(rows, columns, bond, sites, objective, max_padding)
    return PaddedShape(rows, columns, MPOShape.from_factors(inputs, outputs, bond))


def factors_well(size: int, sites: int) -> bool:
    """Whether padding would not make the factors of a size much more alike.

    Example:
        >>> from mponet.operators.padding import factors_well
        >>> factors_well(1000, 2), factors_well(997, 2)
        (True, False)
    """
    return prod(padded_factors(size, sites, MAX_PADDING)) == size


def warn_if_larger(shape: MPOShape, dense_parameters: int | None = None) -> None:
    """Warn that an operator has more entries than the matrix it replaces, and say what would help.

    Args:
        shape: of the operator.
        dense_parameters: entries of the matrix; None takes the sizes of the shape.

    Warns:
        SizeWarning: it has more.
    """
    dense = shape.dense_parameters if dense_parameters is None else dense_parameters
    if shape.parameters <= dense:
        return
    bond = _largest_saving_bond(shape, dense)
    sizes = shape.in_features, shape.out_features
    inputs, outputs = (padded_factors(size, shape.sites, MAX_PADDING) for size in sizes)
    other = MPOShape.from_factors(inputs, outputs, max(shape.bond_dims))
    if other.parameters < dense:
        hint = f"factors {inputs} and {outputs} of mponet.choose_factors take {other.parameters} with the same bond"
    elif bond:
        hint = f"a bond of {bond} takes {shape.with_bond(bond).parameters}"
    else:
        hint = "keep the dense layer"
    warn(f"{shape} has {shape.parameters} weights, the dense matrix {dense}; {hint}", SizeWarning, stacklevel=3)


def _largest_saving_bond(shape: MPOShape, dense: int) -> int:
    """The largest bond with which the operator has fewer entries than the matrix; 0 if none has."""
    bonds = range(1, max(shape.bond_dims) + 1)
    return next((bond for bond in reversed(bonds) if shape.with_bond(bond).parameters < dense), 0)


def _default_sites(in_features: int, out_features: int, max_padding: float, largest: int = 64) -> int:
    """The fewest sites, at least 2, with no factor above ``largest``, if padding allows it."""
    sites = 2
    while any(
        (factor := max(padded_factors(size, sites, max_padding))) > largest
        and max(padded_factors(size, sites + 1, max_padding)) < factor
        for size in (in_features, out_features)
    ):
        sites += 1
    return sites


@lru_cache(maxsize=256)
def _fewest(
    in_features: int, out_features: int, bond: int, sites: int, objective: Objective, max_padding: float
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The factors of both sides with the least cost.

    All pairs are compared where there are at most `MAX_PAIRS`; else one side after the other is
    chosen, until neither improves.
    """
    rows, columns = (_candidates(size, sites, max_padding) for size in (in_features, out_features))
    if len(rows) * len(columns) <= MAX_PAIRS:
        every = np.repeat(rows, len(columns), axis=0), np.tile(columns, (len(rows), 1))
        place, _ = _least(*every, bond, objective)
        return _numbers(every[0][place]), _numbers(every[1][place])
    ends: list[tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...]]] = []
    for start in (factorize(out_features, sites), (1,) * (sites - 1) + (out_features,)):
        column = np.array(start)
        costs: list[tuple[float, ...]] = []
        while len(costs) < 2 or costs[-1] < costs[-2]:
            row = rows[_least(rows, column[None], bond, objective)[0]]
            place, cost = _least(row[None], columns, bond, objective)
            column = columns[place]
            costs.append(cost)
        ends.append((cost, _numbers(row), _numbers(column)))
    return min(ends)[1:]


def _least(
    a: NDArray[np.int64], b: NDArray[np.int64], bond: int, objective: Objective
) -> tuple[int, tuple[float, ...]]:
    """Which pair of factors costs least, and its costs in the order of importance."""
    a, b = np.broadcast_arrays(a, b)
    costs = [_parameters(a, b, bond), _multiplications(a, b, bond)]
    if objective == "multiplications":
        costs.reverse()
    costs.append(a.prod(axis=1) * b.prod(axis=1))
    place = int(np.lexsort(costs[::-1])[0])
    return place, tuple(float(cost[place]) for cost in costs)


def _numbers(factors: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(map(int, factors))


def _candidates(size: int, sites: int, max_padding: float) -> NDArray[np.int64]:
    """Every order of the factors whose product is the size or a little more."""
    spread = next(spread for most, spread in FACTOR_RANGES if sites <= most)
    largest = int(spread * size ** (1 / sites)) + 1
    found = {order for factors in _sorted(size, sites, max_padding, largest) for order in permutations(factors)}
    return np.array(sorted(found))


def _sorted(size: int, sites: int, max_padding: float, largest: int) -> Iterator[tuple[int, ...]]:
    yield tuple(sorted(factorize(size, sites)))
    yield from covers(size, sites, padding_limit(size, max_padding), largest)


def _bonds(a: NDArray[np.int64], b: NDArray[np.int64], bond: int) -> list[NDArray[np.int64]]:
    """The bonds after clamping, as `MPOShape` clamps them."""
    sizes = a * b
    sites = sizes.shape[1]
    bonds = [np.ones(len(sizes), np.int64), *(np.full(len(sizes), bond) for _ in range(sites - 1))]
    bonds.append(np.ones(len(sizes), np.int64))
    for k in range(sites):
        bonds[k + 1] = np.minimum(bonds[k + 1], bonds[k] * sizes[:, k])
    for k in reversed(range(sites)):
        bonds[k] = np.minimum(bonds[k], bonds[k + 1] * sizes[:, k])
    return bonds


def _parameters(a: NDArray[np.int64], b: NDArray[np.int64], bond: int) -> NDArray[np.int64]:
    bonds = _bonds(a, b, bond)
    sizes = a * b
    return np.asarray(sum(bonds[k] * sizes[:, k] * bonds[k + 1] for k in range(sizes.shape[1])))


def _multiplications(a: NDArray[np.int64], b: NDArray[np.int64], bond: int) -> NDArray[np.int64]:
    """The fewest multiplications of the sweep from either side and the full matrix."""
    bonds, sizes = _bonds(a, b, bond), a * b
    sites = range(sizes.shape[1])
    cores = [bonds[k] * sizes[:, k] * bonds[k + 1] for k in sites]
    leftwards: NDArray[np.int64] = sum(a[:, :k].prod(axis=1) * cores[k] * b[:, k + 1 :].prod(axis=1) for k in sites)
    rightwards = sum(b[:, :k].prod(axis=1) * cores[k] * a[:, k + 1 :].prod(axis=1) for k in sites)
    dense = a.prod(axis=1) * b.prod(axis=1)
    return np.asarray(np.minimum(np.minimum(leftwards, rightwards), dense), np.int64)
