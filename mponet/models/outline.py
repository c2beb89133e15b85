"""The lines of a network as tables and drawings show it.

Consecutive blocks that are alike share one line.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, groupby, takewhile
from string import digits
from typing import Any

from mponet.models.shapes import LayerInfo, Shape, layers
from mponet.models.spec import (
    AvgPool,
    BatchNorm,
    Concat,
    Conv2D,
    Dense,
    Dropout,
    Layer,
    MaxPool,
    Model,
    PadChannels,
    ReLU,
    Residual,
)

TIMES = "\N{MULTIPLICATION SIGN}"  # linters take the sign itself for an x
Place = tuple[LayerInfo, ...]  # the layers at the same place in blocks that are alike, one per block


@dataclass(frozen=True, slots=True)
class Line:
    """One layer, or the layers at the same place in blocks that are alike.

    Attributes:
        infos: the layers, at least one; they differ only in their names and sizes.
        name: name of the layer without that of the block around it.  The name of a block is the
            common beginning of the names inside, that of several blocks the range:
            ``group1_block2..18``.
        branches: lines inside: body and shortcut of a `Residual`, body of a `Concat`, else empty.
    """

    infos: Place
    name: str
    branches: "tuple[tuple[Line, ...], ...]"

    @property
    def first(self) -> LayerInfo:
        """The first layer; all layers of the line have its type and settings."""
        return self.infos[0]

    @property
    def title(self) -> str:
        """Type of the layers, settings that are not the default, and the number of blocks."""
        return _title(self.first) + (f" {TIMES}{len(self.infos)}" if self.branches and len(self.infos) > 1 else "")

    @property
    def parameters(self) -> int:
        """Number of parameters of all layers of the line."""
        return sum(info.size for info in self.infos)

    @property
    def output(self) -> str:
        """Shape of the outputs as ``28x28x1``.

        A size that grows from block to block as a range: ``8x8x16..40``.
        """
        return dimensions(self.first.output_shape, self.infos[-1].output_shape)


def outline(model: Model) -> tuple[Line, ...]:
    """The lines of a network, in order; the line of a block holds the lines inside.

    >>> from mponet.models import build
    >>> [(line.name, line.title) for line in outline(build("fc2"))]
    [('', 'Flatten'), ('fc1', 'MPO'), ('', 'ReLU'), ('fc2', 'MPO')]
    """
    return tuple(_lines([(info,) for info in layers(model)], ""))


def joined(lines: Iterable[Line]) -> list[list[Line]]:
    """The lines in groups.

    ReLU and dropout, which change no shape, are in the group of the line before.
    """
    groups: list[list[Line]] = []
    for line in lines:
        if isinstance(line.first.layer, ReLU | Dropout) and groups and not groups[-1][0].branches:
            groups[-1].append(line)
        else:
            groups.append([line])
    return groups


def dimensions(first: Shape, last: Shape | None = None) -> str:
    """A shape as ``28x28x1``, or the range from the first to the last of several."""
    pairs = zip(first, first if last is None else last, strict=True)
    return "x".join(str(low) if low == high else f"{low}..{high}" for low, high in pairs)


def count(number: int) -> str:
    """A whole number with spaces between thousands: ``15 104``."""
    return f"{number:,}".replace(",", " ")


def _title(info: LayerInfo) -> str:
    match info.layer:
        case Dense() if info.operators:
            return "MPO"
        case Conv2D(kernel=(height, width), stride=stride, padding=padding):
            settings = [f"stride {stride}"] * (stride > 1) + [padding] * (padding != "SAME")
            return ", ".join(["MPO " * bool(info.operators) + f"Conv2D {height}x{width}", *settings])
        case MaxPool(size=size, stride=stride) | AvgPool(size=size, stride=stride):
            return f"{info.kind} {size}x{size}" + (f", stride {stride}" if stride != size else "")
        case Dropout(rate=rate):
            return f"Dropout {rate:g}"
        case PadChannels(channels=channels):
            return f"PadChannels {channels}"
    return info.kind


def _lines(places: Iterable[Place], block: str) -> Iterator[Line]:
    for _, alike in groupby(enumerate(places), key=_line_key):
        infos = tuple(chain.from_iterable(place for _, place in alike))
        yield Line(infos, _range(infos) if infos[0].branches else _name(infos[0], block), _branches(infos))


def _branches(infos: Place) -> tuple[tuple[Line, ...], ...]:
    block = _block(infos[0])
    return tuple(
        tuple(_lines(zip(*chains, strict=True), block))
        for chains in zip(*(info.branches for info in infos), strict=True)
    )


def _line_key(numbered: tuple[int, Place]) -> Any:
    """A key that is equal for blocks that are alike; every other layer has a key of its own."""
    number, (first, *_) = numbered
    return (_nameless(first.layer), len(first.input_shape)) if first.branches else number


def _nameless(layer: Layer) -> Layer:
    match layer:
        case Residual(body, shortcut):
            return Residual(tuple(map(_nameless, body)), tuple(map(_nameless, shortcut)))
        case Concat(body):
            return Concat(tuple(map(_nameless, body)))
        case Dense() | Conv2D() | BatchNorm():
            return replace(layer, name="")
    return layer


def _name(info: LayerInfo, block: str) -> str:
    return info.name.removeprefix(f"{block}_") if block else info.name


def _block(info: LayerInfo) -> str:
    """The words, separated by underscores, that begin all names inside a block.

    Each name keeps its last word.
    """
    words = zip(*(name.split("_")[:-1] for name in _names(info)), strict=False)
    return "_".join(first for first, *_ in takewhile(lambda place: len(set(place)) == 1, words))


def _names(info: LayerInfo) -> Iterator[str]:
    for inside in chain.from_iterable(info.branches):
        yield from _names(inside) if inside.branches else filter(None, [_name(inside, "")])


def _range(infos: Place) -> str:
    first, last = _block(infos[0]), _block(infos[-1])
    number = last.removeprefix(first.rstrip(digits))
    return first if first == last else f"{first}..{number if number.isdecimal() else last}"
