"""The layers of a plan as a table of 80 columns."""

from collections.abc import Sequence

from mponet.compress.layer_plan import LayerPlan

WIDTH = 80
NAME = 28
HEADER = f"{'layer':<{NAME}} {'operator':<19}{'keep':>6}{'error':>7}{'loss':>9}{'speed':>8}"


def layer_lines(layers: Sequence[LayerPlan]) -> list[str]:
    """A line for each layer that is replaced or could be, and the others grouped by reason."""
    rows = [_row(layer) for layer in layers if layer.matched]
    return [HEADER, "-" * WIDTH, *rows, *_left(layers)]


def _row(layer: LayerPlan) -> str:
    shape, speed = layer.shape, layer.speed if layer.measured is None else layer.measured
    if shape is None:
        return f"{shortened(layer.name):<{NAME}} {layer.reason[: WIDTH - NAME - 1]}".rstrip()
    return (
        f"{shortened(layer.name):<{NAME}} {_operator(layer):<19}{layer.keep:>6.3f}"
        f"{_number(layer.output_error, '.3f'):>7}"
        f"{_number(layer.loss, '.2g'):>9}{_number(speed, '.2f'):>7}{'x' if speed is not None else ' '}"
    ).rstrip()


def _operator(layer: LayerPlan) -> str:
    """``rank 120``, or factors and bonds."""
    assert layer.layout is not None
    if layer.layout.is_low_rank:
        return f"rank {layer.bonds[0]}"
    sites = "*".join(f"{i}x{j}" for i, j in zip(layer.layout.input_dims, layer.layout.output_dims, strict=True))
    text = f"{sites} D={','.join(map(str, layer.bonds))}"
    return text if len(text) < 19 else text[:17] + ".."


def _left(layers: Sequence[LayerPlan]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for layer in layers:
        if not layer.matched:
            reasons.setdefault(layer.reason, []).append(layer.name)
    lines = ["", "not matched:"] if reasons else []
    for reason, names in reasons.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines += wrapped(f"  {reason}: {shown}")
    return lines


def wrapped(text: str) -> list[str]:
    """The text in lines of 80 columns, those after the first indented."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = f"    {word}"
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def shortened(name: str) -> str:
    """The name, its middle left out where it is too long for the column."""
    return name if len(name) <= NAME else f"{name[:9]}..{name[-(NAME - 11) :]}"


def _number(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)
