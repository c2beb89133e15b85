"""Colours and fonts of all drawings, light and dark.

The hues are those of Okabe and Ito, which can be told apart with any colour blindness, and no
information is given by colour alone.  Style rules name a colour as ``$ink``.  A picture in a file
has literal colours, since converters do not support variables, and a second set for dark screens; a
page has variables.  Print is always light.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template
from typing import Literal

#: ``auto`` follows the screen, the others are fixed, ``page`` refers to the variables of a page.
Theme = Literal["auto", "light", "dark", "page"]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, sans-serif"
MONOSPACE = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
DARK = "@media screen and (prefers-color-scheme: dark)"


@dataclass(frozen=True, slots=True)
class Colour:
    """A colour as hex code, on a light and on a dark background."""

    light: str
    dark: str


COLOURS: dict[str, Colour] = {
    "surface": Colour("#ffffff", "#14171c"),
    "raised": Colour("#f4f5f7", "#1f242c"),
    "ink": Colour("#1a1d21", "#eceff3"),
    "muted": Colour("#5b6470", "#a3adba"),
    "rule": Colour("#d3d8de", "#3a424d"),
    "line": Colour("#3d4550", "#c3cad3"),
    "node": Colour("#e3edf7", "#24405c"),
    "output": Colour("#0072b2", "#56b4e9"),
    "input": Colour("#b34a00", "#f0a03c"),
    "accent": Colour("#007a5a", "#35c9a0"),
    "alert": Colour("#a3336f", "#e29ac4"),
    "focus": Colour("#0072b2", "#8fd0ff"),
    "mark": Colour("#fff0b3", "#5c4a00"),
}
#: Shades for amounts, from the smallest to the largest.
SHADES: tuple[Colour, ...] = (
    Colour("#c9dff2", "#22344a"),
    Colour("#93bfe2", "#2f5479"),
    Colour("#559ad0", "#3f78ab"),
    Colour("#1f6fae", "#7db5e3"),
    Colour("#0a3f73", "#cfe6fb"),
)
#: Text on each of the shades.
ON_SHADES: tuple[Colour, ...] = (
    Colour("#1a1d21", "#eceff3"),
    Colour("#1a1d21", "#eceff3"),
    Colour("#1a1d21", "#ffffff"),
    Colour("#ffffff", "#14171c"),
    Colour("#ffffff", "#14171c"),
)
#: Colours of several curves, in this order.
SERIES: tuple[Colour, ...] = (
    Colour("#0072b2", "#56b4e9"),
    Colour("#d55e00", "#f0a03c"),
    Colour("#007a5a", "#35c9a0"),
    Colour("#a3336f", "#e29ac4"),
    Colour("#5b6470", "#a3adba"),
    Colour("#8a6d00", "#f0e442"),
)


def palette() -> dict[str, Colour]:
    """Every colour by its name in rules.

    Those of `COLOURS`, ``shade0 ..``, ``on0 ..``, ``series0 ..``.
    """
    named = {"shade": SHADES, "on": ON_SHADES, "series": SERIES}
    return COLOURS | {f"{name}{k}": colour for name, colours in named.items() for k, colour in enumerate(colours)}


def css(rules: Sequence[str], theme: Theme = "auto") -> str:
    """Style rules with their colours filled in.

    Args:
        rules: such as ``.edge { stroke: $line }``.
        theme: theme whose colours are used.
    """
    colours = palette()
    light = {name: colour.light for name, colour in colours.items()}
    dark = {name: colour.dark for name, colour in colours.items()}
    if theme == "page":
        return _filled(rules, {name: f"var(--{name})" for name in colours})
    if theme == "dark":
        return _filled(rules, dark)
    if theme == "light":
        return _filled(rules, light)
    coloured = [rule for rule in rules if "$" in rule]
    return f"{_filled(rules, light)}\n{DARK} {{\n{_filled(coloured, dark)}\n}}"


def variables() -> str:
    """The rules that define every colour as a variable ``--name``, for light and dark screens."""
    colours = palette()
    light = " ".join(f"--{name}: {colour.light};" for name, colour in colours.items())
    dark = " ".join(f"--{name}: {colour.dark};" for name, colour in colours.items())
    return f":root {{ color-scheme: light dark; {light} }}\n{DARK} {{ :root {{ {dark} }} }}"


def shade(share: float) -> int:
    """Index of the shade of an amount, which is given as its share in [0, 1] of the largest."""
    return min(int(share * len(SHADES)), len(SHADES) - 1)


def _filled(rules: Sequence[str], colours: dict[str, str]) -> str:
    return "\n".join(Template(rule).substitute(colours) for rule in rules)
