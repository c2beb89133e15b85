"""Diagrams in unicode text, at most 80 columns wide, the same for the same network every time.

An operator is a box per core with the output leg up, the input leg down and bonds between
neighbours, each with its dimension.  Long chains have smaller boxes, then several rows; a bond that
ends in ``▸`` continues in the next row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mponet.models import shapes
from mponet.models.outline import Line, count, dimensions, outline
from mponet.models.shapes import LayerInfo
from mponet.models.spec import Model
from mponet.operators.shape import MPOShape

WIDTH = 80
SHAPES = 66  # where the column of shapes ends
ONWARD = "▸"
LEGS = ("outputs", "inputs")
MARGIN = max(map(len, LEGS)) + 2


@dataclass(frozen=True, slots=True)
class Site:
    """A node of a chain, as in the graph of `mponet.operators.nodes`.

    Attributes:
        name: name of the node.
        output_dim: dimension of its output leg.
        input_dim: dimension of its input leg.
        bond_dim: dimension of the bond to the next node; None at the end of the chain.
    """

    name: str
    output_dim: int
    input_dim: int
    bond_dim: int | None


@dataclass(frozen=True, slots=True)
class Style:
    """Measures of a chain in characters.

    Attributes:
        labels: text in the boxes.
        box: width of a box; odd, so that its legs are in the middle.
        bond: width of a bond.
    """

    labels: tuple[str, ...]
    box: int
    bond: int

    def width(self, count: int) -> int:
        """Width of ``count`` sites in a row, with space for any bonds to other rows."""
        joints = 2 * len(ONWARD) + 1 + self.bond if count < len(self.labels) else 0
        return count * self.box + (count - 1) * self.bond + joints


def sites(shape: MPOShape) -> tuple[Site, ...]:
    """The nodes of an operator's graph.

    They come from the shape instead of `mponet.operators.nodes.network`, since a drawing needs
    neither memory for cores nor TensorNetwork.  A test compares the two.
    """
    bonds = (*shape.bond_dims[1:-1], None)
    legs = zip(shape.output_dims, shape.input_dims, bonds, strict=True)
    return tuple(Site(f"core{k}", *dims) for k, dims in enumerate(legs, start=1))


def diagram(shape: MPOShape, width: int = WIDTH) -> str:
    """The tensor diagram of an operator.

    Args:
        shape: shape of the operator.
        width: largest number of columns; a single site may be wider.

    Returns:
        Lines without trailing blanks or a final newline.

    >>> print(diagram(MPOShape.from_factors((4, 7), (4, 4), 3)))
    outputs      4             4
                 │             │
             ┌───┴───┐     ┌───┴───┐
             │ core1 ├─ 3 ─┤ core2 │
             └───┬───┘     └───┬───┘
                 │             │
    inputs       4             7
    """
    chain = sites(shape)
    style = _style(chain, width - MARGIN)
    rows = next(n for n in range(1, len(chain) + 1) if n == len(chain) or _fits(style, len(chain), n, width - MARGIN))
    ends = [len(chain) * k // rows for k in range(rows + 1)]
    return "\n\n".join(_row(chain, first, end, style) for first, end in pairwise(ends))


def sheet(model: Model) -> str:
    """A network from top to bottom, with shapes, parameter counts and diagrams of operators.

    A layer with layers inside has a second wire next to the first, which goes around it.  Blocks
    that are alike are drawn once and counted together.

    Returns:
        Lines without trailing blanks or a final newline.

    >>> from mponet.models import build
    >>> print(sheet(build("fc2", "dense")).splitlines()[-1])
    203 264 parameters, 0 of them biases
    """
    layers = outline(model)
    lines = [_columns(f"{model}", "shape", "parameters"), "", _columns("  image", dimensions(model.input_shape), "")]
    for layer in layers:
        lines += ["  │", *_layer(layer, "  ")]
    lines += ["  ▼", _columns("  logits", layers[-1].output, ""), "", *_totals(model)]
    return "\n".join(line.rstrip() for line in lines)


def _style(chain: Sequence[Site], width: int) -> Style:
    """The widest style in which the chain fits one row, else the narrowest."""
    names = tuple(site.name for site in chain)
    bond = max((len(str(site.bond_dim)) for site in chain if site.bond_dim), default=0)
    legs = max(len(str(dim)) for site in chain for dim in (site.input_dim, site.output_dim))
    numbers = tuple(name.removeprefix("core") for name in names)
    styles = []
    for labels, padding, spare in ((names, 4, 4), (names, 2, 2), (numbers, 4, 2), (numbers, 2, 2)):
        box = max(max(map(len, labels)) + padding, legs)
        styles.append(Style(labels, box + 1 - box % 2, bond + spare))
    return next((style for style in styles if style.width(len(chain)) <= width), styles[-1])


def _fits(style: Style, count: int, rows: int, width: int) -> bool:
    """Whether ``count`` sites fit ``rows`` rows as even as possible."""
    return style.width(-(-count // rows)) <= width


def _row(chain: Sequence[Site], first: int, end: int, style: Style) -> str:
    """Sites ``first .. end-1``.

    Output dimensions, legs, three lines of boxes, legs, input dimensions.
    """
    row, gap, half = chain[first:end], " " * style.bond, "─" * ((style.box - 3) // 2)
    before, onward = (f"{ONWARD}─" if first else ""), (ONWARD if end < len(chain) else "")
    cores = "cores" if style.labels[0].isdecimal() else ""
    legs = gap.join("│".center(style.box) for _ in row)
    lines = (
        (LEGS[0], gap.join(str(site.output_dim).center(style.box) for site in row)),
        ("", legs),
        ("", gap.join(f"┌{half}┴{half}┐" for _ in row)),
        (cores, "".join(_box(chain, index, style) for index in range(first, end)) + onward),
        ("", gap.join(f"└{half}┬{half}┘" for _ in row)),
        ("", legs),
        (LEGS[1], gap.join(str(site.input_dim).center(style.box) for site in row)),
    )
    joints = (before if index == 3 else " " * len(before) for index in range(len(lines)))
    leads = (f"{name:<{MARGIN}}{joint}" for (name, _), joint in zip(lines, joints, strict=True))
    return "\n".join(f"{lead}{line}".rstrip() for lead, (_, line) in zip(leads, lines, strict=True))


def _box(chain: Sequence[Site], index: int, style: Style) -> str:
    """The middle line of a box, and the bond after it."""
    bond = chain[index].bond_dim
    left, right = "┤" if index else "│", "│" if bond is None else "├"
    label = f" {bond} " if style.bond >= len(str(bond)) + 4 else str(bond)
    after = "" if bond is None else label.center(style.bond, "─")
    return f"{left}{style.labels[index].center(style.box - 2)}{right}{after}"


def _layer(line: Line, wires: str) -> list[str]:
    """The line of a layer, followed by the diagrams of its operators or by the layers inside."""
    head = _titled(line, f"{wires}├─{'─┐' * bool(line.branches)} ")
    if line.branches:
        return [head, *_block(line, wires)]
    return [head, *_operators(line.first, f"{wires}│")]


def _block(line: Line, wires: str) -> list[str]:
    """The body on its own wire, the shortcut on the wire around it, then where they meet."""
    body, *shortcut = line.branches
    inside = [text for layer in body for text in _layer(layer, f"{wires}│  ")]
    around = [text for layers in shortcut for layer in layers for text in _around(layer, wires)]
    meeting = f"{wires}+──┘" if shortcut else f"{wires}├──┘ more channels"
    return [*inside, *around, meeting]


def _around(line: Line, wires: str) -> list[str]:
    return [_titled(line, f"{wires}■  │ "), *_operators(line.first, f"{wires}│  │")]


def _operators(info: LayerInfo, wires: str) -> list[str]:
    inner = f"{wires}    "
    lines = []
    for operator in info.operators:
        lines += [wires, *(f"{inner}{line}" for line in diagram(operator.shape, WIDTH - len(inner)).splitlines())]
    return lines


def _titled(line: Line, lead: str) -> str:
    """The line of a layer, with the notation of its operators if it fits."""
    name = f"{line.name}: " if line.name else ""
    title = f"{lead}{name}{line.title}"
    if operators := line.first.operators:
        notation = f"{title} {', '.join(str(operator.shape) for operator in operators)}"
        cores = sum(len(operator.cores) for operator in operators)
        title = notation if len(notation) + len(line.output) <= SHAPES - 2 else f"{title} of {cores} cores"
    return _columns(title, line.output, count(line.parameters) if line.parameters else "")


def _totals(model: Model) -> list[str]:
    counts, rho = shapes.counts(model), shapes.compression_ratio(model)
    lines = [f"{count(counts.parameters)} parameters, {count(counts.biases)} of them biases"]
    if rho is not None:
        operators = shapes.operators(model)
        kept = sum(operator.shape.parameters for operator in operators)
        replaced = sum(operator.replaced_weights for operator in operators)
        lines.append(f"rho = {rho:.4g}: {count(kept)} weights in cores replace {count(replaced)}")
    return lines


def _columns(left: str, middle: str, right: str) -> str:
    return f"{left}{middle:>{SHAPES - len(left)}}{right:>{WIDTH - SHAPES}}"
