"""The frame of an SVG picture: size, background, title and style."""

from collections.abc import Sequence

from mponet.draw.markup import Markup, element, joined, number
from mponet.draw.theme import FONT, Theme, css

NAMESPACE = "http://www.w3.org/2000/svg"
#: Every rule names the class of the picture, since pictures in one page share their styles.
BASE = (
    f".mponet {{ font-family: {FONT}; font-size: 13px }}",
    ".mponet text { fill: $ink }",
    ".mponet .ground { fill: $surface }",
    ".mponet .muted { fill: $muted; font-size: 11.5px }",
    ".mponet .strong { font-weight: 600 }",
    ".mponet .middle { text-anchor: middle } .mponet .end { text-anchor: end }",
)


def svg(
    width: float, height: float, title: str, *body: str, style: Sequence[str] = (), theme: Theme = "auto"
) -> Markup:
    """An SVG picture, for a file or within a page.

    Args:
        width: in pixels.
        height: in pixels.
        title: title, which browsers show and screen readers read.
        body: elements.
        style: rules in addition to `BASE`, each below ``.mponet``, with colours as ``$ink``.
        theme: theme; ``page`` omits the style, which the page has.
    """
    rules = [] if theme == "page" else [element("style", Markup(f"\n{css((*BASE, *style), theme)}\n"))]
    ground = element("rect", class_="ground", width=width, height=height)
    return element(
        "svg",
        joined([element("title", title), *rules, ground, *body], "\n"),
        xmlns=NAMESPACE,
        class_="mponet",
        role="img",
        width=width,
        height=height,
        viewBox=f"0 0 {number(width)} {number(height)}",
    )
