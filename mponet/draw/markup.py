"""SVG and HTML as text, made of elements.

Plain text is escaped, so that names may contain any character.

>>> element("text", "<script>", x=1.5, class_="label")
'<text x="1.5" class="label">&lt;script&gt;</text>'
"""

import re
from collections.abc import Iterable
from html import escape

#: Elements that HTML writes without an end.
VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "col"})
#: Elements of SVG that are closed at once if they are empty.
SHAPES = frozenset({"circle", "ellipse", "line", "path", "polygon", "polyline", "rect", "use"})
#: Characters that neither XML nor HTML allows, not even escaped.
UNWRITABLE = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Value = str | float | bool | None


class Markup(str):
    """Text that is markup already and is not escaped again.

    Only for text that this program wrote.
    """

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: Value) -> Markup:
    """An element of SVG or HTML.

    Args:
        name: name of the element.
        children: contents; plain text is escaped, `Markup` is not.
        attributes: names with ``_`` for ``-``, a last ``_`` dropped (``class_``, ``stroke_width``);
            None and False leave one out, True is an attribute without a value, numbers are written
            by `number`.
    """
    opening = f"<{name}{''.join(_attribute(*item) for item in attributes.items())}"
    if name in VOID:
        return Markup(f"{opening}>")
    if name in SHAPES and not children:
        return Markup(f"{opening}/>")
    return Markup(f"{opening}>{joined(children)}</{name}>")


def joined(parts: Iterable[str], separator: str = "") -> Markup:
    """The concatenated parts; plain text is escaped, `Markup` is not."""
    return Markup(separator.join(part if isinstance(part, Markup) else escaped(part) for part in parts))


def escaped(text: str) -> Markup:
    """Plain text as markup, with replacement characters for those that are not allowed."""
    return Markup(escape(UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text)))


def number(value: float) -> str:
    """A length or position, rounded to hundredths, without trailing zeros."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _attribute(name: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    spelled = name.removesuffix("_").replace("_", "-")
    if value is True:
        return f" {spelled}"
    return f' {spelled}="{escaped(value if isinstance(value, str) else number(value))}"'
