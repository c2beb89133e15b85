"""Families of operators that a layer may become.  All are chains; they differ in their factors.

A family is an entry of `STRUCTURES`: a function from a target to the layouts that it offers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

from mponet.compress.target import Target
from mponet.operators.factors import default_sites, factorize
from mponet.operators.shape import MPOShape

#: A split is offered when its smallest non-trivial factor is at least this.
MIN_FACTOR = 2


@dataclass(frozen=True, slots=True)
class Layout:
    """How a layer's matrix is split over the sites of a chain.

    Attributes:
        structure: the family's name.
        input_dims: factors of the inputs, one per site.
        output_dims: factors of the outputs, one per site.
        input_axes: axes of the input index before they are reordered, as ``(kh, kw, C_in)``; empty
            where the order stays.
        input_order: the order of those axes in the chain.
    """

    structure: str
    input_dims: tuple[int, ...]
    output_dims: tuple[int, ...]
    input_axes: tuple[int, ...] = ()
    input_order: tuple[int, ...] = ()

    def shape(self, bonds: tuple[int, ...]) -> MPOShape:
        """The operator's shape at inner bonds."""
        return MPOShape.from_factors(self.input_dims, self.output_dims, bonds)

    @property
    def is_low_rank(self) -> bool:
        """Whether it is a product of two matrices, ``(in, D)`` and ``(D, out)``."""
        return len(self.input_dims) == 2 and self.input_dims[1] == 1 and self.output_dims[0] == 1

    def permutation(self) -> list[int] | None:
        """Input rows in the order of the chain; None where the order stays."""
        if not self.input_axes:
            return None
        index = list(range(prod(self.input_axes)))
        strides = [prod(self.input_axes[k + 1 :]) for k in range(len(self.input_axes))]
        sizes = [self.input_axes[axis] for axis in self.input_order]
        steps = [strides[axis] for axis in self.input_order]
        rows = [0]
        for size, step in zip(sizes, steps, strict=True):
            rows = [row + step * n for row in rows for n in range(size)]
        assert len(rows) == len(index)
        return rows


def structure_names() -> tuple[str, ...]:
    """The names of all families."""
    return tuple(STRUCTURES)


def layouts(target: Target, structures: tuple[str, ...]) -> list[Layout]:
    """The distinct layouts that some families offer for a target, in the order of the families."""
    offered: dict[tuple[object, ...], Layout] = {}
    for name in structures:
        for layout in STRUCTURES[name](target):
            key = (layout.input_dims, layout.output_dims, layout.input_order)
            offered.setdefault(key, layout)
    return list(offered.values())


def _low_rank(target: Target) -> Iterator[Layout]:
    yield Layout("low-rank", (target.in_features, 1), (1, target.out_features))


def _balanced(target: Target) -> Iterator[Layout]:
    if not is_matrix(target):
        return
    for sites in sorted({2, default_sites(target.in_features, target.out_features)}):
        inputs, outputs = factorize(target.in_features, sites), factorize(target.out_features, sites)
        if min(i * j for i, j in zip(inputs, outputs, strict=True)) > 1:
            yield Layout("balanced", inputs, outputs)


def _mpo(target: Target) -> Iterator[Layout]:
    """The balanced splits, and splits over two sites.

    The two sites have any pair of small factors at either end, or all inputs or all outputs at one
    site.
    """
    if not is_matrix(target):
        return
    n, m = target.in_features, target.out_features
    for layout in _balanced(target):
        yield Layout("mpo", layout.input_dims, layout.output_dims)
    for small in (2, 3, 4, 8):
        if n % small == 0 and m % small == 0:
            yield Layout("mpo", (small, n // small), (small, m // small))
            yield Layout("mpo", (n // small, small), (m // small, small))
        if m % small == 0:
            yield Layout("mpo", (n, 1), (small, m // small))
        if n % small == 0:
            yield Layout("mpo", (small, n // small), (1, m))


def _window(target: Target) -> Iterator[Layout]:
    """Splits of a kernel, under the names of `mponet.layers.convolution.STRUCTURES`."""
    *window, channels = target.input_dims or (1,)
    if target.kind != "convolution" or prod(window) == 1:
        return
    size, outputs = prod(window), target.out_features
    if len(window) == 2 and min(window) > 1:
        # 1 x kw to D channels, then kh x 1
        yield Layout("separable", (window[1] * channels, window[0]), (1, outputs), target.input_dims, (1, 2, 0))
    # 1 x 1 to D channels, the window on them, 1 x 1 to the outputs
    yield Layout("channel", (channels, size, 1), (1, 1, outputs), (size, channels), (1, 0))
    inner, outer = factorize(channels, 2), factorize(outputs, 2)
    if min(i * j for i, j in zip(inner, outer, strict=True)) > 1:
        yield Layout("spatial", (size, *inner), (1, *outer))


def is_matrix(target: Target) -> bool:
    """Whether a target is a plain matrix.

    A linear layer, a table, or a convolution whose window is one entry.
    """
    return target.kind != "convolution" or prod(target.input_dims[:-1] or (2,)) == 1


#: Family name to the layouts that it offers.  A new family is a new entry.
STRUCTURES: dict[str, Callable[[Target], Iterator[Layout]]] = {
    "low-rank": _low_rank,
    "balanced": _balanced,
    "mpo": _mpo,
    "window": _window,
}
