"""Factors of the two sides of a matrix: exact ones, or ones whose product is a little larger."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import ceil, prod
from operator import index

from mponet.errors import ShapeError

#: How many times smaller the sum of the factors must become, times the padded size, for padding.
PADDING_GAIN = 1.1


def factorize(size: int, sites: int) -> tuple[int, ...]:
    """The most balanced split of ``size`` into ``sites`` factors.

    Small factors are at the ends, as in the paper.

    Balanced means the smallest sum of factors (ties: the smallest largest factor).  A prime stays
    whole; `mponet.choose_factors` pads such sizes and knows other objectives.

    Raises:
        ShapeError: ``size`` or ``sites`` is not a positive whole number.

    Example:
        >>> from mponet import factorize
        >>> factorize(784, 4), factorize(10, 4), factorize(127, 2)
        ((4, 7, 7, 4), (1, 5, 2, 1), (127, 1))
    """
    (size,) = dimensions((size,), "size")
    (sites,) = dimensions((sites,), "sites")
    return _arched(_balanced(size, sites))


def default_sites(in_features: int, out_features: int, largest: int = 64) -> int:
    """The fewest sites, at least 2, with which no balanced factor exceeds ``largest``.

    Fewer sites mean fewer and larger matrix products, which is what processors are fast at.  A
    prime factor cannot be split, so one above ``largest`` takes its place as the limit of its own
    side; `mponet.choose_factors` pads such a side.

    Raises:
        ShapeError: a size is not a positive whole number.

    Example:
        >>> from mponet.operators.factors import default_sites
        >>> default_sites(4096, 4096), default_sites(32768, 509)
        (2, 3)
    """
    limits = {size: max(largest, _largest_prime(size)) for size in dimensions((in_features, out_features), "sizes")}
    sites = 2
    while any(max(factorize(size, sites)) > limit for size, limit in limits.items()):
        sites += 1
    return sites


def padded_factors(size: int, sites: int, max_padding: float) -> tuple[int, ...]:
    """Balanced factors of ``size``, or of a slightly larger number if these are much more balanced.

    The size is padded only if the sum of the factors times the padded size is lower by
    `PADDING_GAIN`.

    Args:
        size: the number to split.
        sites: number of factors.
        max_padding: largest allowed padding as a share of the size; one entry is always allowed,
            unless it is 0.

    Raises:
        ShapeError: ``size`` or ``sites`` is not a positive whole number.
    """
    exact = tuple(sorted(factorize(size, sites)))
    limit = padding_limit(size, max_padding)
    best = min(covers(size, sites, limit, sites * limit), key=_imbalance, default=exact)
    return _arched(best if _imbalance(best) * PADDING_GAIN < _imbalance(exact) else exact)


def padding_limit(size: int, max_padding: float) -> int:
    """The largest number to which ``size`` may be padded."""
    return max(size + 1, int(size * (1 + max_padding))) if max_padding else size


def covers(size: int, sites: int, limit: int, largest: int, smallest: int = 1) -> Iterator[tuple[int, ...]]:
    """Ascending factors whose product is from ``size`` to ``limit``.

    The last factor is the least that reaches ``size`` in ascending order.

    Args:
        size: the product to be reached.
        sites: number of factors.
        limit: the largest allowed product.
        largest: the largest allowed factor.
        smallest: the smallest allowed factor.
    """
    if sites == 1:
        if max(size, smallest) <= min(limit, largest):
            yield (max(size, smallest),)
        return
    factor = smallest
    while factor**sites <= limit and factor <= largest:
        for rest in covers(ceil(size / factor), sites - 1, limit // factor, largest, factor):
            yield (factor, *rest)
        factor += 1


def dimensions(values: Iterable[int], name: str) -> tuple[int, ...]:
    """The values as python integers of at least 1.

    Numpy's integers count, ``True`` and ``2.0`` do not.
    """
    try:
        numbers = tuple(values)
        whole = tuple(index(v) for v in numbers)
    except TypeError as error:
        raise ShapeError(f"{name} is {values!r}; expected a tuple of whole numbers") from error
    if any(isinstance(v, bool) or w < 1 for v, w in zip(numbers, whole, strict=True)):
        raise ShapeError(f"{name} is {values!r}; expected whole numbers of at least 1")
    return whole


@lru_cache(maxsize=1024)
def _balanced(size: int, sites: int) -> tuple[int, ...]:
    """The ascending factors with the smallest sum, then the smallest maximum."""
    return min(_splits(size, sites, 1), key=lambda factors: (sum(factors), max(factors)))


def _splits(size: int, sites: int, smallest: int) -> Iterator[tuple[int, ...]]:
    """Every ascending split of ``size`` into ``sites`` factors of at least ``smallest``."""
    if sites == 1:
        yield (size,)
        return
    factor = smallest
    while factor**sites <= size:
        if size % factor == 0:
            for rest in _splits(size // factor, sites - 1, factor):
                yield (factor, *rest)
        factor += 1


def _arched(ascending: tuple[int, ...]) -> tuple[int, ...]:
    """Ascending factors laid out with the small ones at both ends: (1, 1, 2, 5) -> (1, 5, 2, 1)."""
    return (*ascending[1::2], *reversed(ascending[0::2]))


def _imbalance(factors: tuple[int, ...]) -> int:
    """Sum of the factors times their product.

    Of two products that are alike the more balanced one is less.
    """
    return sum(factors) * prod(factors)


def _largest_prime(size: int) -> int:
    """The largest prime factor, by trial division; 1 for 1."""
    factor = 2
    while factor * factor <= size:
        if size % factor == 0:
            size //= factor
        else:
            factor += 1
    return size
