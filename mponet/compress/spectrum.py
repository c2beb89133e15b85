"""How well each layer of a network compresses: error against weights for every structure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mponet.compress.calibrate import Calibration
from mponet.compress.config import CompressConfig, Override
from mponet.compress.gather import Progress
from mponet.compress.hull import frontier
from mponet.compress.options import layer_options
from mponet.compress.search import unfolding_spectra
from mponet.compress.select import Selected
from mponet.compress.structures import STRUCTURES, Layout
from mponet.compress.target import Target

#: Shares of the weights at which errors are tabulated.
SHARES = (0.05, 0.1, 0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True)
class Point:
    """An operator that a layer may become.

    Attributes:
        keep: share of the layer's weights that it has.
        error: relative error of the layer's outputs.
        input_dims: factors of the inputs, one per site.
        output_dims: factors of the outputs.
        bonds: inner bonds.
    """

    keep: float
    error: float
    input_dims: tuple[int, ...]
    output_dims: tuple[int, ...]
    bonds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BondEntropy:
    """The spectrum of a layer's matrix at the bonds of one layout.

    Attributes:
        input_dims: factors of the inputs, one per site.
        output_dims: factors of the outputs.
        entropies: entanglement entropy at each inner bond, in nats: ``-sum p log p`` over the
            squared singular values ``p``, which are scaled to a sum of one.
        largest: the entropy at each bond if all singular values were equal.
    """

    input_dims: tuple[int, ...]
    output_dims: tuple[int, ...]
    entropies: tuple[float, ...]
    largest: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StructureSpectrum:
    """What one structure offers for a layer.

    Attributes:
        structure: its name.
        points: operators that no other of the structure is both smaller and better than, from the
            smallest on.
        bonds: entropies at the bonds of its layouts.
    """

    structure: str
    points: tuple[Point, ...]
    bonds: tuple[BondEntropy, ...]

    def error_at(self, keep: float) -> float | None:
        """Smallest error with at most a share of the weights; None if no operator is so small."""
        return next((point.error for point in reversed(self.points) if point.keep <= keep), None)


@dataclass(frozen=True, slots=True)
class LayerSpectrum:
    """How well one layer compresses.

    Attributes:
        name: of the module.
        kind: ``linear``, ``convolution`` or ``embedding``.
        in_features: rows of its matrix.
        out_features: columns of its matrix.
        structures: one entry for each structure that fits the layer.
    """

    name: str
    kind: str
    in_features: int
    out_features: int
    structures: tuple[StructureSpectrum, ...]


def spectra(
    targets: Sequence[Target],
    structures: Sequence[str] = ("low-rank", "balanced"),
    calibration: Calibration | None = None,
    *,
    progress: Progress | None = None,
) -> Iterator[LayerSpectrum]:
    """How well each layer compresses, one after another.

    Args:
        targets: the layers.
        structures: names of families of operators (`mponet.compress.structures`).
        calibration: sums over the inputs; None takes errors of the weights themselves.
        progress: called with ``spectrum``, how many layers are done, and how many there are.
    """
    for done, target in enumerate(targets):
        if progress is not None:
            progress("spectrum", done, len(targets))
        found = (_structure(target, name, calibration) for name in structures)
        kept = tuple(one for one in found if one.points)
        yield LayerSpectrum(target.name, target.kind, target.in_features, target.out_features, kept)


def _structure(target: Target, name: str, calibration: Calibration | None) -> StructureSpectrum:
    config = CompressConfig(keep=1.0, metric="covariance", allocation="normalized")
    entry = Selected(target, "", Override(structures=(name,)))
    options = layer_options(entry, [target], config, calibration)[0]
    errors = np.sqrt(options.errors)
    shares = options.costs("keep") / target.weights
    points = []
    for index in frontier(shares, errors):
        option = options.option(index)
        if option.layout is not None:
            dims = option.layout.input_dims, option.layout.output_dims
            points.append(Point(float(shares[index]), float(errors[index]), *dims, option.bonds))
    matrix = target.load()
    bonds = tuple(bond_entropy(matrix, layout) for layout in STRUCTURES[name](target)) if points else ()
    return StructureSpectrum(name, tuple(points), bonds)


def bond_entropy(matrix: NDArray[np.float64], layout: Layout) -> BondEntropy:
    """The entropies of a matrix ``(in, out)`` at the bonds of a layout."""
    rows = layout.permutation()
    squares = unfolding_spectra(matrix if rows is None else matrix[rows], layout)
    entropies = []
    for values in squares:
        shares = values[values > 0.0] / values.sum() if values.sum() > 0.0 else np.ones(1)
        entropies.append(max(float(-(shares * np.log(shares)).sum()), 0.0))
    largest = tuple(float(np.log(len(values))) for values in squares)
    return BondEntropy(layout.input_dims, layout.output_dims, tuple(entropies), largest)
