"""What notebooks show of a value: its picture, by a renderer that the package root provides."""

from collections.abc import Callable
from typing import Any


class NotebookRepr:
    """A value that notebooks show as a picture.

    This module knows no renderer.  `mponet` provides one when it is imported, and the renderer is
    loaded when a notebook first asks for a picture.
    """

    __slots__ = ()

    def _repr_svg_(self) -> str | None:
        """The picture as SVG; None if there is nothing to draw yet or no renderer is provided."""
        return _renderer().notebook_svg(self) if _renderer else None

    def _repr_html_(self) -> str | None:
        """The picture as HTML; None if there is nothing to draw yet or no renderer is provided."""
        return _renderer().notebook_html(self) if _renderer else None


def provide_renderer(load: Callable[[], Any]) -> None:
    """Set the function that loads the renderer.

    Args:
        load: returns an object with ``notebook_svg(value)`` and ``notebook_html(value)``.  It is
            called once per picture, so that a heavy renderer is imported only when it is needed.
    """
    global _renderer
    _renderer = load


_renderer: Callable[[], Any] | None = None
