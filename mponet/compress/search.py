"""The options of one layer.

Every layout at many bonds, with weights, multiplications and output error.

A product of two matrices has one option for every rank, all from one eigenvalue problem, exact.
Other chains are fitted at a few sizes; in between, the error is interpolated.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

from mponet.compress.hull import Curve, Option, Options
from mponet.compress.speed import use_multiplications
from mponet.compress.structures import Layout
from mponet.compress.target import Target
from mponet.compress.uses import Uses
from mponet.errors import CompressionError
from mponet.layers.convolution import STRUCTURES as CONVOLUTIONS
from mponet.operators.metric import OutputSpectrum
from mponet.operators.shape import MPOShape

Array = NDArray[np.float64]
#: Shares of the dense weights at which chains are fitted.
LADDER = (0.01, 0.03, 0.07, 0.14, 0.25, 0.4, 0.6, 0.85)
#: Shares at which a chain is tried first; one that loses more than low rank at all is not offered.
PROBES = (0.07, 0.25)
#: Where low rank is offered, a chain must have a smaller plain error than this times low rank's.
SCREEN_MARGIN = 1.0
#: Sweeps of least squares while layouts are compared; the chosen one gets more.
SEARCH_SWEEPS = 3
#: Multiplications of one product with a covariance from which a fit takes many seconds, and what is
#: then made in the place of `LADDER` and `SEARCH_SWEEPS`.
LARGE, LARGE_LADDER, LARGE_SWEEPS = 2**32, (0.03, 0.1, 0.25, 0.6), 1
#: Smallest relative squared error whose logarithm is taken.
TINY = 1e-30


def search(uses: Uses, tied: Sequence[Target], layouts: Sequence[Layout], seed: int = 0) -> Options:
    """The options of a layer.

    Args:
        uses: its weight, and what errors of it cost.
        tied: the target and those that share its weight.
        layouts: what is offered.
        seed: of randomised methods.
    """
    products = [layout for layout in layouts if layout.is_low_rank]
    curves = []
    if products:
        spectrum = uses.spectrum(seed)
        curves = [low_rank_curve(uses, tied, layout, spectrum) for layout in products]
    rivals = [layout for layout in layouts if not layout.is_low_rank]
    if rivals and rivals[0].structure not in CONVOLUTIONS:
        rivals = screened(uses.matrix, rivals, against_low_rank=bool(curves))
    for layout in rivals:
        if uses.is_plain and len(layout.input_dims) == 2:
            curves.append(split_curve(uses, tied, layout))
            continue
        ladder = bond_ladder(uses.matrix, layout, LARGE_LADDER if _is_large(uses) else LADDER)
        if len(ladder) and (not products or is_promising(uses, layout, curves[0])):
            curves.append(fitted_curve(uses, tied, layout, ladder))
    return Options(dense_option(tied), tuple(curves))


def single(uses: Uses, tied: Sequence[Target], layout: Layout, bonds: tuple[int, ...]) -> Options:
    """The one option of a layer whose factors and bonds are given.

    Raises:
        CompressionError: the operator has more weights than the layer.
    """
    shape, target = layout.shape(bonds), tied[0]
    if shape.parameters >= target.weights:
        raise CompressionError(
            f"{target.name} has {target.weights} weights, and {shape} has {shape.parameters}; expected fewer; choose "
            "smaller bonds"
        )
    ladder = np.array([shape.bond_dims[1:-1]], dtype=np.int64)
    return Options(dense_option(tied), (fitted_curve(uses, tied, layout, ladder),))


def dense_option(tied: Sequence[Target]) -> Option:
    """The layer as it is."""
    return Option(None, (), tied[0].weights, sum(target.multiplications for target in tied), 0.0, 0.0)


def low_rank_curve(uses: Uses, tied: Sequence[Target], layout: Layout, spectrum: OutputSpectrum) -> Curve:
    """All ranks with fewer weights than the layer."""
    n, m = uses.matrix.shape
    ranks = np.arange(1, min(len(spectrum.squares), max((n * m - 1) // (n + m), 0)) + 1)
    counts = float(_multiplications(tied, layout.shape((1,))))
    errors, losses = uses.low_rank_errors(spectrum)
    return Curve(layout, ranks[:, None], ranks * float(n + m), ranks * counts, errors[ranks], losses[ranks])


def split_curve(uses: Uses, tied: Sequence[Target], layout: Layout) -> Curve:
    """All bonds of two sites whose errors are those of truncated singular values."""
    rows = layout.permutation()
    squares = unfolding_spectra(uses.matrix if rows is None else uses.matrix[rows], layout)[0]
    one = layout.shape((1,))
    bonds = np.arange(1, min(len(squares), (uses.matrix.size - 1) // one.parameters) + 1)
    steps = bonds.astype(np.float64)
    tails = np.append(squares[::-1].cumsum()[::-1], 0.0) / (float(squares.sum()) or 1.0)
    counts = np.minimum(steps * _multiplications(tied, one), sum(use.multiplications for use in tied))  # merged
    return Curve(layout, bonds[:, None], steps * one.parameters, counts, tails[bonds], tails[bonds])


def is_promising(uses: Uses, layout: Layout, low_rank: Curve) -> bool:
    """Whether a fitted chain loses less than low rank with as many weights at one of `PROBES`."""
    ordered = uses.permuted(layout.permutation())
    for bonds in bond_ladder(uses.matrix, layout, PROBES):
        shape = layout.shape(tuple(map(int, bonds)))
        rival = np.append(1.0, low_rank.losses)[np.searchsorted(low_rank.weights, shape.parameters, side="right")]
        if ordered.fit(shape, max_sweeps=_sweeps(uses)).loss_error ** 2 < rival:
            return True
    return False


def fitted_curve(uses: Uses, tied: Sequence[Target], layout: Layout, ladder: NDArray[np.int64]) -> Curve:
    """A chain fitted at each step of a ladder of bonds, and its errors interpolated in between."""
    ordered = uses.permuted(layout.permutation())
    fitted = [layout.shape(tuple(map(int, bonds))) for bonds in ladder]
    found = [ordered.fit(shape, max_sweeps=_sweeps(uses)) for shape in fitted]
    steps = between(ladder)
    shapes = [layout.shape(tuple(map(int, bonds))) for bonds in steps]
    weights = np.array([float(shape.parameters) for shape in shapes])
    known = [float(shape.parameters) for shape in fitted]
    counts = np.array([float(_multiplications(tied, shape)) for shape in shapes])
    errors, losses = (
        _interpolated(weights, known, [value**2 for value in values])
        for values in ([f.error for f in found], [f.loss_error for f in found])
    )
    return Curve(layout, steps, weights, counts, errors, losses)


def _is_large(uses: Uses) -> bool:
    """Whether fits of a chain take so long that fewer are made."""
    n, m = uses.matrix.shape
    return not uses.norm.rows.is_diagonal and n * n * m > LARGE


def _sweeps(uses: Uses) -> int:
    """Sweeps of a fit while layouts are compared."""
    return LARGE_SWEEPS if _is_large(uses) else SEARCH_SWEEPS


def _multiplications(tied: Sequence[Target], shape: MPOShape) -> int:
    """Multiplications for one example of all modules that an operator takes the place of."""
    return sum(use_multiplications(shape, target.kind, target.positions) for target in tied)


def _interpolated(weights: Array, known: Sequence[float], errors: Sequence[float]) -> Array:
    """Errors at all weights from those at some: they fall about exponentially with the weights."""
    logs = np.log(np.maximum(np.minimum.accumulate(errors), TINY))
    return np.asarray(np.exp(np.interp(weights, known, logs)), np.float64)


def between(ladder: NDArray[np.int64]) -> NDArray[np.int64]:
    """A ladder of bonds with all steps in between, no bond rising by more than one at a time."""
    steps = [ladder[0]]
    for low, high in pairwise(ladder):
        count = int(np.abs(high - low).max())
        steps += [low + np.rint((high - low) * (k / count)).astype(np.int64) for k in range(1, count + 1)]
    return np.array(steps)


def bond_ladder(matrix: Array, layout: Layout, shares: Sequence[float]) -> NDArray[np.int64]:
    """Inner bonds of a layout at some shares of the dense weights, ``(steps, sites - 1)``.

    At each step a singular value is kept while its square is worth its weights: one price for all
    bonds of the chain.
    """
    rows = layout.permutation()
    spectra = unfolding_spectra(matrix if rows is None else matrix[rows], layout)
    dense = prod(layout.input_dims) * prod(layout.output_dims)
    steps: dict[tuple[int, ...], None] = {}
    for share in shares:
        bonds = _bonds_at(spectra, layout, share * dense)
        if bonds is not None:
            steps.setdefault(bonds)
    return np.array(list(steps), dtype=np.int64).reshape(len(steps), len(layout.input_dims) - 1)


def unfolding_spectra(matrix: Array, layout: Layout) -> list[Array]:
    """Squared singular values of the plain matrix at every bond of a layout, descending."""
    sites = len(layout.input_dims)
    order = [axis for k in range(sites) for axis in (k, sites + k)]
    legs = matrix.reshape(*layout.input_dims, *layout.output_dims).transpose(order)
    spectra = []
    for k in range(1, sites):
        unfolding = legs.reshape(prod(layout.input_dims[:k]) * prod(layout.output_dims[:k]), -1)
        gram = unfolding @ unfolding.T if unfolding.shape[0] <= unfolding.shape[1] else unfolding.T @ unfolding
        spectra.append(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0))
    return spectra


def screened(matrix: Array, layouts: Sequence[Layout], *, against_low_rank: bool) -> list[Layout]:
    """The layouts that are worth a fit.

    At some share of the weights, the smallest plain error of all.

    Args:
        matrix: the weight.
        layouts: what is offered.
        against_low_rank: whether they must also be better than low rank there (`SCREEN_MARGIN`).
    """
    n, m = matrix.shape
    limits = [1.0 + 1e-9] * len(LADDER)
    if against_low_rank:
        squares = unfolding_spectra(matrix, Layout("low-rank", (n, 1), (1, m)))[0]
        tails = np.append(squares[::-1].cumsum()[::-1], 0.0) / (squares.sum() or 1.0)
        limits = [SCREEN_MARGIN**2 * float(tails[min(int(s * n * m) // (n + m), len(squares))]) for s in LADDER]
    errors = [plain_errors(matrix, layout) for layout in layouts]
    best = (
        {min(range(len(layouts)), key=lambda k: errors[k][step]) for step in range(len(LADDER))} if layouts else set()
    )
    return [
        layouts[k] for k in sorted(best) if any(error < limit for error, limit in zip(errors[k], limits, strict=True))
    ]


def plain_errors(matrix: Array, layout: Layout) -> list[float]:
    """About the relative squared error of plain truncation at each share of `LADDER`.

    Infinite where none fits.
    """
    spectra = unfolding_spectra(matrix, layout)
    total = float(spectra[0].sum()) or 1.0
    errors = []
    for share in LADDER:
        bonds = _bonds_at(spectra, layout, share * matrix.size)
        lost = [float(s[bond:].sum()) for s, bond in zip(spectra, bonds or (), strict=bool(bonds))]
        errors.append(sum(lost) / total if bonds else float("inf"))
    return errors


def _bonds_at(spectra: Sequence[Array], layout: Layout, weights: float) -> tuple[int, ...] | None:
    """The bonds at the lowest price whose chain holds at most ``weights``.

    None if even bonds of 1 hold more.
    """

    def at(level: float) -> tuple[int, ...]:
        return tuple(max(int(np.count_nonzero(s > level * c)), 1) for s, c in zip(spectra, unit_costs, strict=True))

    # what one more bond costs, its neighbours being small
    sizes = [i * j for i, j in zip(layout.input_dims, layout.output_dims, strict=True)]
    unit_costs = [float(sizes[k] + sizes[k + 1]) for k in range(len(sizes) - 1)]
    if len(spectra) == 1:
        bond = int(weights // unit_costs[0])
        return (bond,) if bond >= 1 else None
    if MPOShape.from_factors(layout.input_dims, layout.output_dims, 1).parameters > weights:
        return None
    top = max(float(s[0]) / c for s, c in zip(spectra, unit_costs, strict=True)) or 1.0
    low, high = np.log(top) - 60.0, np.log(top) + 1.0
    for _ in range(60):
        middle = (low + high) / 2
        inside = layout.shape(at(float(np.exp(middle)))).parameters <= weights
        low, high = (low, middle) if inside else (middle, high)
    return tuple(layout.shape(at(float(np.exp(high)))).bond_dims[1:-1])
