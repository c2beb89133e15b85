"""The frame of an HTML page in one file.

It suits light and dark, wide and narrow screens, and print.
"""

from collections.abc import Sequence

from mponet.draw.markup import Markup, element, joined
from mponet.draw.theme import FONT, MONOSPACE, css, variables

#: The page loads and sends nothing, whatever names it contains.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"

STYLE = (
    "* { box-sizing: border-box }",
    f"body {{ margin: 0; background: $surface; color: $ink; font: 15px/1.5 {FONT} }}",
    "main { max-width: 1180px; margin: 0 auto; padding: 20px 24px 60px }",
    "h1 { font-size: 1.6em; margin: 0 0 4px } h2 { font-size: 1.2em; margin: 32px 0 8px }",
    "h1, h2, h3 { line-height: 1.25; overflow-wrap: anywhere }",
    "a { color: $output }",
    f"code, kbd, .number {{ font-family: {MONOSPACE}; font-size: .93em }}",
    "kbd { border: 1px solid $rule; border-radius: 4px; padding: 0 5px; background: $raised }",
    ".muted { color: $muted }",
    "table { border-collapse: collapse; font-variant-numeric: tabular-nums }",
    "th, td { padding: 4px 12px 4px 0; text-align: left; vertical-align: top; border-bottom: 1px solid $rule }",
    "th { color: $muted; font-weight: 600 } td.right, th.right { text-align: right }",
    "figure { margin: 12px 0; max-width: 100%; overflow-x: auto } figcaption { color: $muted; font-size: .93em }",
    "svg { max-width: 100%; height: auto }",
    "button, input { font: inherit; color: $ink; background: $raised; border: 1px solid $rule; border-radius: 6px;"
    " padding: 4px 10px }",
    "button { cursor: pointer } button:hover { border-color: $muted }",
    ":focus-visible { outline: 2px solid $focus; outline-offset: 2px }",
    "@media (max-width: 640px) { main { padding: 12px 12px 40px } body { font-size: 14px } }",
    "@media print { main { max-width: none; padding: 0 } .screen { display: none !important } }",
)


def page(title: str, *body: str, style: Sequence[str] = (), script: str = "") -> str:
    """An HTML page in one file, ending in a newline.

    Args:
        title: title of the window.
        body: contents of the page; plain text is escaped.
        style: further style rules, with colours as ``$ink``; see `mponet.draw.theme`.
        script: script that runs when the page is loaded.
    """
    sheet = "\n".join((variables(), css((*STYLE, *style), "page")))
    head = (
        element("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(f"\n{sheet}\n")),
    )
    code = [element("script", Markup(f"\n{script.strip()}\n"))] if script else []
    main = element("main", Markup("\n"), joined(body, "\n"), Markup("\n"))
    parts = (element("head", joined(head, "\n")), element("body", Markup("\n"), joined([main, *code], "\n")))
    return f"<!DOCTYPE html>\n{element('html', joined(parts), lang='en')}\n"
