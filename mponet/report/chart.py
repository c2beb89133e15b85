"""Charts by matplotlib as SVG in the page, with the same bytes every time.

They are in the colours of the page, light and dark.

Matplotlib does not know CSS variables: a chart is drawn in colours that represent those of
`mponet.draw.theme`, and they are exchanged in the text of the SVG.  Letters stay text, in the type
of the page.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from io import StringIO
from math import log10
from typing import Any, TypeGuard

from mponet.draw.markup import Markup, element, escaped
from mponet.draw.theme import COLOURS, FONT, SERIES, SHADES, palette
from mponet.errors import InputError

SMALLEST, LARGEST = 1e-15, 1e15  # of numbers on an axis; matplotlib overflows far beyond
WIDTH, HEIGHT = 4.4, 3.0  # inches; a page shows an inch as 72 pixels or a little more
NAMES = tuple(palette())
#: What each colour of the theme is drawn as.
STAND_INS = {name: f"#00fe{number:02x}" for number, name in enumerate(NAMES)}
#: So that curves can be told apart without their colours.
MARKERS, DASHES = ("o", "s", "^", "D", "v", "P"), ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1, 1, 1)))

#: Rules of the page for all charts, with colours as ``$ink``.
STYLE = (
    ".charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 4px 40px }",
    ".charts figure { margin: 8px 0; overflow: visible } .charts figcaption { min-height: 2.9em }",
    ".charts figcaption b { color: $ink; font-weight: 600 }",
    f".chart {{ display: block; width: 100%; max-width: 500px; font-family: {FONT} }}",
    ".chart * { stroke-linejoin: round; stroke-linecap: butt }",
)

SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.transparent": True,
    "path.simplify": True,
}
COLOURED = {
    "text.color": "ink",
    "axes.labelcolor": "muted",
    "axes.edgecolor": "rule",
    "xtick.color": "muted",
    "ytick.color": "muted",
    "grid.color": "rule",
}


def colour(name: str) -> str:
    """What to draw a colour of the theme as."""
    return STAND_INS[name]


def captioned(title: str, note: str, inside: Markup) -> Markup:
    """A picture or a table with its title and what it shows."""
    return element("figure", element("figcaption", element("b", title), f" {note}"), inside)


def series(number: int) -> dict[str, Any]:
    """Colour and marker of the ``number``-th of several things."""
    return {"color": colour(f"series{number % len(SERIES)}"), "marker": MARKERS[number % len(MARKERS)]}


class Chart:
    """A chart that is being drawn.

    Attributes:
        axes: matplotlib's, to draw in.
        svg: the picture, when drawing has ended.
    """

    def __init__(self, axes: Any) -> None:
        self.axes = axes
        self.svg: Markup = Markup("")

    def figure(self, title: str, note: str) -> Markup:
        """The picture with its title and what it shows, for the page."""
        return captioned(title, note, self.svg)


@contextmanager
def drawing(name: str, title: str, *, width: float = WIDTH, height: float = HEIGHT) -> Iterator[Chart]:
    """A chart whose ``svg`` is made when the block ends.

    Args:
        name: of the chart, different from all others of the page.
        title: read to those who do not see it.
        width: in inches.
        height: in inches.

    Raises:
        InputError: matplotlib is missing.
    """
    matplotlib = _module("matplotlib")
    colours = {key: colour(value) for key, value in COLOURED.items()}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever people have set for themselves
        matplotlib.rcParams.update(SETTINGS | colours | {"svg.hashsalt": name})
        figure = _module("matplotlib.figure").Figure(figsize=(width, height))
        chart = Chart(figure.subplots())
        chart.axes.set_axisbelow(True)
        yield chart
        stream = StringIO()
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    chart.svg = _inlined(stream.getvalue(), title)


def is_drawable(value: float | None) -> TypeGuard[float]:
    """Whether a positive number has a place on a logarithmic axis; what is beyond is left out."""
    return value is not None and SMALLEST <= value <= LARGEST


def legend(axes: Any, columns: int = 2) -> None:
    """A legend above the axes, in so many columns; none where nothing has a name."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            ncols=columns,
            borderaxespad=0.2,
            columnspacing=1.2,
            handlelength=1.9,
        )


def percent(axes: Any) -> None:
    """Label the vertical axis in percent; its values are shares."""
    axes.yaxis.set_major_formatter(_module("matplotlib.ticker").PercentFormatter(1.0, symbol=" %"))


def plain_numbers(axis: Any) -> None:
    """Label a logarithmic axis with ``0.01``, ``100``, ``10k`` in place of powers.

    Labels between decades appear where there is room.
    """
    ticker = _module("matplotlib.ticker")
    low, high = sorted(axis.get_view_interval())
    decades = log10(high / low)
    if decades < 0.7:
        axis.set_major_locator(ticker.MaxNLocator(6))
        axis.set_minor_locator(ticker.NullLocator())
    else:
        between = (1.0, 2.0, 5.0) if decades < 2.2 else (1.0,)
        axis.set_major_locator(ticker.LogLocator(base=10.0, subs=between, numticks=9))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(ticker.NullFormatter())


def short(value: float) -> str:
    """``0.01``, ``20``, ``10k``, ``3M``."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def shades() -> list[str]:
    """What to draw amounts as, the least first."""
    return [colour(f"shade{number}") for number in range(len(SHADES))]


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"{name} is needed for the charts of a report but cannot be imported ({error}); install it with: pip "
            "install 'mponet[experiments]'"
        ) from error


def _inlined(text: str, title: str) -> Markup:
    """The SVG without what a page has no use for, or has already."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[a-zA-Z0-9.]+_\d+"| transform="rotate\(-0 [^"]*"| font-family: [^;"]*;', "", text)
    text = re.sub(r'( (?:d|x|y|transform|points)=")([^"]*)"', _shortened, text)
    text = re.sub(r"#00fe([0-9a-f]{2})", lambda found: f"var(--{NAMES[int(found[1], 16)]})", text)
    text = re.sub(r"\n\s*", "\n", text).replace("\n\n", "\n")
    opening, body = text.split(">", 1)
    (box,) = re.findall(r'viewBox="([^"]*)"', opening)
    return Markup(f'<svg class="chart" role="img" viewBox="{box}"><title>{escaped(title)}</title>{body.strip()}')


def _shortened(found: re.Match[str]) -> str:
    """Numbers of an attribute to a hundredth of a pixel."""
    numbers = re.sub(r"\d+\.\d{3,}", lambda one: f"{float(one[0]):.2f}".rstrip("0").rstrip("."), found[2])
    return f'{found[1]}{" ".join(numbers.split())}"'


assert set(COLOURED.values()) <= set(COLOURS)
