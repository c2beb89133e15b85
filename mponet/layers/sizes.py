"""The shape of a layer from the sizes that a user gives."""

from collections.abc import Sequence

from mponet.operators.padding import factors_well, fewest_parameters, warn_if_larger
from mponet.operators.shape import MPOShape


def chain_shape(
    inputs: int | Sequence[int],
    outputs: int | Sequence[int],
    bond: int | Sequence[int],
    sites: int | None = None,
) -> MPOShape:
    """The shape of a layer from sizes or factors; see `MPOShape.from_sizes`.

    Where both sides are sizes and one of them factors badly, as a prime does, the factors are
    placed so that the cores have the fewest entries: those of 1021 and 1021 at opposite ends.

    Args:
        inputs: number of inputs, or its factors.
        outputs: number of outputs, or its factors.
        bond: bond dimension, one for all or one for each inner bond.
        sites: number of factors where only sizes are given; None chooses.

    Raises:
        ShapeError: sizes, factors and bonds do not fit together.

    Warns:
        SizeWarning: the operator has more entries than the dense matrix.

    Example:
        >>> from mponet.layers.sizes import chain_shape
        >>> print(chain_shape(784, 256, 4), chain_shape(127, 113, 4))
        M^{16,16}_{28,28}(4) M^{113,1}_{1,127}(4)
    """
    shape = factors_for(inputs, outputs, bond, sites)
    warn_if_larger(shape)
    return shape


def factors_for(
    inputs: int | Sequence[int],
    outputs: int | Sequence[int],
    bond: int | Sequence[int],
    sites: int | None = None,
) -> MPOShape:
    """`chain_shape`, without a warning.

    Raises:
        ShapeError: sizes, factors and bonds do not fit together.
    """
    shape = MPOShape.from_sizes(inputs, outputs, bond, sites)
    sizes = [size for size in (inputs, outputs, bond) if not isinstance(size, Sequence)]
    if len(sizes) == 3 and not all(factors_well(size, shape.sites) for size in sizes[:2]):
        rows, columns, bond = sizes
        return fewest_parameters(rows, columns, bond, shape.sites)
    return shape
