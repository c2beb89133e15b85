"""The page of ``mponet spectrum``: error against weights of every layer, entropy per bond."""

from collections.abc import Iterator, Sequence
from typing import Any

from mponet.compress.spectrum import SHARES, LayerSpectrum, StructureSpectrum
from mponet.draw.compression import place
from mponet.draw.markup import Markup, element, joined
from mponet.draw.page import page
from mponet.models.outline import TIMES
from mponet.report import chart
from mponet.report.chart import drawing, legend, plain_numbers, series
from mponet.report.tables import STYLE as TABLES
from mponet.report.tables import table

#: Structures in the order of their lines.
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1, 1, 1)))


def spectrum_page(title: str, layers: Sequence[LayerSpectrum], note: str = "") -> str:
    """The page, ending in a newline.

    Args:
        title: what the layers belong to.
        layers: their spectra.
        note: in what metric errors are.

    Raises:
        InputError: matplotlib is missing.
    """
    charts = element("div", joined(list(_charts(layers)), "\n"), class_="charts")
    body = [element("h1", title), element("p", note, class_="muted"), charts]
    body += [element("h2", "Errors"), _errors(layers), element("h2", "Entropy per bond"), _entropies(layers)]
    return page(title, *body, style=(*chart.STYLE, *TABLES))


def spectrum_rows(layers: Sequence[LayerSpectrum]) -> Iterator[tuple[str, str, str, list[float | None]]]:
    """Name, sizes, structure, and the errors at `SHARES`, of every layer and structure."""
    for layer in layers:
        for one in layer.structures:
            errors = [one.error_at(share) for share in SHARES]
            yield layer.name, f"{layer.in_features} x {layer.out_features}", one.structure, errors


def effective_rank(one: StructureSpectrum) -> str:
    """Entropies of the bonds of the first layout: ``3.2, 4.1 of 5.5, 5.5``."""
    if not one.bonds:
        return ""
    first = one.bonds[0]
    entropies, largest = (", ".join(f"{value:.2f}" for value in values) for values in (first.entropies, first.largest))
    return f"{entropies} of {largest}"


def _charts(layers: Sequence[LayerSpectrum]) -> Iterator[Markup]:
    """A chart for each kind of layer; those whose names differ in their first number share one."""
    kinds = list(dict.fromkeys(place(layer.name)[0] for layer in layers))
    structures = list(dict.fromkeys(one.structure for layer in layers for one in layer.structures))
    for kind in kinds:
        own = [layer for layer in layers if place(layer.name)[0] == kind and layer.structures]
        if not own:
            continue
        with drawing(f"spectrum {kind}", f"error against weights of {kind}") as picture:
            for layer in own:
                _lines(picture.axes, layer, structures, first=layer is own[0], alone=len(own) == 1)
            picture.axes.set_yscale("log")
            picture.axes.set_xlim(0.0, 1.0)
            plain_numbers(picture.axes.yaxis)
            picture.axes.set_xlabel("share of the weights that is left")
            picture.axes.set_ylabel("relative error")
            legend(picture.axes)
        sizes = {f"{layer.in_features} {TIMES} {layer.out_features}" for layer in own}
        count = f"{len(own)} layers, " if len(own) > 1 else ""
        yield picture.figure(kind, f"{count}{', '.join(sorted(sizes))}")


def _lines(axes: Any, layer: LayerSpectrum, structures: Sequence[str], *, first: bool, alone: bool) -> None:
    for one in layer.structures:
        number = structures.index(one.structure)
        points = [point for point in one.points if point.error > 0.0 and point.keep <= 1.0]
        axes.plot(
            [point.keep for point in points],
            [point.error for point in points],
            color=series(number)["color"],
            linestyle=DASHES[number % len(DASHES)],
            linewidth=1.4 if alone else 0.8,
            alpha=0.95 if alone else 0.45,
            label=one.structure if first else None,
        )


def _errors(layers: Sequence[LayerSpectrum]) -> Markup:
    heads = ("layer", "sizes", "structure", *(f"keep {share:g}" for share in SHARES))
    rows = [
        [name, sizes, structure, *("" if error is None else f"{error:.3f}" for error in errors)]
        for name, sizes, structure, errors in spectrum_rows(layers)
    ]
    return table(heads, rows, right=range(3, len(heads)))


def _entropies(layers: Sequence[LayerSpectrum]) -> Markup:
    rows = []
    for layer in layers:
        for one in layer.structures:
            for bond in one.bonds:
                sites = zip(bond.input_dims, bond.output_dims, strict=True)
                factors = " · ".join(f"{i}{TIMES}{j}" for i, j in sites)
                entropies = ", ".join(f"{value:.2f}" for value in bond.entropies)
                largest = ", ".join(f"{value:.2f}" for value in bond.largest)
                rows.append([layer.name, one.structure, factors, entropies, largest])
    return table(("layer", "structure", "factors", "entropy at each bond, nats", "largest possible"), rows)
