"""Diagrams in unicode text, at most 80 columns wide, the same for the same network every time.

An operator is drawn as physicists do: a box per core, output legs up, input legs down, bonds between neighbours, each
with its dimension.  Long chains get smaller boxes, then further rows; a bond that ends in ``▸`` goes on below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mponet.models import infer
from mponet.models.infer import LayerInfo
from mponet.models.layers import Conv2D, MaxPool, Model
from mponet.shape import MPOShape

WIDTH = 80
ONWARD = "▸"
LEGS = ("outputs", "inputs")
MARGIN = max(map(len, LEGS)) + 2


@dataclass(frozen=True, slots=True)
class Site:
    """One node of a chain, as the graph of `mponet.network` has it.

    Attributes:
        name: of the node.
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
        labels: what stands in the boxes.
        box: width of a box; odd, so that its legs are in the middle.
        bond: width of a bond.
    """

    labels: tuple[str, ...]
    box: int
    bond: int

    def width(self, count: int) -> int:
        """Width of a row of ``count`` sites; a part of the chain needs room for the bonds to the rows around it."""
        joints = 2 * len(ONWARD) + 1 + self.bond if count < len(self.labels) else 0
        return count * self.box + (count - 1) * self.bond + joints


def sites(shape: MPOShape) -> tuple[Site, ...]:
    """The nodes of an operator's graph.

    From the shape, not from `mponet.network.network`: a drawing needs no memory for cores and no TensorNetwork.  A test
    compares the two.
    """
    bonds = (*shape.bond_dims[1:-1], None)
    legs = zip(shape.output_dims, shape.input_dims, bonds, strict=True)
    return tuple(Site(f"core{k}", *dims) for k, dims in enumerate(legs, start=1))


def diagram(shape: MPOShape, width: int = WIDTH) -> str:
    """The tensor diagram of an operator.

    Args:
        shape: of the operator.
        width: largest number of columns; a single site may be wider.

    Returns:
        Lines without trailing blanks or a final newline.
    """
    chain = sites(shape)
    style = _style(chain, width - MARGIN)
    rows = next(n for n in range(1, len(chain) + 1) if n == len(chain) or _fits(style, len(chain), n, width - MARGIN))
    ends = [len(chain) * k // rows for k in range(rows + 1)]
    return "\n\n".join(_row(chain, first, end, style) for first, end in pairwise(ends))


def sheet(model: Model) -> str:
    """The network from top to bottom: shapes, numbers of parameters, and each operator's diagram.

    Returns:
        Lines without trailing blanks or a final newline.
    """
    infos = infer.layers(model)
    lines = [_columns(f"{model}", "shape", "parameters"), "", _columns("  image", _dimensions(model.input_shape), "")]
    for info in infos:
        lines += ["  │", *_layer(info)]
    lines += ["  ▼", _columns("  logits", _dimensions(infos[-1].output_shape), ""), "", *_totals(model)]
    return "\n".join(line.rstrip() for line in lines)


def _style(chain: Sequence[Site], width: int) -> Style:
    """The roomiest style in which the chain fits one row, else the smallest."""
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
    """Sites ``first .. end-1``: output dimensions, legs, three lines of boxes, legs, input dimensions."""
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
    """The middle line of a box, and the bond behind it."""
    bond = chain[index].bond_dim
    left, right = "┤" if index else "│", "│" if bond is None else "├"
    apart = f" {bond} " if style.bond >= len(str(bond)) + 4 else str(bond)
    behind = "" if bond is None else apart.center(style.bond, "─")
    return f"{left}{style.labels[index].center(style.box - 2)}{right}{behind}"


def _layer(info: LayerInfo) -> list[str]:
    """The line of a layer, and the diagram of its operator under it."""
    head = _columns(f"  ├─ {_title(info)}", _dimensions(info.output_shape), _count(info.size) if info.size else "")
    if info.mpo is None:
        return [head]
    return [head, "  │", *(f"  │    {line}" for line in diagram(info.mpo, WIDTH - 7).splitlines())]


def _title(info: LayerInfo) -> str:
    """What kind of layer it is, in 54 columns."""
    layer = info.layer
    name = f"{layer.name}: " if hasattr(layer, "name") else ""
    if info.mpo is not None:
        notation = f"{name}MPO {info.mpo}"
        return notation if len(notation) <= 48 else f"{name}MPO of {info.mpo.sites} cores"
    match layer:
        case Conv2D():
            size = "x".join(map(str, layer.kernel))
            return f"{name}Conv2D {size}, stride {layer.stride}, {layer.padding}"
        case MaxPool():
            return f"MaxPool {layer.size}x{layer.size}, stride {layer.stride}"
        case _:
            return f"{name}{info.kind}"


def _totals(model: Model) -> list[str]:
    infos = infer.layers(model)
    biases = sum(shape[0] for info in infos for name, shape in info.parameters.items() if name.endswith("/bias"))
    lines = [f"{_count(infer.parameter_count(model))} parameters, {_count(biases)} of them biases"]
    rho = infer.rho(model)
    if rho is not None:
        kept = sum(info.mpo.parameters for info in infos if info.mpo)
        replaced = sum(infer.replaced_weights(info) for info in infos if info.mpo)
        lines.append(f"rho = {rho:.5f}: {_count(kept)} weights in cores stand for {_count(replaced)}")
    return lines


def _columns(left: str, middle: str, right: str) -> str:
    return f"{left:<56}{middle:>10}{right:>14}"


def _count(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _dimensions(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
